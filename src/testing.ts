/**
 * Tools for tests: a broker whose operations fail on demand, before or after they took effect, and the contract that every backend keeps.
 *
 * The module has a path of its own, `rotif/testing`, because programs do not need it.
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

/** Whether a member of the port can fail with a `BrokerError`. */
type Fails<Member> = Member extends (...args: never) => infer Result ? Fails<Result>
  : Member extends Effect.Effect<infer _, infer E, infer _> ? BrokerError extends E ? true : false
  : false

/** The members of a part of the port that can fail, those of its own parts behind a dot. */
type OperationsOf<Part> = {
  [Name in keyof Part & string]: Fails<Part[Name]> extends true ? Name
    : Part[Name] extends ((...args: never) => unknown) | Effect.Effect<unknown, unknown, unknown> ? never
    : Part[Name] extends object ? `${Name}.${OperationsOf<Part[Name]>}`
    : never
}[keyof Part & string]

/**
 * The operations that can be made to fail: everything in the port that fails with a `BrokerError`, by the names that `BrokerError.operation`
 * gives them.
 *
 * - A publish is `append`. A subscription gets messages by `join`, `read`, `claim`, `renew` and `begin`.
 * - It settles them by `ack`, `redeliver` (a retry or a release), `bury` (a dead letter) and `commit` (a transaction). To drop an expired
 *   message is an `ack`, too.
 * - Duties call `promote`, `relay`, `trim` and operations of `recurring`.
 *
 * @category models
 * @since 0.1.0
 */
export type Operation = "append" | Exclude<OperationsOf<Broker["Service"]> | OperationsOf<Member>, "drop">

/**
 * A failure of the next calls of an operation.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failing {
  readonly operation: Operation
  /** `"before"`: the operation does nothing. `"after"`: it takes effect, and only its reply is lost. */
  readonly when: "before" | "after"
  /** The number of calls that fail, from the next one on. Default 1; `Infinity`: all until `recover`. */
  readonly times?: number | undefined
  /**
   * The reason that the caller gets. Default: `"Unavailable"` before, `"Uncertain"` after. A publish fails with `Unavailable` and
   * `PublishUncertain` then, everything else with a `BrokerError`.
   */
  readonly reason?: BrokerErrorReason | undefined
}

/**
 * The failures to come. Its members are described at the functions `failing` and `recover`.
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
 * **Details**: the returned effect completes when the last of these calls has failed. Several failures of one operation happen one after the
 * other. If a read failed `"after"`, its deliveries come with the next read, as after a lost connection.
 *
 * **Example** (A publish with an uncertain outcome)
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
 * Cancels all failures that have not happened yet.
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

  /** Takes the failure of this call, if it has to fail. */
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

/** Runs an operation, or fails in its place. `kept` gets the result of a call that took effect and failed. */
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

/** The same part of the port, each of whose operations fails when it has to. Members that give no effect stay as they are. */
const failingPart = <Part extends object>(take: Take, part: Part, prefix = ""): Part =>
  new Proxy(part, {
    get: (_, name) => {
      const member: unknown = Reflect.get(part, name)
      const operation = `${prefix}${String(name)}` as Operation
      const wrapped = (value: unknown) =>
        Effect.isEffect(value) ? through(take, operation, value as Effect.Effect<unknown>) : value
      if (typeof member === "function") return (...args: ReadonlyArray<unknown>) => wrapped(member.apply(part, args))
      return typeof member !== "object" || member === null || Effect.isEffect(member)
        ? wrapped(member)
        : failingPart(take, member, `${operation}.`)
    }
  })

const decorateMember = (take: Take, member: Member): Member => {
  /** Deliveries of replies that were lost. */
  const lost: Array<Delivery> = []
  return {
    ...failingPart(take, member),
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
      Effect.suspend(() =>
        lost.length > 0 ? Effect.succeed(true) : through(take, "awaitReady", member.awaitReady(blockMillis))
      ),
    claim: (count) =>
      Effect.tapError(
        through(take, "claim", member.claim(count), ({ deliveries }) => {
          lost.push(...deliveries)
        }),
        // The next read gives them: it must not wait for others.
        () => member.wake
      ),
    drop: (deliveries) => through(take, "ack", member.drop(deliveries))
  }
}

const decorate = (broker: Broker["Service"], take: Take): Broker["Service"] => {
  /** The outcomes of publishes whose reply was lost: the next publish with the same id gets them. */
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
    ...failingPart(take, broker),
    append,
    join: (membership) =>
      Effect.map(through(take, "join", broker.join(membership)), (member) => decorateMember(take, member))
  })
}

/**
 * Puts the failures in front of any broker, such as the one on Redis.
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
 * Provides `Rotif.layerMemoryWith` with operations that can be made to fail.
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
 * Provides `Rotif.layerMemory` with operations that can be made to fail.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Rotif.Services | Faults> = Layer.suspend(() => layerMemoryWith())
