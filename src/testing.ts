/**
 * For tests: a broker whose operations fail on demand, before or after they took effect, and the contract that every backend keeps.
 *
 * It has a path of its own, `rotif/testing`: programs themselves have no need of it.
 *
 * @since 0.1.0
 */
import { Context, Effect, Layer } from "effect"
import type { Appended, BrokerErrorReason, Delivery, Member, NewMessage } from "./Broker.ts"
import { Broker, BrokerError } from "./Broker.ts"
import * as Deduplication from "./Deduplication.ts"
import * as MemoryBroker from "./MemoryBroker.ts"
import * as Rotif from "./Rotif.ts"

export * from "./testing/portContract.ts"

/**
 * The operations that can be made to fail, by the names that `BrokerError.operation` gives them.
 *
 * `append` is what publishing does. `join`, `read`, `claim`, `renew`, `begin` are what a subscription does to have messages; `ack`, `redeliver`
 * (a retry or a release), `bury` (a dead letter) and `commit` (a transaction) are how it ends them. `promote`, `relay`, `trim` and those of
 * `recurring` are done in the background.
 *
 * @category models
 * @since 0.1.0
 */
export type Operation =
  | "append"
  | "join"
  | "read"
  | "claim"
  | "renew"
  | "begin"
  | "tryAgain"
  | "acquit"
  | "ack"
  | "redeliver"
  | "bury"
  | "commit"
  | "promote"
  | "relay"
  | "trim"
  | "removeGroup"
  | "info"
  | "ping"
  | "own.read"
  | "stats.read"
  | `scheduled.${"cancel" | "reschedule" | "list" | "count"}`
  | `recurring.${"nowMillis" | "upsert" | "remove" | "list" | "due" | "advance"}`
  | `letters.${
    | "list"
    | "get"
    | "requeue"
    | "remove"
    | "counts"
    | "size"
    | "offer"
    | "conclude"
    | "forget"
    | "lead"}`
  | "broadcast.publish"
  | "broadcast.listen"

/**
 * A failure to come.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failing {
  readonly operation: Operation
  /** `"before"`: nothing was done. `"after"`: it took effect, and only its answer is lost. */
  readonly when: "before" | "after"
  /** How many calls fail, from the next one on. Default 1; `Infinity` until `recover`. */
  readonly times?: number | undefined
  /**
   * What the caller is told. Default: `"Unavailable"` before, `"Uncertain"` after. A publish turns them into `Unavailable` and
   * `PublishUncertain`, everything else into a `BrokerError`.
   */
  readonly reason?: BrokerErrorReason | undefined
}

/**
 * What is to fail; see the functions `failing` and `recover`.
 *
 * @category services
 * @since 0.1.0
 */
export class Faults extends Context.Service<Faults, {
  readonly failing: (failing: Failing) => Effect.Effect<Effect.Effect<void>>
  readonly recover: Effect.Effect<void>
}>()("rotif/Faults") {}

/**
 * Makes the next calls of an operation fail.
 *
 * **Details**: what it returns completes when the last of them has failed. Several for one operation come one after the other. A delivery
 * whose hand-out failed `"after"` comes with the next read, as after a lost connection.
 *
 * **Example** (A publish of which nobody knows whether it was stored)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Channel, Publisher } from "rotif"
 * import * as Testing from "rotif/testing"
 *
 * const Orders = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
 *
 * const test = Effect.gen(function*() {
 *   yield* Testing.failing({ operation: "append", when: "after" })
 *   const error = yield* Effect.flip(Publisher.publish(Orders, { id: "o-1" }))
 *   console.log(error._tag) // PublishUncertain
 * }).pipe(Effect.provide(Testing.layerMemory))
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const failing = (failing: Failing): Effect.Effect<Effect.Effect<void>, never, Faults> =>
  Faults.use((faults) => faults.failing(failing))

/**
 * Forgets all failures that have not come yet.
 *
 * @category operations
 * @since 0.1.0
 */
export const recover: Effect.Effect<void, never, Faults> = Faults.use((faults) => faults.recover)

interface Pending {
  readonly failing: Failing
  left: number
  readonly done: () => void
}

const makePlan = () => {
  const pending = new Map<Operation, Array<Pending>>()

  /** The failure of this call, if it is to fail. */
  const take = (operation: Operation): { readonly when: Failing["when"]; readonly error: BrokerError } | undefined => {
    const [first, ...rest] = pending.get(operation) ?? []
    if (first === undefined) return undefined
    if (--first.left <= 0) {
      pending.set(operation, rest)
      first.done()
    }
    const { reason, when } = first.failing
    return {
      when,
      error: new BrokerError({
        reason: reason ?? (when === "before" ? "Unavailable" : "Uncertain"),
        operation,
        message: when === "before"
          ? `${operation} was made to fail before it was done`
          : `${operation} was made to fail after it was done`
      })
    }
  }

  const service: Faults["Service"] = {
    failing: (failing) =>
      Effect.sync(() => {
        const { promise, resolve } = Promise.withResolvers<void>()
        const list = pending.get(failing.operation) ?? []
        pending.set(failing.operation, [...list, { failing, left: failing.times ?? 1, done: resolve }])
        return Effect.promise(() => promise)
      }),
    recover: Effect.sync(() => pending.clear())
  }
  return { take, service }
}

type Take = ReturnType<typeof makePlan>["take"]

/** Whatever is done twice without harm, or refused the second time. `kept`: what was done is reported to this, when it is not to the caller. */
const through = <A, E, R>(
  take: Take,
  operation: Operation,
  effect: Effect.Effect<A, E, R>,
  kept: (value: A) => void = () => {}
): Effect.Effect<A, E | BrokerError, R> =>
  Effect.suspend(() => {
    const failure = take(operation)
    if (failure === undefined) return effect
    return failure.when === "before" ? Effect.fail(failure.error) : Effect.flatMap(effect, (value) => {
      kept(value)
      return Effect.fail(failure.error)
    })
  })

const decorateMember = (take: Take, member: Member): Member => {
  /** Handed out in answers that were lost. */
  const lost: Array<Delivery> = []
  return {
    read: (count, blockMillis) =>
      Effect.suspend(() => {
        if (lost.length === 0) {
          return through(take, "read", member.read(count, blockMillis), (deliveries) => {
            lost.push(...deliveries)
          })
        }
        return Effect.succeed(lost.splice(0, count))
      }),
    awaitReady: (blockMillis) =>
      Effect.suspend(() => lost.length > 0 ? Effect.succeed(true) : member.awaitReady(blockMillis)),
    wake: member.wake,
    awaitLease: member.awaitLease,
    shared: member.shared,
    awaitRemoval: member.awaitRemoval,
    awaitJoin: member.awaitJoin,
    claim: (count) =>
      Effect.tapError(
        through(take, "claim", member.claim(count), ({ deliveries }) => {
          lost.push(...deliveries)
        }),
        // The reader has them: it is not to wait for others.
        () => member.wake
      ),
    ack: (deliveries) => through(take, "ack", member.ack(deliveries)),
    drop: (deliveries) => through(take, "ack", member.drop(deliveries)),
    redeliver: (items) => through(take, "redeliver", member.redeliver(items)),
    bury: (items) => through(take, "bury", member.bury(items)),
    renew: (deliveries) => through(take, "renew", member.renew(deliveries)),
    begin: (items) => through(take, "begin", member.begin(items)),
    tryAgain: (deliveries) => through(take, "tryAgain", member.tryAgain(deliveries)),
    acquit: (deliveries) => through(take, "acquit", member.acquit(deliveries)),
    commit: (commits) => through(take, "commit", member.commit(commits))
  }
}

const decorate = (broker: Broker["Service"], take: Take): Broker["Service"] => {
  const { broadcast, letters, own, recurring, scheduled, stats } = broker
  /** What became of messages of which nobody was told: whoever asks again with the same id finds out. */
  const untold = new Map<string, Appended>()
  const keyOf = ({ channel, id }: NewMessage) => `${channel}\n${id}`

  const append: Broker["Service"]["append"] = Effect.fnUntraced(function*(messages) {
    const failure = take("append")
    if (failure?.when === "before") {
      const { error } = failure
      return messages.map((): Appended => ({ _tag: error.reason === "Uncertain" ? "Uncertain" : "Failed", error }))
    }
    const known = messages.map((message) => untold.get(keyOf(message)))
    const fresh = messages.filter((_, i) => known[i] === undefined)
    const appended = fresh.length === 0 ? [] : yield* broker.append(fresh)
    let next = 0
    const outcomes = known.map((outcome) => outcome ?? appended[next++]!)
    for (const [i, message] of messages.entries()) {
      if (failure === undefined) untold.delete(keyOf(message))
      else untold.set(keyOf(message), outcomes[i]!)
    }
    return failure === undefined
      ? outcomes
      : messages.map((): Appended => ({ _tag: "Uncertain", error: failure.error }))
  })

  return Broker.of({
    ...broker,
    append,
    join: (membership) =>
      Effect.map(through(take, "join", broker.join(membership)), (member) => decorateMember(take, member)),
    promote: (...args) => through(take, "promote", broker.promote(...args)),
    relay: (shard, limit) => through(take, "relay", broker.relay(shard, limit)),
    trim: (shard) => through(take, "trim", broker.trim(shard)),
    removeGroup: (group, selector) => through(take, "removeGroup", broker.removeGroup(group, selector)),
    info: (selector) => through(take, "info", broker.info(selector)),
    ping: through(take, "ping", broker.ping),
    own: { ...own, read: (key) => through(take, "own.read", own.read(key)) },
    stats: { ...stats, read: (selector) => through(take, "stats.read", stats.read(selector)) },
    scheduled: {
      ...scheduled,
      cancel: (...args) => through(take, "scheduled.cancel", scheduled.cancel(...args)),
      reschedule: (...args) => through(take, "scheduled.reschedule", scheduled.reschedule(...args)),
      list: (...args) => through(take, "scheduled.list", scheduled.list(...args)),
      count: (...args) => through(take, "scheduled.count", scheduled.count(...args))
    },
    recurring: {
      ...recurring,
      nowMillis: (...args) => through(take, "recurring.nowMillis", recurring.nowMillis(...args)),
      upsert: (...args) => through(take, "recurring.upsert", recurring.upsert(...args)),
      remove: (...args) => through(take, "recurring.remove", recurring.remove(...args)),
      list: (...args) => through(take, "recurring.list", recurring.list(...args)),
      due: (...args) => through(take, "recurring.due", recurring.due(...args)),
      advance: (...args) => through(take, "recurring.advance", recurring.advance(...args))
    },
    letters: {
      ...letters,
      list: (...args) => through(take, "letters.list", letters.list(...args)),
      get: (...args) => through(take, "letters.get", letters.get(...args)),
      requeue: (...args) => through(take, "letters.requeue", letters.requeue(...args)),
      remove: (...args) => through(take, "letters.remove", letters.remove(...args)),
      counts: (...args) => through(take, "letters.counts", letters.counts(...args)),
      size: (...args) => through(take, "letters.size", letters.size(...args)),
      offer: (...args) => through(take, "letters.offer", letters.offer(...args)),
      conclude: (...args) => through(take, "letters.conclude", letters.conclude(...args)),
      forget: (...args) => through(take, "letters.forget", letters.forget(...args)),
      lead: (...args) => through(take, "letters.lead", letters.lead(...args))
    },
    broadcast: {
      publish: (...args) => through(take, "broadcast.publish", broadcast.publish(...args)),
      listen: (...args) => through(take, "broadcast.listen", broadcast.listen(...args))
    }
  })
}

/**
 * Puts the failures in front of any broker: the one on Redis, for example.
 *
 * **Example** (On a real Redis)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { Redis, RedisBroker, Rotif } from "rotif"
 * import * as Testing from "rotif/testing"
 *
 * const layer = Rotif.layerBroker().pipe(
 *   Layer.provideMerge(Testing.layerFaults()),
 *   Layer.provide(RedisBroker.layer()),
 *   Layer.provide(Redis.layer({ url: "redis://localhost:6379" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerFaults = (): Layer.Layer<Broker | Faults, never, Broker> =>
  Layer.effectContext(Effect.map(Broker, (broker) => {
    const { service, take } = makePlan()
    return Context.make(Broker, decorate(broker, take)).pipe(Context.add(Faults, service))
  }))

/**
 * `Rotif.layerMemoryWith`, with operations that can be made to fail.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryWith = (options?: Rotif.Options): Layer.Layer<Rotif.Services | Faults> =>
  Layer.merge(
    Rotif.layerBroker({ drainTimeout: 0, ...options }).pipe(
      Layer.provideMerge(layerFaults()),
      Layer.provide(MemoryBroker.layer())
    ),
    Deduplication.layerMemory()
  )

/**
 * `Rotif.layerMemory`, with operations that can be made to fail.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Rotif.Services | Faults> = Layer.suspend(() => layerMemoryWith())
