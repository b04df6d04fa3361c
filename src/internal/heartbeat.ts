/** Signs of life of a loop: when it came round, and when it last got done what it is there for. All times are of the monotonic clock. */
export class Heartbeat {
  readonly name: string
  /** The longest a healthy round takes. */
  readonly roundMillis: number
  private readonly now: () => number
  /** Whether it comes round without anything to do. */
  private readonly isPolled: boolean
  private hasPassed = true
  private turnedAt: number
  private passedAt: number
  /** There is nothing to be done, and that is right so. */
  private resting = false

  constructor(name: string, roundMillis: number, now: () => number, isPolled: boolean) {
    this.name = name
    this.roundMillis = roundMillis
    this.now = now
    this.isPolled = isPolled
    this.turnedAt = this.passedAt = now()
  }

  turn(passed: boolean): void {
    this.turnedAt = this.now()
    this.hasPassed = passed
    if (passed) this.passedAt = this.turnedAt
  }

  rest(): void {
    this.resting = true
  }

  /** Goes on after a rest: from now on it is expected to pass. */
  begin(): void {
    this.resting = false
    this.turnedAt = this.passedAt = this.now()
  }

  private get isResting(): boolean {
    return this.resting || (this.hasPassed && !this.isPolled)
  }

  /** How long it has not passed. */
  get sincePassMillis(): number {
    return this.isResting ? 0 : this.now() - this.passedAt
  }

  /** How long it has not come round, with success or without. */
  get sinceTurnMillis(): number {
    return this.isResting ? 0 : this.now() - this.turnedAt
  }
}
