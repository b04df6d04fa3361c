/**
 * The contract of the port: leases, fences, waiting reads, redelivery, removal. It holds for every backend.
 */
import { Clock, type Duration, Effect, Fiber, Scope } from "effect"
import * as assert from "node:assert/strict"
import * as Broker from "../Broker.ts"

/**
 * One promise of the port.
 *
 * @category models
 * @since 0.1.0
 */
export interface PortCase {
  /** The operation it is about, such as `"Broker.join: leases"`. */
  readonly about: string
  /** The promise, in the present tense. */
  readonly promises: string
  /** Checks it on an empty broker; dies with an `AssertionError` when the promise is broken. */
  readonly check: Effect.Effect<void, unknown, Broker.Broker | Scope.Scope>
}

/**
 * How time passes on the backend that is checked.
 *
 * @category models
 * @since 0.1.0
 */
export interface PortTime {
  /** Lets time pass: sleeps, or moves the `TestClock`. */
  readonly advance: (span: Duration.Input) => Effect.Effect<void>
  /** Waits for an effect that takes its time, while the clock goes on. */
  readonly soon: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

const leaseMillis = 400

const texts: Broker.Selector = { _tag: "Channels", names: ["texts"] }

const join = Effect.fnUntraced(function*(consumer: string, options?: Partial<Broker.Membership>) {
  const broker = yield* Broker.Broker
  const selector = options?.selector ?? texts
  const shard = broker.shardsOf(selector)[0]!
  return yield* broker.join({
    shard,
    group: "g",
    consumer,
    selector,
    start: { _tag: "Earliest" },
    leaseMillis,
    ...options
  })
})

const append = (payloads: ReadonlyArray<string>, channel = "texts") =>
  Broker.Broker.use((broker) => broker.append(payloads.map((payload) => ({ id: payload, channel, payload }))))

const counts = Broker.Broker.use((broker) => broker.info(texts)).pipe(
  Effect.map(({ channels, waiting }) => {
    const { lag, pending, ready } = channels[0]!.groups[0]!
    return { lag, pending, ready, waiting }
  })
)

const payloads = (deliveries: ReadonlyArray<Broker.Delivery>) => deliveries.map(({ payload }) => payload)

/** Reads until there is something. */
const readSome = (member: Broker.Member, count: number) =>
  Effect.repeat(member.read(count, 5_000), { until: (deliveries) => deliveries.length > 0 })

const letters = Broker.Broker.use((broker) =>
  Effect.map(
    Effect.forEach(Array.from({ length: broker.shards }, (_, shard) => shard), (shard) =>
      broker.letters.list(shard, { order: "oldest", limit: 1_000 })),
    (found) =>
      found.flat()
  )
)

const includes = (delivery: Broker.Delivery | undefined, wanted: Partial<Broker.Delivery>): void => {
  assert.ok(delivery !== undefined)
  for (const [name, value] of Object.entries(wanted)) {
    assert.deepStrictEqual(delivery[name as keyof Broker.Delivery], value, name)
  }
}

/**
 * The promises of the port, for the tests of a backend: each is to be checked on an empty broker of its own.
 *
 * **Example** (A backend of your own, with vitest)
 *
 * ```ts
 * for (const { about, check, promises } of Testing.portContract({ advance: Effect.sleep, soon: Effect.timeout("10 seconds") })) {
 *   it.live(`${about}: ${promises}`, () => check.pipe(Effect.scoped, Effect.provide(MyBroker.layer())))
 * }
 * ```
 *
 * @category testing
 * @since 0.1.0
 */
export const portContract = ({ advance, soon }: PortTime): ReadonlyArray<PortCase> => {
  const cases: Array<PortCase> = []
  let about = ""
  const promises = (
    promise: string,
    check: () => Generator<Effect.Effect<unknown, unknown, Broker.Broker | Scope.Scope>, void, never>
  ) => void cases.push({ about, promises: promise, check: Effect.gen(check) })

  /** A member of these messages, and its deliveries of them. */
  const holding = Effect.fnUntraced(function*(some: ReadonlyArray<string>, options?: Partial<Broker.Membership>) {
    const member = yield* join("first", options)
    yield* append(some)
    return { member, deliveries: yield* soon(readSome(member, 10)) }
  })

  /** Waits for an effect, and measures how long it takes. */
  const timed = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
    const since = yield* Clock.currentTimeMillis
    const value = yield* soon(effect)
    return { value, millis: (yield* Clock.currentTimeMillis) - since }
  })

  about = "Broker.join: leases"
  promises(
    "gives an expired hand-out to the member that claims it, as a suspect, and refuses its first owner",
    function*() {
      const { deliveries: [mine], member: first } = yield* holding(["x"])
      const second = yield* join("second")
      const early = yield* second.claim(10)
      assert.deepStrictEqual(early.deliveries, [])
      assert.ok(early.nextInMillis! <= leaseMillis)
      yield* advance(leaseMillis + 50)
      const { deliveries: [theirs] } = yield* second.claim(10)
      includes(mine, { payload: "x", attempt: 1, deliveryCount: 1, crashes: 0, isSuspect: false })
      includes(theirs, { payload: "x", attempt: 1, deliveryCount: 2, crashes: 0, isSuspect: true })

      assert.deepStrictEqual(yield* first.renew([mine!]), [mine!])
      assert.deepStrictEqual(yield* first.redeliver([{ delivery: mine!, delayMillis: 0, attempt: 2 }]), [mine!])
      assert.deepStrictEqual(
        yield* first.bury([{ delivery: mine!, failure: { reason: "term", message: "late" } }]),
        [mine!]
      )
      assert.deepStrictEqual(yield* first.ack([mine!]), [mine!])
      assert.deepStrictEqual(yield* counts, { lag: 0, pending: 1, ready: 0, waiting: 0 })
      assert.deepStrictEqual(yield* second.ack([theirs!]), [])
      assert.deepStrictEqual(yield* counts, { lag: 0, pending: 0, ready: 0, waiting: 0 })
      assert.deepStrictEqual(yield* letters, [])
    }
  )

  promises("leaves a hand-out to its owner while nobody has claimed it", function*() {
    const { deliveries, member } = yield* holding(["x"])
    yield* advance(leaseMillis + 50)
    assert.deepStrictEqual(yield* member.ack(deliveries), [])
    assert.deepStrictEqual(yield* counts, { lag: 0, pending: 0, ready: 0, waiting: 0 })
  })

  promises("starts a lease anew when it is renewed", function*() {
    const second = yield* join("second", { leaseMillis: 1_500 })
    const { deliveries: [kept], member: first } = yield* holding(["kept", "lost"], { leaseMillis: 1_500 })
    yield* advance(1_000)
    assert.deepStrictEqual(yield* first.renew([kept!]), [])
    yield* advance(700)
    const { deliveries } = yield* second.claim(10)
    assert.deepStrictEqual(payloads(deliveries), ["lost"])
  })

  promises("claims no more than it is asked to, and says that there is more", function*() {
    const second = yield* join("second")
    yield* holding(["a", "b", "c"])
    yield* advance(leaseMillis + 50)
    const some = yield* second.claim(2)
    const rest = yield* second.claim(2)
    assert.deepStrictEqual([payloads(some.deliveries), some.nextInMillis], [["a", "b"], 1])
    assert.deepStrictEqual(payloads(rest.deliveries), ["c"])
  })

  promises("keeps what a member held when it left, until the lease expires", function*() {
    const scope = yield* Scope.make()
    yield* Scope.provide(holding(["x"]), scope)
    yield* Scope.close(scope, yield* Effect.exit(Effect.void))
    const second = yield* join("second")
    assert.deepStrictEqual((yield* second.claim(10)).deliveries, [])
    yield* advance(leaseMillis + 50)
    assert.deepStrictEqual(payloads((yield* second.claim(10)).deliveries), ["x"])
  })

  about = "Broker.join: read"
  promises("hands out redeliveries before new messages", function*() {
    const { deliveries: [old], member } = yield* holding(["old"])
    yield* append(["new"])
    yield* member.redeliver([{ delivery: old!, delayMillis: 0, attempt: 1 }])
    // A member that runs hears of its first redelivery a moment later on Redis; a new one knows.
    const fresh = yield* join("second")
    assert.deepStrictEqual(payloads(yield* soon(readSome(fresh, 10))).slice(0, 1), ["old"])
  })

  promises("waits until it is woken", function*() {
    const member = yield* join("first")
    const reading = yield* Effect.forkChild(member.read(10, 60_000), { startImmediately: true })
    const { millis, value } = yield* timed(Effect.andThen(member.wake, Fiber.join(reading)))
    assert.deepStrictEqual(value, [])
    assert.ok(millis < 5_000)
  })

  promises("waits no longer than it is told to", function*() {
    const member = yield* join("first")
    const { millis, value } = yield* timed(member.read(10, 100))
    assert.deepStrictEqual(value, [])
    assert.ok(millis >= 99)
  })

  promises("goes on waiting when a channel appears and has nothing for it", function*() {
    const broker = yield* Broker.Broker
    const selector: Broker.Selector = { _tag: "Channels", names: ["texts.empty"] }
    const [shard] = broker.shardsOf(selector)
    const member = yield* join("first", { shard: shard!, selector: { _tag: "Pattern", pattern: "texts.*" } })
    const since = yield* Clock.currentTimeMillis
    const reading = yield* Effect.forkChild(member.read(10, 400), { startImmediately: true })
    yield* join("second", { shard: shard!, selector, group: "other" })
    assert.deepStrictEqual(yield* soon(Fiber.join(reading)), [])
    assert.ok((yield* Clock.currentTimeMillis) - since >= 399)
  })

  promises("waits for a message, also on a channel that is not there yet", function*() {
    const broker = yield* Broker.Broker
    const [shard] = broker.shardsOf({ _tag: "Channels", names: ["texts.new"] })
    const member = yield* join("first", { shard: shard!, selector: { _tag: "Pattern", pattern: "texts.*" } })
    const first = yield* Effect.forkChild(readSome(member, 10), { startImmediately: true })
    yield* append(["a"], "texts.new")
    const [a] = yield* soon(Fiber.join(first))
    includes(a, { channel: "texts.new", payload: "a" })
    const second = yield* Effect.forkChild(readSome(member, 10), { startImmediately: true })
    yield* append(["b"], "texts.new")
    assert.deepStrictEqual(payloads(yield* soon(Fiber.join(second))), ["b"])
  })

  about = "Broker.join: redeliver with a delay"
  promises("wakes whoever waits for an earlier time, and brings the message back to the same group only", function*() {
    const broker = yield* Broker.Broker
    const [shard] = broker.shardsOf(texts)
    const other = yield* join("other", { group: "other" })
    const { deliveries: [x], member } = yield* holding(["x"])
    yield* other.ack(yield* soon(readSome(other, 10)))
    const earlier = yield* Effect.forkChild(broker.awaitEarlier(shard!), { startImmediately: true })
    const since = yield* Clock.currentTimeMillis
    yield* member.redeliver([{ delivery: x!, delayMillis: 150, attempt: 2 }])
    yield* soon(Fiber.join(earlier))
    yield* advance(150)
    yield* broker.promote(shard!, 10)
    const [again] = yield* soon(readSome(member, 10))
    assert.ok((yield* Clock.currentTimeMillis) - since >= 149)
    includes(again, { payload: "x", attempt: 2, deliveryCount: 2, crashes: 0 })
    assert.deepStrictEqual(yield* soon(other.read(10, 20)), [])
  })

  about = "Broker.removeGroup"
  promises("forgets what the group had; a member that goes on is told, and does not make it again", function*() {
    const broker = yield* Broker.Broker
    const { deliveries: [x], member } = yield* holding(["x"])
    yield* broker.removeGroup("g", texts)
    assert.deepStrictEqual((yield* broker.info(texts)).channels.flatMap(({ groups }) => groups), [])
    assert.deepStrictEqual(yield* member.redeliver([{ delivery: x!, delayMillis: 0, attempt: 2 }]), [x!])
    const told = [
      yield* soon(Effect.flip(Effect.repeat(member.read(10, 50), { until: () => false }))),
      yield* soon(Effect.flip(member.claim(10)))
    ]
    assert.deepStrictEqual(told.map(({ _tag }) => _tag), ["GroupRemoved", "GroupRemoved"])
    assert.deepStrictEqual((yield* broker.info(texts)).channels.flatMap(({ groups }) => groups), [])
  })

  about = "Broker.letters"
  promises("gives pages in order", function*() {
    const broker = yield* Broker.Broker
    const [shard] = broker.shardsOf(texts)
    const { deliveries, member } = yield* holding(["a", "b", "c"])
    yield* member.bury(
      deliveries.map((delivery) => ({ delivery, failure: { reason: "term", message: delivery.payload } }))
    )
    const first = yield* broker.letters.list(shard!, { order: "oldest", limit: 2 })
    const rest = yield* broker.letters.list(shard!, { order: "oldest", limit: 2, after: first[1]!.letterId })
    assert.deepStrictEqual([...first, ...rest].map(({ failure, payload }) => [payload, failure.message]), [
      ["a", "a"],
      ["b", "b"],
      ["c", "c"]
    ])
    assert.strictEqual(rest.length, 1)
  })

  return cases
}
