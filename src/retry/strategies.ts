/** The named strategies: schedules whose random part depends on the message only. */
import { Duration, Effect, Random, Result, Schedule } from "effect"
import { Age } from "../internal/messageAge.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Shape from "../internal/optionShape.ts"
import { orThrow, spanOf } from "./verdict.ts"

/**
 * Options of the named strategies. In their formulas n is the number of the retry, from 1.
 *
 * @category models
 * @since 0.1.0
 */
export interface StrategyOptions {
  /** The longest delay, before jitter. Default: no limit. */
  readonly max?: Duration.Input | undefined
  /** The number of retries. Default: `maxRetries` of the subscription if it has one, else no end. */
  readonly times?: number | undefined
  /**
   * Spreads the delay d: `"full"` over 0 to d, `"equal"` over d / 2 to d, `"proportional"` over 0.8 d to 1.2 d, a number j from 0 to 1 over
   * (1 - j) d to (1 + j) d. The random part depends only on the message and the number of the retry, so that every process finds the same
   * delay. Default: none.
   */
  readonly jitter?: "full" | "equal" | "proportional" | number | undefined
}

const spread = { full: [0, 1], equal: [0.5, 1], proportional: [0.8, 1.2] } as const

const delay: Shape.Check<number> = Given.delay

/** Reads between which parts of a delay its jitter lies. */
const jitterOf: Shape.Check<readonly [from: number, to: number]> = (option, jitter) =>
  typeof jitter !== "number"
    ? Result.map(Shape.choice("full", "equal", "proportional")(option, jitter), (name) => spread[name])
    : jitter >= 0 && jitter <= 1
    ? Result.succeed([1 - jitter, 1 + jitter])
    : Given.refuse(option, "a number from 0 to 1", jitter)

const shape = Shape.shape<StrategyOptions & { readonly step?: unknown; readonly factor?: unknown }>()({
  max: Shape.optional(delay),
  times: Shape.optional(Shape.count({ usual: 0, least: 0 })),
  jitter: Shape.optional(jitterOf),
  step: Shape.any,
  factor: Shape.any
})

const decorrelatedShape = Shape.shape<{ readonly max: Duration.Input; readonly times?: number | undefined }>()({
  max: delay,
  times: Shape.any
})

const strategy = <Output>(
  schedule: Schedule.Schedule<Output>,
  options: StrategyOptions | undefined
): Schedule.Schedule<Output> => {
  const { jitter, max, times } = orThrow(shape.optional("options", options))
  let out = schedule
  if (max !== undefined) {
    const longest = Duration.millis(max)
    out = Schedule.modifyDelay(out, ({ duration }) => Effect.succeed(Duration.min(duration, longest)))
  }
  if (jitter !== undefined) {
    const [from, to] = jitter
    out = Schedule.modifyDelay(
      out,
      ({ duration }) =>
        Effect.map(
          Random.next,
          (random) => Duration.millis(Duration.toMillis(duration) * (from + (to - from) * random))
        )
    )
  }
  return times === undefined ? out : Schedule.upTo(out, { times })
}

/**
 * Waits equally long each time: d(n) = `delay`. It is `Schedule.spaced` with `StrategyOptions`.
 *
 * @category strategies
 * @since 0.1.0
 */
export const fixed = (delay: Duration.Input, options?: StrategyOptions): Schedule.Schedule<number> =>
  strategy(Schedule.spaced(spanOf("delay", delay)), options)

/**
 * Adds the same span each time: d(n) = `initial` + (n − 1) · `step`. `step` defaults to `initial`.
 *
 * @category strategies
 * @since 0.1.0
 */
export const linear = (
  initial: Duration.Input,
  options?: StrategyOptions & { readonly step?: Duration.Input | undefined }
): Schedule.Schedule<number> => {
  const from = spanOf("initial", initial)
  const first = Duration.toMillis(from)
  const step = options?.step === undefined ? first : Duration.toMillis(spanOf("step", options.step))
  return strategy(
    Schedule.modifyDelay(
      Schedule.spaced(from),
      ({ attempt }) => Effect.succeed(Duration.millis(first + (attempt - 1) * step))
    ),
    options
  )
}

/**
 * Multiplies the delay each time: d(n) = `initial` · `factor`^(n − 1). `factor` defaults to 2. It is `Schedule.exponential` with
 * `StrategyOptions`.
 *
 * @category strategies
 * @since 0.1.0
 */
export const exponential = (
  initial: Duration.Input,
  options?: StrategyOptions & { readonly factor?: number | undefined }
): Schedule.Schedule<Duration.Duration> => {
  const factor = options?.factor ?? 2
  if (!(factor > 0 && factor < Infinity)) orThrow(Given.refuse("factor", "a number above 0", factor))
  return strategy(Schedule.exponential(spanOf("initial", initial), factor), options)
}

/**
 * Grows the delay like the Fibonacci numbers 1, 1, 2, 3, 5, …: d(n) = `initial` · F(n). It is `Schedule.fibonacci` with `StrategyOptions`.
 *
 * @category strategies
 * @since 0.1.0
 */
export const fibonacci = (initial: Duration.Input, options?: StrategyOptions): Schedule.Schedule<Duration.Duration> =>
  strategy(Schedule.fibonacci(spanOf("initial", initial)), options)

/**
 * Draws each delay at random from the one before: d(n) lies between `initial` and 3 · d(n − 1), and is at most `max`; d(0) = `initial`. On
 * average it is exponential. Messages that failed together do not come back together.
 *
 * @category strategies
 * @since 0.1.0
 */
export const decorrelated = (
  initial: Duration.Input,
  options: { readonly max: Duration.Input; readonly times?: number | undefined }
): Schedule.Schedule<Duration.Duration> => {
  const { max: most, times } = orThrow(decorrelatedShape.required("options", options))
  const least = Duration.toMillis(spanOf("initial", initial))
  return strategy(
    Schedule.fromStep(Effect.sync(() => {
      let last = least
      return () =>
        Effect.map(Random.next, (random) => {
          last = Math.min(most, least + random * (3 * last - least))
          const delay = Duration.millis(last)
          return [delay, delay]
        })
    })),
    { times }
  )
}

/**
 * Ends a schedule this long after the message was published, by the clock of the backend. So all processes agree, even if their own clocks
 * are wrong.
 *
 * **Details**: a delay that would end later is shortened, so that the last attempt comes at that time (or later, if no handler is free). If
 * that attempt fails, the message becomes a dead letter with reason `exhausted`. `Schedule.upTo({ duration })` adds up only the delays; the
 * time of the attempts, and the wait for the first one, do not count there. Here they do: a message that is first handled after that time,
 * or was requeued by `DeadLetters.requeue`, has one attempt. Each failure that such a schedule decides about costs one `TIME`. If Redis does
 * not answer it, the message has one more attempt.
 *
 * **Errors**: throws `InvalidRetry` unless the duration is above 0.
 *
 * **Example** (Giving up after an hour)
 *
 * ```ts
 * import { Retry } from "rotif"
 *
 * const policy = Retry.exponential("1 second", { max: "5 minutes" }).pipe(Retry.until("1 hour"))
 * ```
 *
 * @category strategies
 * @since 0.1.0
 */
export const until = (duration: Duration.Input) => {
  const most = orThrow(Given.positive("duration", duration))
  const left = Effect.flatMap(Age, Effect.map((age) => most - age))
  return <Output, Input, Error, Env>(
    schedule: Schedule.Schedule<Output, Input, Error, Env>
  ): Schedule.Schedule<Output, Input, Error, Env> =>
    schedule.pipe(
      Schedule.while(() => Effect.map(left, (millis) => millis > 0)),
      Schedule.modifyDelay(({ duration }) =>
        Effect.map(left, (millis) => Duration.min(duration, Duration.millis(millis)))
      )
    )
}
