/**
 * Retry policies: whether a message whose handler failed is handled again, and after which delay.
 *
 * A policy is a value: a `Schedule`, a delay, a function, or a decision for each error tag. Its only state is the attempt number that is
 * stored with the message. For a `Schedule`, the delay after attempt n is that of its n-th step, found by replaying it from its first step.
 * So delays continue where they were, whichever process has the message next.
 *
 * The service `Retry` has the default policy of the program and its named policies; `layer` sets them.
 *
 * @since 0.1.0
 */
import type { DateTime } from "effect"
import {
  Context,
  Data,
  DateTime as Time,
  Duration,
  Effect,
  Layer,
  Pull,
  Random,
  Result,
  Schedule,
  Schema
} from "effect"
import { Age, ageSince } from "./internal/messageAge.ts"
import { errorTagOf } from "./internal/failure.ts"
import { nearest } from "./internal/suggestion.ts"
import * as Given from "./internal/optionChecks.ts"

/**
 * The message that failed, as a policy sees it. A subscription passes its own message, with the payload.
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
 * One failed attempt at a message: the failure that a policy decides about.
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
 * The answer of a policy to one failure.
 *
 * - `Retry`: again after `delay`, as the next attempt. - `Exhausted`: the policy has ended; the message becomes a dead letter.
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
 * The decision about one error tag: a schedule, or one of `term`, `release`, `nack`.
 *
 * @category models
 * @since 0.1.0
 */
export type Decision = Schedule.Schedule<unknown, never> | Verdict

const TypeId = "~rotif/Retry"

/**
 * A decision for each error tag, made by `make`. It fits a handler if it has a decision for every error tag of that handler.
 *
 * @category models
 * @since 0.1.0
 */
export interface ByTag<in Tags extends string> {
  readonly [TypeId]: (tags: Tags) => void
  readonly decisions: ReadonlyMap<string, Decision>
}

/**
 * The tags of an error type. An error without a tag counts as `"Error"`; `unknown` has no tags.
 *
 * @category models
 * @since 0.1.0
 */
// While the compiler has not inferred the handler's errors yet, E is `unknown`: every record must fit then.
export type TagOf<E> = unknown extends E ? never
  : E extends { readonly _tag: infer Tag extends string } ? Tag :
  E extends never ? never
  : "Error"

/**
 * A policy for every error: a `Schedule` (its input is the error), a fixed delay, or a function from the failed attempt (from 1), the
 * message and the error to a delay or one of `term`, `release`, `nack`. In the options of a subscription, write such a function after the
 * handler: the compiler takes its errors from there.
 *
 * @category models
 * @since 0.1.0
 */
export type Rule<E, M extends MessageInfo = MessageInfo> =
  | Schedule.Schedule<unknown, unknown extends E ? never : E>
  | Duration.Input
  | ((attempt: number, message: M, error: E) => Duration.Input | Verdict)

/**
 * A policy for errors of any type.
 *
 * @category models
 * @since 0.1.0
 */
export type AnyRule =
  | Schedule.Schedule<unknown, unknown>
  | Duration.Input
  | ((attempt: number, message: MessageInfo, error: unknown) => Duration.Input | Verdict)

/**
 * A retry policy: one rule for every error, or a decision for each error tag.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy<E, M extends MessageInfo = MessageInfo> = Rule<E, M> | ByTag<Exclude<TagOf<E>, "RetryAfter">>

/**
 * The name of a policy that `layer` was given. Any text that does not read as a duration.
 *
 * @category models
 * @since 0.1.0
 */
// With `string` alone the durations would vanish from unions, and from what an editor suggests.
export type Name = string & {}

/**
 * A policy, or the name of one. A text that reads as a duration is a duration.
 *
 * @category models
 * @since 0.1.0
 */
export type PolicyOrName<E, M extends MessageInfo = MessageInfo> = Policy<E, M> | Name

/**
 * The retry policies of a program. Set them with `layer`.
 *
 * @category services
 * @since 0.1.0
 */
export interface Retry {
  /** The default policy; `undefined`: `retry` of `Rotif.layer`, else again after `retryDelay`. */
  readonly default: AnyRule | undefined
  /** The policies that a subscription can choose by name. */
  readonly policies: ReadonlyMap<string, AnyRule>
}

/**
 * The service with the retry policies of a program. It need not be provided: without `layer` there is no default policy and no name.
 *
 * @category services
 * @since 0.1.0
 */
export const Retry: Context.Reference<Retry> = Context.Reference<Retry>("rotif/Retry", {
  defaultValue: () => ({ default: undefined, policies: new Map() })
})

/**
 * Options of `layer`.
 *
 * @category models
 * @since 0.1.0
 */
export interface LayerOptions {
  /**
   * Decides for every subscription without a `retry`, and about defects and timeouts in all of them. Default: `retry` of `Rotif.layer`, else
   * again after `retryDelay`.
   */
  readonly default?: AnyRule | undefined
  /** Policies by name: `retry: "gentle"` in a subscription stands for the policy `gentle`. Default: none. */
  readonly policies?: Readonly<Record<string, AnyRule>> | undefined
}

/**
 * A delay, a decision or a setting of a strategy cannot be used. It is thrown where the value is written. A value that a policy returns at
 * run time is logged instead, and the message waits for `retryDelay`.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidRetry extends Schema.TaggedError<InvalidRetry>()("InvalidRetry", Given.problemFields) {}

const orThrow = Given.throwing(InvalidRetry)

/**
 * Decides that the message is never handled again: it becomes a dead letter with reason `term`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const term: Verdict = { _tag: "Term" }

/**
 * Decides that the message is handled again at once, and that the attempt does not count. Use it for errors that say nothing about the
 * message. It has no limit, but it is paced: see `Message.release`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const release: Verdict = { _tag: "Release" }

/**
 * Decides that the message is handled again after a fixed delay, at most `maxRetries` times. A delay of 0 is paced: see `Message.release`.
 *
 * **Errors**: throws `InvalidRetry` unless the delay is a duration of 0 or more.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nack = (delay: Duration.Input): Verdict => ({
  _tag: "Retry",
  delay: Duration.millis(orThrow(Given.delay("delay", delay)))
})

/**
 * Makes a policy with a decision for each error tag of the handler. It is total: a handler with an error tag that has no decision does not
 * compile. Defects and timeouts are not errors of the handler; the default policy decides about them.
 *
 * **Errors**: throws `InvalidRetry` for a value that is not a decision.
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

/**
 * Fail with this in a handler to be retried after exactly this delay (0 is paced: see `Message.release`). It counts as an attempt:
 * `maxRetries`, or the end of the subscription's schedule, still applies. It is a wish of a handler and is not sent over a wire, so it is no
 * `Schema` error as the other errors are.
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

/**
 * Refuses a value that is no policy.
 *
 * @internal
 */
export const checkPolicy = <P>(option: string, policy: P): Result.Result<P, Given.Problem> =>
  policy === undefined || Schedule.isSchedule(policy) || typeof policy === "function" ||
    (typeof policy === "object" && policy !== null && isByTag(policy))
    ? Result.succeed(policy)
    : Result.mapBoth(Given.delay(option, policy), {
      onFailure: ({ message }) => ({
        option,
        message: `${message}; it may be a Schedule, a function, or made by Retry.make, too`
      }),
      onSuccess: () => policy
    })

const isDuration = (text: string): boolean => !Number.isNaN(Given.millisOf(text))

/**
 * Finds the policy that an option stands for: a policy stands for itself, a name for the policy of that name.
 *
 * @internal
 */
export const resolve = <E, M extends MessageInfo>(
  option: string,
  given: PolicyOrName<E, M> | undefined,
  { policies }: Retry
): Result.Result<Policy<E, M> | undefined, Given.Problem> => {
  if (typeof given !== "string" || isDuration(given)) {
    return checkPolicy(option, given as Policy<E, M> | undefined)
  }
  const policy = policies.get(given)
  if (policy !== undefined) return Result.succeed(policy)
  const near = nearest(given, policies.keys())
  const hint = near === undefined ? "" : `; did you mean ${JSON.stringify(near)}?`
  return Given.refuse(option, `a policy, a duration, or the name of a policy given to Retry.layer${hint}`, given)
}

/**
 * Puts policies in front of others: the inner default and the inner policy of a name win.
 *
 * @internal
 */
export const within = (inner: Retry, outer: Retry): Retry => ({
  default: inner.default ?? outer.default,
  policies: new Map([...outer.policies, ...inner.policies])
})

const layerNames: ReadonlySet<string> = new Set<keyof LayerOptions>(["default", "policies"])

/**
 * Sets the default retry policy of a program and its named policies.
 *
 * **Details**: provide it to `Rotif.layer` for the whole program, or to a subscription for that one. A layer inside of another one wins, name
 * by name. The order for a subscription is: its own `retry`, the default of this layer, `retry` of `Rotif.layer`, `retryDelay`. A
 * subscription that names an unknown policy does not start: it fails with `InvalidSubscription`, which says the nearest known name.
 *
 * **Errors**: the layer dies with an error that names the option, if a policy or its name cannot be used. A name is a string of 1 to 256 bytes
 * that does not read as a duration.
 *
 * **Example** (A default for all, and a policy by name)
 *
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Channel, Retry, Rotif, Subscription } from "rotif"
 *
 * const Emails = Channel.make("emails", { payload: Schema.Struct({ to: Schema.String }) })
 *
 * const Policies = Retry.layer({
 *   default: Retry.exponential("1 second", { times: 5 }),
 *   policies: { gentle: Retry.linear("1 minute", { times: 20 }) }
 * })
 * const Mailer = Subscription.layer(Emails, { retry: "gentle", handler: ({ payload }) => Effect.log(payload.to) })
 *
 * const program = Layer.launch(Mailer.pipe(Layer.provide(Rotif.layerMemory.pipe(Layer.provide(Policies)))))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: LayerOptions): Layer.Layer<never> =>
  Layer.effect(
    Retry,
    Effect.gen(function*() {
      yield* Given.orDie(Given.record("the options of Retry.layer", options))
      yield* Given.orDie(Given.known("the options of Retry.layer", options, layerNames))
      const named = Object.entries(yield* Given.orDie(Given.record("policies", options.policies ?? {})))
      for (const [name, policy] of named) {
        const option = `the policy ${JSON.stringify(name)}`
        yield* Given.orDie(Given.name("the name of a policy", name, 256))
        if (isDuration(name)) {
          yield* Given.orDie(Given.refuse("the name of a policy", "a text that is no duration", name))
        }
        if (policy === undefined) yield* Given.orDie(Given.refuse(option, "a policy", policy))
        yield* Given.orDie(checkPolicy(option, policy))
      }
      yield* Given.orDie(checkPolicy("default", options.default))
      return within({ default: options.default, policies: new Map(named as Array<[string, AnyRule]>) }, yield* Retry)
    })
  )

/** Reads the result of a function: one of the verdicts, or a delay. Anything else is a mistake, and must not become "at once". */
const verdictOf = (option: string, answer: unknown): Verdict =>
  !isVerdict(answer)
    ? { _tag: "Retry", delay: spanOf(option, answer as Duration.Input) }
    : answer._tag === "Retry"
    ? { ...answer, delay: spanOf(option, answer.delay) }
    : answer

const exhausted: Verdict = { _tag: "Exhausted" }

/**
 * Finds the delay after an attempt: steps the schedule up to it, on a clock that advances by the delays themselves, with random numbers that
 * depend only on the message. So the answer is the same in every process.
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
    const decision = policy.decisions.get(errorTagOf(failure.error))
    if (decision === undefined) return Effect.undefined
    return Schedule.isSchedule(decision)
      ? replay(decision as Schedule.Schedule<unknown, unknown>, failure)
      : Effect.sync(() => verdictOf(`the decision for ${errorTagOf(failure.error)}`, decision))
  }
  return Effect.sync(() => verdictOf("retry", policy))
}

/**
 * Asks a policy about a failure. `undefined`: the policy has no decision for this error.
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
  // The handler chose the delay; the schedule still decides whether there is another attempt.
  return Schedule.isSchedule(policy)
    ? Effect.map(
      judge(policy, failure),
      (verdict) => verdict?._tag === "Retry" ? { ...verdict, delay: delay() } : verdict
    )
    : Effect.sync((): Verdict => ({ _tag: "Retry", delay: delay() }))
}
