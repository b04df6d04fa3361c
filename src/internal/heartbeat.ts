/** The heartbeat of a loop: the time of its last round, and of its last round that succeeded. All times are of the monotonic clock. */
export class Heartbeat {
  readonly name: string
  /** The longest time of a healthy round. */
  readonly roundMillis: number
  private readonly now: () => number
  /** Whether it turns even when there is nothing to do. */
  private readonly isPolled: boolean
  private hasPassed = true
  private turnedAt: number
  private passedAt: number
  /** It has nothing to do, as it should. */
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

  /** Ends a rest: from now on rounds are expected to succeed. */
  begin(): void {
    this.resting = false
    this.turnedAt = this.passedAt = this.now()
  }

  private get isResting(): boolean {
    return this.resting || (this.hasPassed && !this.isPolled)
  }

  /** The time since the last round that succeeded. */
  get sincePassMillis(): number {
    return this.isResting ? 0 : this.now() - this.passedAt
  }

  /** The time since the last round. */
  get sinceTurnMillis(): number {
    return this.isResting ? 0 : this.now() - this.turnedAt
  }
}
