/**
 * Shifts the wall clock of a process: `--import clock.ts` with CLOCK_SHIFT in ms, and with CLOCK_JUMPS in ms it jumps back and forth by so
 * much, ten times a second. Only what tells the time of day is shifted; timers and the monotonic clock go on as they are.
 */
const shift = Number(process.env["CLOCK_SHIFT"] ?? 0)
const jumps = Number(process.env["CLOCK_JUMPS"] ?? 0)
const real = Date.now.bind(Date)
const RealDate = Date

const now = () => {
  const time = real()
  return time + shift + (Math.floor(time / 100) % 2 === 0 ? jumps : -jumps)
}

class ShiftedDate extends RealDate {
  constructor(...args: ReadonlyArray<unknown>) {
    if (args.length === 0) super(now())
    else super(...args as [number])
  }
  static override now(): number {
    return now()
  }
}

if (shift !== 0 || jumps !== 0) {
  globalThis.Date = ShiftedDate as DateConstructor
}

/** The time on a machine with a correct clock. */
export const trueNow = real

/** The machine's own clock, in ms: one for all its processes. */
const monotonic = () => Number(process.hrtime.bigint()) / 1e6

/** When the machine's own clock was 0. Whoever starts others gives it on to them. */
const origin = Number(process.env["CLOCK_ORIGIN"] ?? real() - monotonic())

/**
 * The same with fractions of a millisecond, so that processes can tell the order of their events.
 * `performance.timeOrigin` is no help there: a process that was held up while it started has been seen 16 ms ahead of the others.
 */
export const exactNow = () => origin + monotonic()

/** The error of the clock of a process. */
export interface Wrong {
  readonly shiftMillis?: number
  readonly jumpMillis?: number
}

/** Gives the environment of a process with such a clock. */
export const environmentFor = ({ jumpMillis = 0, shiftMillis = 0 }: Wrong = {}) => ({
  CLOCK_ORIGIN: String(origin),
  CLOCK_SHIFT: String(shiftMillis),
  CLOCK_JUMPS: String(jumpMillis)
})
