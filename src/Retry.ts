/**
 * What happens to a message whose handler failed: again after a delay, or never again.
 *
 * A policy has no state but the attempt number stored with the message. For a `Schedule`, the delay after attempt n is the one of
 * its n-th step, found by replaying it from its first; so delays go on where they were whichever process has the message next.
 *
 * @since 0.1.0
 */
import type { DateTime } from "effect"
import { Data, DateTime as Time, Duration, Effect, Pull, Random, Result, Schedule } from "effect"
import { Age, ageSince } from "./internal/age.ts"
import * as Given from "./internal/optionChecks.ts"

/**
 * What a policy may know of the message that failed. A subscription gives its own message, with the payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface MessageInfo {
  readonly id: string
  readonly channel: string
  readonly publishedAt: DateTime.Utc
  readonly headers: Readonly<Record<string, string>>
}

/**
 * The failure a policy decides about.
 *
 * @category models
 * @since 0.1.0
 */
export interface Attempt<out E, out M extends MessageInfo = MessageInfo> {
  /** The attempt that failed, from 1. */
  readonly attempt: number
  readonly error: E
  readonly message: M
}

/**
 * What a policy decided.
 *
 * - `Retry`: again after `delay`, as the next attempt. - `Exhausted`: the policy has come to its end.
 * - `Term`: never again. - `Release`: again at once, as the same attempt.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict =
  | { readonly _tag: "Retry"; readonly delay: Duration.Duration; readonly isScheduled?: boolean | undefined }
  | { readonly _tag: "Exhausted" }
  | { readonly _tag: "Term" }
  | { readonly _tag: "Release" }

/**
 * Decides about one kind of error: a schedule, or one of `term`, `release`, `nack`.
 *
 * @category models
 * @since 0.1.0
 */
export type Decision = Schedule.Schedule<unknown, never> | Verdict

const TypeId = "~rotif/Retry"

/**
 * A decision for each error tag; made by `make`. It fits a handler whose error tags it all knows.
 *
 * @category models
 * @since 0.1.0
 */
export interface ByTag<in Tags extends string> {
  readonly [TypeId]: (tags: Tags) => void
  readonly decisions: ReadonlyMap<string, Decision>
}

/**
 * The tags of an error type; an error without one counts as `"Error"`. Of `unknown` nothing is known.
 *
 * @category models
 * @since 0.1.0
 */
// While the compiler does not know the handler's errors yet, E is `unknown`: then every record has to fit.
export type TagOf<E> = unknown extends E ? never
  : E extends { readonly _tag: infer Tag extends string } ? Tag :
  E extends never ? never
  : "Error"

/**
 * What can decide about any error: a `Schedule` (its input is the error), a fixed delay, or a function of the failed attempt (from 1),
 * the message and the error to a delay or one of `term`, `release`, `nack`. In the options of a subscription, write such a function
 * after the handler, whose errors it gets.
 *
 * @category models
 * @since 0.1.0
 */
export type Rule<E, M extends MessageInfo = MessageInfo> =
  | Schedule.Schedule<unknown, unknown extends E ? never : E>
  | Duration.Input
  | ((attempt: number, message: M, error: E) => Duration.Input | Verdict)

/**
 * A rule for errors of which nothing is known.
 *
 * @category models
 * @since 0.1.0
 */
export type AnyRule =
  | Schedule.Schedule<unknown, unknown>
  | Duration.Input
  | ((attempt: number, message: MessageInfo, error: unknown) => Duration.Input | Verdict)

/**
 * How failures are retried: one rule for every error, or a decision for each error tag.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy<E, M extends MessageInfo = MessageInfo> = Rule<E, M> | ByTag<Exclude<TagOf<E>, "RetryAfter">>

/**
 * A delay, a decision or a setting of a strategy cannot be used. Thrown where it is written; where a policy gives it at run time it is logged,
 * and the message waits for `retryDelay`.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidRetry extends Data.TaggedError("InvalidRetry")<{
  readonly option: string
  readonly message: string
}> {}

const orThrow = <A>(found: Result.Result<A, Given.Problem>): A =>
  Given.orThrow(found, (problem) => new InvalidRetry(problem))

/**
 * Never again: the message becomes a dead letter with reason `term`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const term: Verdict = { _tag: "Term" }

/**
 * Given back: again at once, and the attempt does not count. For errors that say nothing about the message; it is not limited, but paced:
 * see `Message.release`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const release: Verdict = { _tag: "Release" }

/**
 * Again after a fixed delay, as often as `maxRetries` allows. A delay of 0 is paced: see `Message.release`.
 *
 * **Errors**: throws `InvalidRetry` for what is no duration of 0 or more.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nack = (delay: Duration.Input): Verdict => ({
  _tag: "Retry",
  delay: Duration.millis(orThrow(Given.delay("delay", delay)))
})

/**
 * A decision for each error tag of the handler. It is total: a handler that fails with a tag that is not named here does not
 * compile. Defects and timeouts are not errors of the handler; they are retried by the default policy.
 *
 * **Errors**: throws `InvalidRetry` for what is no decision.
 *
 * **Example** (A decision for each error)
 *
 * ```ts
 * import { Schedule } from "effect"
 * import { Retry } from "rotif"
 *
 * const policy = Retry.make({
 *   CardDeclined: Retry.term,
 *   GatewayDown: Schedule.exponential("200 millis").pipe(Schedule.upTo({ times: 5 }))
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Decisions extends Readonly<Record<string, Decision>>>(
  decisions: Decisions
): ByTag<keyof Decisions & string> => {
  const entries = Object.entries(orThrow(Given.record("decisions", decisions)) as Decisions)
  for (const [tag, decision] of entries) {
    if (!Schedule.isSchedule(decision) && !isVerdict(decision)) {
      orThrow(Given.refuse(`the decision for ${tag}`, "a Schedule, or one of Retry.term, release and nack", decision))
    }
  }
  return { [TypeId]: () => {}, decisions: new Map(entries) }
}

/**
 * Options of the named strategies. In their formulas n is the number of the retry, from 1.
 *
 * @category models
 * @since 0.1.0
 */
export interface StrategyOptions {
  /** No delay is longer than this, before jitter. Default: no limit. */
  readonly max?: Duration.Input | undefined
  /** How many retries. Default: as many as `maxRetries` of the subscription allows, else without end. */
  readonly times?: number | undefined
  /**
   * Spreads the delay d: `"full"` over 0 to d, `"equal"` over d / 2 to d, `"proportional"` over 0.8 d to 1.2 d, a number j from 0 to 1 over
   * (1 - j) d to (1 + j) d. The chance depends on the message and the number of the retry only, so that every process finds the same delay.
   * Default: none.
   */
  readonly jitter?: "full" | "equal" | "proportional" | number | undefined
}

const spread = {
  full: [0, 1],
  equal: [0.5, 1],
  proportional: [0.8, 1.2]
} as const

const strategyOptions: ReadonlySet<string> = new Set(["max", "times", "jitter", "step", "factor"])

const decorrelatedOptions: ReadonlySet<string> = new Set(["max", "times"])

const jitterOf = (jitter: number) =>
  jitter >= 0 && jitter <= 1
    ? Result.succeed([1 - jitter, 1 + jitter] as const)
    : Given.refuse("jitter", "a number from 0 to 1", jitter)

const spanOf = (option: string, value: Duration.Input): Duration.Duration =>
  Duration.millis(orThrow(Given.delay(option, value)))

const strategy = <Output>(
  schedule: Schedule.Schedule<Output>,
  options: StrategyOptions | undefined
): Schedule.Schedule<Output> => {
  const { jitter, max, times } = orThrow(Given.known("options", options, strategyOptions)) ?? {}
  if (times !== undefined) orThrow(Given.count("times", times, { usual: 0, least: 0 }))
  let out = schedule
  if (max !== undefined) {
    const longest = Duration.millis(orThrow(Given.delay("max", max)))
    out = Schedule.modifyDelay(out, ({ duration }) => Effect.succeed(Duration.min(duration, longest)))
  }
  if (jitter !== undefined) {
    const [from, to] = typeof jitter === "number"
      ? orThrow(jitterOf(jitter))
      : spread[orThrow(Given.choice("jitter", jitter, ["full", "equal", "proportional"]))]
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
 * The same delay each time: d(n) = `delay`. The name for `Schedule.spaced`.
 *
 * @category strategies
 * @since 0.1.0
 */
export const fixed = (delay: Duration.Input, options?: StrategyOptions): Schedule.Schedule<number> =>
  strategy(Schedule.spaced(spanOf("delay", delay)), options)

/**
 * A delay that grows by the same amount: d(n) = `initial` + (n − 1) · `step`; `step` is `initial` when left out.
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
 * A delay that grows by a factor: d(n) = `initial` · `factor`^(n − 1); `factor` is 2 when left out. The name for
 * `Schedule.exponential`.
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
 * A delay that grows like the Fibonacci numbers 1, 1, 2, 3, 5, …: d(n) = `initial` · F(n). The name for `Schedule.fibonacci`.
 *
 * @category strategies
 * @since 0.1.0
 */
export const fibonacci = (initial: Duration.Input, options?: StrategyOptions): Schedule.Schedule<Duration.Duration> =>
  strategy(Schedule.fibonacci(spanOf("initial", initial)), options)

/**
 * Exponential on average, each delay drawn from the one before: d(n) is between `initial` and 3 · d(n − 1), at most `max`; d(0) =
 * `initial`. It keeps many messages that failed together from coming back together.
 *
 * @category strategies
 * @since 0.1.0
 */
export const decorrelated = (
  initial: Duration.Input,
  options: { readonly max: Duration.Input; readonly times?: number | undefined }
): Schedule.Schedule<Duration.Duration> => {
  orThrow(Given.record("options", orThrow(Given.known("options", options, decorrelatedOptions))))
  const least = Duration.toMillis(spanOf("initial", initial))
  const most = Duration.toMillis(spanOf("max", options.max))
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
    { times: options.times }
  )
}

/**
 * Ends a schedule this long after the message was published, by the clock of the backend: all processes agree, however wrong their
 * clocks are.
 *
 * **Details**: a delay that would end later is shortened, so that the last attempt comes when the time is over (or later, where nobody is
 * free); what fails then becomes a dead letter with reason `exhausted`. `Schedule.upTo({ duration })` adds up the delays alone: what
 * attempts took, and how long a message waited for its first, does not count there. Here it does: a message that was first handled after
 * that time, or was sent home by `DeadLetters.requeue`, has one attempt. Each failure that such a schedule decides about costs one `TIME`.
 * Where Redis does not answer that, the message has one more attempt.
 *
 * **Errors**: throws `InvalidRetry` for what is no duration above 0.
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

/**
 * Fail with this in a handler to be retried after exactly this delay (0 is paced: see `Message.release`). It counts as an attempt: `maxRetries`, or the end of the
 * subscription's schedule, still ends it.
 *
 * @category errors
 * @since 0.1.0
 */
export class RetryAfter extends Data.TaggedError("RetryAfter")<{
  readonly delay: Duration.Input
  readonly message: string
}> {}

const isByTag = (policy: object): policy is ByTag<never> => TypeId in policy

const isVerdict = (answer: unknown): answer is Verdict =>
  typeof answer === "object" && answer !== null && "_tag" in answer
  && (answer._tag === "Retry" || answer._tag === "Exhausted" || answer._tag === "Term" || answer._tag === "Release")

/** A policy that cannot decide anything: refused where it is given. */
export const policyProblem = (option: string, policy: unknown): Result.Result<unknown, Given.Problem> => {
  if (policy === undefined || Schedule.isSchedule(policy) || typeof policy === "function") return Result.succeed(policy)
  if (typeof policy === "object" && policy !== null && isByTag(policy)) return Result.succeed(policy)
  return Result.mapError(
    Given.delay(option, policy),
    ({ message }) => ({ option, message: `${message}; it may be a Schedule, a function, or made by Retry.make, too` })
  )
}

/** What a function gave: one of the verdicts, or a delay. Anything else is a mistake, and must not become "at once". */
const verdictOf = (option: string, answer: unknown): Verdict =>
  !isVerdict(answer)
    ? { _tag: "Retry", delay: spanOf(option, answer as Duration.Input) }
    : answer._tag === "Retry"
    ? { ...answer, delay: spanOf(option, answer.delay) }
    : answer

const exhausted: Verdict = { _tag: "Exhausted" }

/**
 * The delay after the given attempt: the schedule is stepped up to it, on a clock that advances by the delays themselves, with chance
 * that depends on the message only. So the answer is the same in every process.
 */
const replay = Effect.fnUntraced(function*(
  schedule: Schedule.Schedule<unknown, unknown>,
  { attempt, error, message }: Attempt<unknown>
): Effect.fn.Return<Verdict> {
  const step = yield* Schedule.toStep(schedule)
  let now = Time.toEpochMillis(message.publishedAt)
  const age = yield* ageSince(now)
  let delay = Duration.zero
  for (let i = 0; i < attempt; i++) {
    const next = yield* Pull.catchDone(step(now, error), () => Effect.undefined).pipe(Effect.provideService(Age, age))
    if (next === undefined) return exhausted
    delay = next[1]
    now += Duration.toMillis(delay)
  }
  return { _tag: "Retry", delay: spanOf("the delay of the schedule", delay), isScheduled: true }
}, (effect, _, { message }) => Random.withSeed(effect, `${message.channel}\n${message.id}`))

/** The tag a policy looks for. */
export const tagOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string"
    ? error._tag
    : "Error"

const judge = <E, M extends MessageInfo>(
  policy: Policy<E, M>,
  failure: Attempt<E, M>
): Effect.Effect<Verdict | undefined> => {
  if (Schedule.isSchedule(policy)) return replay(policy as Schedule.Schedule<unknown, unknown>, failure)
  if (typeof policy === "function") {
    return Effect.sync(() => {
      const answer: unknown = policy(failure.attempt, failure.message, failure.error)
      return verdictOf("what the retry function gives", answer)
    })
  }
  if (typeof policy === "object" && isByTag(policy)) {
    const decision = policy.decisions.get(tagOf(failure.error))
    if (decision === undefined) return Effect.undefined
    return Schedule.isSchedule(decision)
      ? replay(decision as Schedule.Schedule<unknown, unknown>, failure)
      : Effect.sync(() => verdictOf(`the decision for ${tagOf(failure.error)}`, decision))
  }
  return Effect.sync(() => verdictOf("retry", policy))
}

/**
 * Asks a policy about a failure. `undefined`: the policy does not know this error.
 *
 * @category operations
 * @since 0.1.0
 */
export const decide = <E, M extends MessageInfo>(
  policy: Policy<E, M>,
  failure: Attempt<E, M>
): Effect.Effect<Verdict | undefined> => {
  const { error } = failure
  if (!(error instanceof RetryAfter)) return judge(policy, failure)
  const delay = () => spanOf("the delay of RetryAfter", error.delay)
  // The handler chose the delay; whether there is another attempt is still the schedule's to say.
  return Schedule.isSchedule(policy)
    ? Effect.map(
      judge(policy, failure),
      (verdict) => verdict?._tag === "Retry" ? { ...verdict, delay: delay() } : verdict
    )
    : Effect.sync((): Verdict => ({ _tag: "Retry", delay: delay() }))
}
