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
import type { Duration } from "effect"
import { Context, Data, Effect, Layer, Result, Schedule } from "effect"
import { errorTagOf } from "./internal/failure.ts"
import { nearest } from "./internal/suggestion.ts"
import * as Given from "./internal/optionChecks.ts"
import { replay } from "./retry/replay.ts"
import type { Attempt, MessageInfo, Verdict } from "./retry/verdict.ts"
import { isVerdict, orThrow, spanOf, verdictOf } from "./retry/verdict.ts"

export { decorrelated, exponential, fibonacci, fixed, linear, type StrategyOptions, until } from "./retry/strategies.ts"
export { type Attempt, InvalidRetry, type MessageInfo, nack, release, term, type Verdict } from "./retry/verdict.ts"

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
