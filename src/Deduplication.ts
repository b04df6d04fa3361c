/**
 * Deduplication of your own effects by a key: a call to an API, a file, an email.
 *
 * A key is free, in progress (leased to one caller, which renews the lease while it works), or done until its time is over. It is done only
 * after the effect has succeeded. If a caller is killed between the end of the effect and the record of it, the key is free again: no store
 * can make an effect outside of it exactly once. See `docs/exactly-once.md`.
 *
 * @since 0.1.0
 */
import type { Duration, Result } from "effect"
import { Clock, Context, Effect, Exit, Layer, Schema } from "effect"
import { BrokerError } from "./Broker.ts"
import { Redis } from "./Redis.ts"
import { prefixProblem } from "./broker/keyText.ts"
import * as Calls from "./internal/runningCalls.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Limits from "./internal/optionLimits.ts"
import * as Shape from "./internal/optionShape.ts"
import { shown } from "./internal/describe.ts"
import { uniqueNames } from "./internal/uniqueName.ts"
import { Marks } from "./memoryBroker/onceKeys.ts"
import { brokerError } from "./redisBroker/brokerError.ts"
import * as Keys from "./redisBroker/keys.ts"
import { deduplicate as onceScript } from "./redisBroker/scripts/upkeep/deduplicate.ts"

/**
 * Another caller has this key in progress. Calling again later is safe.
 *
 * @category errors
 * @since 0.1.0
 */
export class InProgress extends Schema.TaggedError<InProgress>()("InProgress", {
  key: Schema.String,
  /** When the lease of the other caller ends, if it is not renewed. */
  leftMillis: Schema.Finite
}) {
  override get message() {
    return `"${this.key}" is being done elsewhere, for another ${this.leftMillis} ms at most unless it is renewed`
  }
}

/**
 * The lease of this key ended while the effect ran. The effect was interrupted, or had ended by then, and another caller may run it, too.
 *
 * @category errors
 * @since 0.1.0
 */
export class KeyLost extends Schema.TaggedError<KeyLost>()("KeyLost", {
  key: Schema.String
}) {
  override get message() {
    return `the lease of "${this.key}" ended before its effect was marked as done: it may be done again; take a longer lease`
  }
}

/**
 * The key or a span of time cannot be used. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidKey extends Schema.TaggedError<InvalidKey>()("InvalidKey", {
  key: Schema.String,
  message: Schema.String
}) {}

/**
 * The outcome of `once`: the result of the effect, or that it was done before.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome<A> =
  | { readonly _tag: "Done"; readonly value: A }
  | { readonly _tag: "Duplicate" }

/**
 * Options of `once`.
 *
 * @category models
 * @since 0.1.0
 */
export interface OnceOptions {
  /** The key stays with a lost caller for this long. The lease is renewed while the effect runs. Default 30 seconds, at least 30 ms. */
  readonly lease?: Duration.Input | undefined
}

/**
 * The answer of a store. `left`: it holds for at most this long.
 *
 * @category models
 * @since 0.1.0
 */
export interface Answer {
  readonly outcome: "mine" | "done" | "busy" | "already" | "free" | "lost"
  readonly leftMillis: number
}

/**
 * The store of the keys. Each step is one atomic change, fenced by the token of the caller; repeating it changes nothing.
 *
 * @category services
 * @since 0.1.0
 */
export class Deduplication extends Context.Service<Deduplication, {
  readonly step: (
    step: "begin" | "renew" | "finish" | "free" | "forget",
    key: string,
    token: object & { readonly text: string },
    millis: number
  ) => Effect.Effect<Answer, BrokerError>
  /** Runs a call: the end of the layer waits for it. */
  readonly run: Calls.Run
}>()("rotif/Deduplication") {}

const given = <A>(key: string, found: Result.Result<A, Given.Problem>): Effect.Effect<A, InvalidKey> =>
  Effect.mapError(
    Effect.fromResult(found),
    ({ message }) => new InvalidKey({ key: typeof key === "string" ? key : shown(key), message })
  )

const checkKey = (key: string): Effect.Effect<string, InvalidKey> => given(key, Given.key("the key", key, 1024))

const ttlOf = Shape.span({ usual: Number.NaN, least: 1, most: Limits.longestKept })

const shape = Shape.shape<OnceOptions>()({
  lease: Shape.span({ usual: 30_000, least: 30, most: Limits.longestKept })
})

/** An effect is interrupted when this part of its lease is left, because interruption takes time, too. */
const margin = 0.1

/** A key is begun at most this many times if the replies come later than its lease lasts. */
const mostBeginnings = 3

const tooSlow = (key: string, leaseMillis: number) =>
  new BrokerError({
    reason: "Unavailable",
    operation: "once",
    message:
      `the store gives the key "${key}" for ${leaseMillis} ms and answers later than that: take a longer lease; nothing was run`
  })

const nextToken = uniqueNames()

/**
 * Runs an effect once by a key: if it has succeeded before, within `ttl`, in any process, it is not run.
 *
 * **Details**: while it runs, the key is leased and the lease renewed; other callers fail with `InProgress`. If it fails, dies or is interrupted,
 * the key is free at once; if the process is lost, after the lease. The lease is measured on the monotonic clock of this process, without
 * waiting for replies: if it could not be renewed in time, the effect is interrupted before another caller can begin.
 *
 * **Errors**: `InProgress`: not run, call again later. `KeyLost`: run, perhaps in part, and perhaps by another caller, too. `InvalidKey`: not
 * run. `BrokerError`: the store could not be reached, or not within the lease; before the effect it was not run, and after it the record may
 * be missing: it may then run again. Errors of the effect are passed on.
 *
 * **Example** (An email once per order)
 *
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { Deduplication } from "rotif"
 *
 * const confirm = (orderId: string) =>
 *   Deduplication.once(`confirm:${orderId}`, "1 day", Effect.log(`mail about ${orderId}`)).pipe(
 *     Effect.retry({ while: (error) => error._tag === "InProgress", schedule: Schedule.spaced("1 second") })
 *   )
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const once = Effect.fnUntraced(function*<A, E, R>(
  key: string,
  ttl: Duration.Input,
  effect: Effect.Effect<A, E, R>,
  options?: OnceOptions
): Effect.fn.Return<Outcome<A>, E | InProgress | KeyLost | InvalidKey | BrokerError, R | Deduplication> {
  const { run, step } = yield* Deduplication
  yield* checkKey(key)
  const ttlMillis = Math.ceil(yield* given(key, ttlOf("ttl", ttl ?? Number.NaN)))
  const leaseMillis = Math.ceil((yield* given(key, shape.optional("the options", options))).lease)
  if (!Effect.isEffect(effect)) yield* given(key, Given.refuse("what is to be done", "an Effect", effect))
  const clock = yield* Clock.Clock
  const token = { text: nextToken() }
  const monotonic = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
  return yield* run(Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      /** Until when no other caller can have the key, and, a little earlier, until when the effect may run. */
      let leasedUntil = 0
      const runsUntil = () => leasedUntil - leaseMillis * margin
      const hold = Effect.fnUntraced(function*(name: "begin" | "renew") {
        // The store counts from the arrival of the request, which is later.
        const from = monotonic()
        const answer = yield* step(name, key, token, leaseMillis)
        if (answer.outcome === "mine") leasedUntil = from + leaseMillis
        return answer
      })
      // After the lease the key is free anyway.
      const free = Effect.suspend(() =>
        Effect.timeoutOption(Effect.ignore(step("free", key, token, 0)), Math.max(0, leasedUntil - monotonic()))
      )
      let begun = yield* hold("begin")
      // After a reply as late as this the key is begun again: to begin twice changes nothing.
      for (let i = 1; begun.outcome === "mine" && monotonic() >= runsUntil(); i++) {
        if (i === mostBeginnings) return yield* tooSlow(key, leaseMillis)
        begun = yield* hold("begin")
      }
      if (begun.outcome === "done") return { _tag: "Duplicate" } as const
      if (begun.outcome !== "mine") return yield* new InProgress({ key, leftMillis: begun.leftMillis })
      const renewing = Effect.gen(function*() {
        let pause = leaseMillis / 3
        while (true) {
          yield* Effect.sleep(pause)
          const renewed = yield* Effect.result(hold("renew"))
          if (renewed._tag === "Success" && renewed.success.outcome !== "mine") return yield* new KeyLost({ key })
          // A failed renewal is repeated soon: the lease keeps running out.
          pause = leaseMillis / (renewed._tag === "Success" ? 3 : 10)
        }
      })
      // It waits for no reply: on a silent connection one comes seconds after the lease has ended.
      const expiry = Effect.gen(function*() {
        for (let left = runsUntil() - monotonic(); left > 0; left = runsUntil() - monotonic()) yield* Effect.sleep(left)
        return yield* new KeyLost({ key })
      })
      const exit = yield* Effect.exit(restore(Effect.raceFirst(effect, Effect.raceFirst(renewing, expiry))))
      if (Exit.isFailure(exit)) {
        yield* free
        return yield* Effect.failCause(exit.cause)
      }
      const end = yield* step("finish", key, token, ttlMillis)
      if (end.outcome === "lost") return yield* new KeyLost({ key })
      return { _tag: "Done", value: exit.value } as const
    })
  ))
})

/**
 * Frees a key that was done, and returns whether it was done.
 *
 * **Errors**: `InvalidKey`: nothing was done. `BrokerError`: the store could not be reached; calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const forget = Effect.fnUntraced(function*(key: string) {
  const { run, step } = yield* Deduplication
  yield* checkKey(key)
  return (yield* run(step("forget", key, { text: "" }, 0))).outcome === "free"
})

const failed = brokerError("once")

/**
 * For this long Redis remembers that a caller has finished, even if its key is free again by then: its reply may be lost, and it asks again
 * for at most half of this time.
 */
const proofMillis = 600_000

/**
 * Stores keys in Redis, shared by all processes; on a Cluster they are spread over its nodes.
 *
 * **Details**: a key is `{prefix:once:key}`, with a time to live, so that nothing has to be cleaned up. If the `ttl` is shorter than 10 minutes,
 * there is a second key for that long, `{prefix:once:key}:` and a token, by which a caller whose reply was lost finds that it has finished.
 * Default of `prefix`: `"rotif"`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRedis = (
  options?: { readonly prefix?: string | undefined }
): Layer.Layer<Deduplication, BrokerError, Redis> =>
  Layer.effect(
    Deduplication,
    Effect.gen(function*() {
      const redis = yield* Redis
      const prefix = options?.prefix ?? "rotif"
      const problem = prefixProblem(prefix)
      if (problem !== undefined) {
        return yield* new BrokerError({ reason: "Refused", operation: "once", message: `invalid prefix: ${problem}` })
      }
      return {
        run: yield* Calls.ofLayer("deduplication"),
        step: (step, key, token, millis) => {
          const name = Keys.onceKey(prefix, key)
          return redis.connection(name).evaluate(
            onceScript,
            [name, Keys.onceProofKey(prefix, key, token.text)],
            [step, token.text, millis, proofMillis]
          ).pipe(
            Effect.map((reply) => {
              const [outcome, leftMillis] = reply as readonly [Answer["outcome"], number]
              return { outcome, leftMillis: Math.max(0, leftMillis) }
            }),
            Effect.mapError(failed),
            Effect.timeoutOrElse({
              duration: proofMillis / 2,
              orElse: () =>
                Effect.fail(
                  new BrokerError({
                    reason: "Uncertain",
                    operation: "once",
                    message: `no answer within ${proofMillis / 2} ms`
                  })
                )
            })
          )
        }
      }
    })
  )

/**
 * Stores keys in this process, on Effect's `Clock`. At most `capacity` are remembered (default 10,000): the least recently used ones are
 * evicted first, but never one that is in progress.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (
  options?: { readonly capacity?: number | undefined }
): Layer.Layer<Deduplication> =>
  Layer.effect(
    Deduplication,
    Effect.clockWith((clock) =>
      Effect.map(Calls.ofLayer("deduplication"), (run) => {
        const marks = new Marks(Math.max(1, options?.capacity ?? 10_000))
        return {
          run,
          step: (step, key, token, millis) =>
            Effect.sync((): Answer => {
              const now = clock.currentTimeMillisUnsafe()
              const answer = (outcome: Answer["outcome"], leftMillis = 0): Answer => ({ outcome, leftMillis })
              switch (step) {
                case "begin": {
                  const begun = marks.begin(key, token, now, now + millis)
                  marks.tidy(now)
                  return answer(begun, Math.max(0, (marks.untilOf(key) ?? now) - now))
                }
                case "renew":
                  return marks.isAt(key, token) ? answer(marks.begin(key, token, now, now + millis)) : answer("lost")
                case "finish":
                  return answer(marks.finish(key, token, now, now + millis) ? "done" : "lost")
                case "free":
                  return answer(marks.free(key, token) ? "free" : "lost")
                case "forget":
                  return answer(marks.forget(key) ? "free" : "lost")
              }
            })
        }
      })
    )
  )
