/**
 * What happens to a message whose handler failed: again after a delay, or never again.
 *
 * A policy has no state but the attempt number stored with the message. For a `Schedule`, the delay after attempt n is the one of
 * its n-th step, found by replaying it from its first; so delays go on where they were whichever process has the message next.
 *
 * @since 0.1.0
 */
import { Data, Duration, Effect, Pull, Schedule } from "effect"

/**
 * The failure a policy decides about.
 *
 * @category models
 * @since 0.1.0
 */
export interface Attempt<out E> {
  /** The attempt that failed, from 1. */
  readonly attempt: number
  readonly error: E
  readonly message: {
    readonly id: string
    readonly channel: string
    readonly publishedAtMillis: number
    readonly headers: Readonly<Record<string, string>>
  }
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
  | { readonly _tag: "Retry"; readonly delay: Duration.Duration }
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
 * The tags of an error type; an error without one counts as `"Error"`.
 *
 * @category models
 * @since 0.1.0
 */
export type TagOf<E> = unknown extends E ? never
  : E extends { readonly _tag: infer Tag extends string } ? Tag :
  E extends never ? never
  : "Error"

/**
 * How failures are retried: a `Schedule` (its input is the error), a fixed delay, a function to a delay, or a decision for each
 * error tag.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy<E> =
  | Schedule.Schedule<unknown, Known<E>>
  | Duration.Input
  | ((failure: Attempt<E>) => Duration.Input)
  | ByTag<Exclude<TagOf<E>, "RetryAfter">>

// The compiler looks at a policy before it looks at a handler written in place. Until then the errors are `unknown`, and a policy
// that would not fit these would be refused without a look at the handler.
type Known<E> = unknown extends E ? never : E

/**
 * Never again: the message becomes a dead letter with reason `term`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const term: Verdict = { _tag: "Term" }

/**
 * Given back: again at once, and the attempt does not count. For errors that say nothing about the message; it is not limited.
 *
 * @category constructors
 * @since 0.1.0
 */
export const release: Verdict = { _tag: "Release" }

/**
 * Again after a fixed delay.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nack = (delay: Duration.Input): Verdict => ({ _tag: "Retry", delay: Duration.fromInputUnsafe(delay) })

/**
 * A decision for each error tag of the handler. It is total: a handler that fails with a tag that is not named here does not
 * compile. Defects and timeouts are not errors of the handler; they are retried by the default policy.
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
): ByTag<keyof Decisions & string> => ({ [TypeId]: () => {}, decisions: new Map(Object.entries(decisions)) })

/**
 * Fail with this in a handler to be retried after exactly this delay; it counts as an attempt.
 *
 * @category errors
 * @since 0.1.0
 */
export class RetryAfter extends Data.TaggedError("RetryAfter")<{
  readonly delay: Duration.Input
  readonly message: string
}> {}

const isByTag = (policy: object): policy is ByTag<never> => TypeId in policy

const exhausted: Verdict = { _tag: "Exhausted" }

/** The delay after the given attempt: the schedule is stepped up to it, on a clock that advances by the delays themselves. */
const replay = Effect.fnUntraced(function*(
  schedule: Schedule.Schedule<unknown, unknown>,
  { attempt, error, message }: Attempt<unknown>
): Effect.fn.Return<Verdict> {
  const step = yield* Schedule.toStep(schedule)
  let now = message.publishedAtMillis
  let delay = Duration.zero
  for (let i = 0; i < attempt; i++) {
    const next = yield* Pull.catchDone(step(now, error), () => Effect.undefined)
    if (next === undefined) return exhausted
    delay = next[1]
    now += Duration.toMillis(delay)
  }
  return { _tag: "Retry", delay }
})

/** The tag a policy looks for. */
export const tagOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string"
    ? error._tag
    : "Error"

/**
 * Asks a policy about a failure. `undefined`: the policy does not know this error.
 *
 * @category operations
 * @since 0.1.0
 */
export const decide = <E>(policy: Policy<E>, failure: Attempt<E>): Effect.Effect<Verdict | undefined> => {
  if (failure.error instanceof RetryAfter) return Effect.succeed(nack(failure.error.delay))
  if (Schedule.isSchedule(policy)) return replay(policy as Schedule.Schedule<unknown, unknown>, failure)
  if (typeof policy === "function") return Effect.sync(() => nack(policy(failure)))
  if (typeof policy === "object" && isByTag(policy)) {
    const decision = policy.decisions.get(tagOf(failure.error))
    if (decision === undefined) return Effect.undefined
    return Schedule.isSchedule(decision)
      ? replay(decision as Schedule.Schedule<unknown, unknown>, failure)
      : Effect.succeed(decision)
  }
  return Effect.succeed(nack(policy as Duration.Input))
}

/**
 * Whether a policy comes to an end by itself, so that no default number of retries is put on top of it.
 *
 * @category guards
 * @since 0.1.0
 */
export const decidesItself = (policy: Policy<never>): boolean =>
  Schedule.isSchedule(policy) || (typeof policy === "object" && isByTag(policy))
