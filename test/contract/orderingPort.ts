/** Ordering keys at the port: hand-overs, leases that were lost, and messages that are gone. */
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Queue, Schema } from "effect"
import { Broker, Channel, Publisher } from "rotif"
import { type Backend, leftover, listen, nothingLeft, promises } from "./kit.ts"

const Text = Channel.make("ordering.port", { payload: Schema.String, orderingKey: (text) => text[0]! })
const Trimmed = Channel.make("ordering.trimmed", {
  payload: Schema.String,
  orderingKey: (text) => text[0]!,
  limits: { maxAge: 1 }
})

const leaseMillis = 400
const group = "g"

const join = Effect.fnUntraced(function*(
  consumer: string,
  options?: {
    readonly isTaking?: boolean
    readonly ordering?: Broker.Ordering | undefined
    readonly source?: Channel.Any
  }
) {
  const broker = yield* Broker.Broker
  const selector = Channel.selector(options?.source ?? Text)
  return yield* broker.join({
    shard: broker.shardsOf(selector)[0]!,
    group,
    consumer,
    selector,
    start: { _tag: "Earliest" },
    leaseMillis,
    doneMillis: 60_000,
    ordering: options !== undefined && "ordering" in options ? options.ordering : "block",
    isTaking: () => options?.isTaking === true
  })
})

const texts = (deliveries: ReadonlyArray<Broker.Delivery>): Array<string> =>
  deliveries.map(({ payload }) => JSON.parse(payload))

/** Reads until there is something. */
const readSome = (member: Broker.Member, count = 10) =>
  Effect.repeat(member.read(count, 1_000), { until: (deliveries) => deliveries.length > 0 })

/** Everything that can be read now. */
const readNow = (member: Broker.Member) => Effect.map(member.read(10, 0), texts)

/** Claims until there is something. */
const claimSome = Effect.fnUntraced(function*(member: Broker.Member) {
  while (true) {
    const { deliveries, nextInMillis } = yield* member.claim(10)
    if (deliveries.length > 0) return deliveries
    yield* nextInMillis === undefined ? member.awaitLease : Effect.sleep(nextInMillis)
  }
})

const term: Broker.Failure = { reason: "term", message: "" }

export const orderingPortSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Member: ordering keys", () => {
    const settlements: ReadonlyArray<
      readonly [
        string,
        (member: Broker.Member, one: Broker.Delivery) => Effect.Effect<unknown, Broker.BrokerError>
      ]
    > = [
      ["ack", (member, one) => member.ack([one])],
      ["drop", (member, one) => member.drop([one])],
      ["bury", (member, one) => member.bury([{ delivery: one, failure: term }])],
      [
        "ack of a key that was begun",
        (member, one) => Effect.andThen(member.begin([{ delivery: one, key: one.id }]), member.ack([one]))
      ],
      [
        "commit",
        (member, one) =>
          Effect.andThen(
            member.begin([{ delivery: one, key: one.id }]),
            Effect.map(member.commit([{ delivery: one, messages: [], writes: [] }]), (outcomes) =>
              assert.deepStrictEqual(outcomes, ["done"]))
          )
      ]
    ]
    for (const [what, settle] of settlements) {
      test(
        `${what} hands the next message over to a member that takes it`,
        Effect.gen(function*() {
          const member = yield* join("taking", { isTaking: true })
          yield* Publisher.publishAll(Text, ["a0", "a1", "b0", "a2"])
          const [a0, b0] = yield* soon(readSome(member))
          assert.deepStrictEqual(texts([a0!, b0!]), ["a0", "b0"])
          assert.deepStrictEqual(member.takeNext(), [])
          yield* settle(member, b0!)
          assert.deepStrictEqual(member.takeNext(), [])
          yield* settle(member, a0!)
          const [a1, ...none] = member.takeNext()
          assert.deepStrictEqual(none, [])
          assert.deepInclude({ ...a1, text: texts([a1!])[0] }, {
            text: "a1",
            orderingKey: "a",
            attempt: 1,
            deliveryCount: 1,
            crashes: 0,
            isSuspect: false
          })
          // It is handed out once.
          assert.deepStrictEqual(member.takeNext(), [])
          assert.deepStrictEqual(yield* readNow(member), [])
          assert.deepStrictEqual(yield* member.renew([a1!]), [])
          yield* member.ack([a1!])
          const [a2] = member.takeNext()
          assert.deepStrictEqual(yield* member.ack([a2!]), [])
          assert.deepStrictEqual(member.takeNext(), [])
          assert.deepStrictEqual({ ...yield* leftover(Text) }, nothingLeft)
        })
      )

      test(
        `${what} makes the next message ready for others where its member takes none`,
        Effect.gen(function*() {
          const member = yield* join("resting")
          const other = yield* join("other")
          yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
          const [a0] = yield* soon(readSome(member))
          assert.deepStrictEqual(yield* readNow(other), [])
          yield* settle(member, a0!)
          assert.deepStrictEqual(member.takeNext(), [])
          const [a1] = yield* soon(readSome(other))
          assert.deepInclude({ ...a1, text: texts([a1!])[0] }, {
            text: "a1",
            orderingKey: "a",
            attempt: 1,
            deliveryCount: 1,
            isSuspect: false
          })
          yield* other.ack([a1!])
          const [a2] = yield* soon(readSome(other))
          assert.deepStrictEqual(texts([a2!]), ["a2"])
          yield* other.ack([a2!])
          assert.deepStrictEqual({ ...yield* leftover(Text) }, nothingLeft)
        })
      )
    }

    test(
      "several keys in one settlement each hand over their next message",
      Effect.gen(function*() {
        const member = yield* join("taking", { isTaking: true })
        const keys = ["a", "b", "c", "d"]
        yield* Publisher.publishAll(Text, ["0", "1", "2"].flatMap((n) => keys.map((key) => `${key}${n}`)))
        let some = yield* soon(readSome(member, 100))
        // One read may not be all.
        while ((yield* leftover(Text)).unread > 0) assert.deepStrictEqual(yield* readNow(member), [])
        for (const n of ["0", "1", "2"]) {
          assert.deepStrictEqual(texts(some).toSorted(), keys.map((key) => `${key}${n}`))
          yield* member.ack(some)
          some = member.takeNext()
        }
        assert.deepStrictEqual(some, [])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "redeliver keeps the key closed, at once and after a delay, and its message comes first",
      Effect.gen(function*() {
        const member = yield* join("first", { isTaking: true })
        const other = yield* join("other", { isTaking: true })
        yield* Publisher.publishAll(Text, ["a0", "a1"])
        const [first] = yield* soon(readSome(member))
        yield* member.redeliver([{ delivery: first!, delayMillis: 50, attempt: 2 }])
        assert.deepStrictEqual(member.takeNext(), [])
        assert.deepStrictEqual(yield* readNow(other), [])
        const [second] = yield* soon(readSome(other))
        assert.deepInclude({ ...second, text: texts([second!])[0] }, { text: "a0", attempt: 2, deliveryCount: 2 })
        yield* other.redeliver([{ delivery: second!, delayMillis: 0, attempt: 2 }])
        assert.deepStrictEqual(other.takeNext(), [])
        const [third] = yield* soon(readSome(member))
        assert.deepInclude({ ...third, text: texts([third!])[0] }, { text: "a0", attempt: 2, deliveryCount: 3 })
        yield* member.ack([third!])
        assert.deepStrictEqual(texts(member.takeNext()), ["a1"])
      })
    )

    test(
      "a lost member's message keeps its key closed until the one that claimed it has settled it; late settlements free nothing",
      Effect.gen(function*() {
        const lost = yield* join("lost", { isTaking: true })
        const owner = yield* join("owner", { isTaking: true })
        yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
        const [old] = yield* soon(readSome(lost))
        const [current, ...rest] = yield* soon(claimSome(owner))
        // What waits is nobody's, and is not claimed.
        assert.deepStrictEqual(rest, [])
        assert.deepStrictEqual(texts([current!]), ["a0"])
        const late = [
          yield* lost.ack([old!]),
          yield* lost.drop([old!]),
          yield* lost.redeliver([{ delivery: old!, delayMillis: 0, attempt: 2 }]),
          yield* lost.bury([{ delivery: old!, failure: term }])
        ]
        assert.deepStrictEqual(late, [[old!], [old!], [old!], [old!]])
        assert.deepStrictEqual(lost.takeNext(), [])
        assert.deepStrictEqual(yield* readNow(lost), [])
        assert.deepStrictEqual(yield* leftover(Text), { ...nothingLeft, pending: 3 })
        assert.deepStrictEqual(yield* owner.ack([current!]), [])
        assert.deepStrictEqual(texts(owner.takeNext()), ["a1"])
      })
    )

    test(
      "a message that was handed over to a member that is lost is claimed, and its key goes on",
      Effect.gen(function*() {
        const lost = yield* join("lost", { isTaking: true })
        yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
        const [a0] = yield* soon(readSome(lost))
        yield* lost.ack([a0!])
        const [a1] = lost.takeNext()
        const owner = yield* join("owner", { isTaking: true })
        const [current] = yield* soon(claimSome(owner))
        assert.deepInclude({ ...current, text: texts([current!])[0] }, {
          text: "a1",
          deliveryCount: 2,
          isSuspect: true
        })
        assert.deepStrictEqual(yield* lost.ack([a1!]), [a1!])
        yield* owner.ack([current!])
        assert.deepStrictEqual(texts(owner.takeNext()), ["a2"])
      })
    )

    test(
      "a message that waits is kept, also when nothing before it is in the log any more",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const member = yield* join("taking", { isTaking: true })
        yield* Publisher.publishAll(Text, ["a0", "a1", "b0"])
        const [a0, b0] = yield* soon(readSome(member))
        // It waits for its time, outside of the log.
        yield* member.redeliver([{ delivery: a0!, delayMillis: 200, attempt: 2 }])
        yield* member.ack([b0!])
        yield* backend.advance(20)
        yield* broker.trim(broker.shardsOf(Channel.selector(Text))[0]!)
        const [again] = yield* soon(readSome(member))
        assert.deepStrictEqual(texts([again!]), ["a0"])
        yield* member.ack([again!])
        const [a1] = member.takeNext()
        assert.deepStrictEqual(texts([a1!]), ["a1"])
        yield* member.ack([a1!])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      }),
      { trimInterval: "1 day", graceMillis: 0 }
    )

    test(
      "Subscription: what a settlement has handed over goes on, though its reply was lost",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        let lost = 0
        const { seen, subscription } = yield* Effect.provideService(
          listen(Text, { group, concurrency: 4, lease: "10 minutes" }),
          Broker.Broker,
          Broker.Broker.of({
            ...broker,
            join: (membership) =>
              Effect.map(broker.join(membership), (member): Broker.Member => ({
                ...member,
                ack: (deliveries) =>
                  Effect.flatMap(member.ack(deliveries), (refused) =>
                    lost++ > 0 ? Effect.succeed(refused) : Effect.fail(
                      new Broker.BrokerError({ reason: "Uncertain", operation: "ack", message: "the reply was lost" })
                    ))
              }))
          })
        )
        const since = yield* Clock.currentTimeMillis
        yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
        const messages = yield* soon(Queue.takeN(seen, 3))
        assert.deepStrictEqual(messages.map(({ payload }) => payload), ["a0", "a1", "a2"])
        yield* soon(subscription.drain)
        assert.isBelow((yield* Clock.currentTimeMillis) - since, 60_000)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    /** Takes over, takes what was handed over, and reads, until there is something; returns it, and how many messages were gone. */
    const findSome = Effect.fnUntraced(function*(member: Broker.Member) {
      const found: Array<Broker.Delivery> = []
      let gone = 0
      while (found.length === 0) {
        const { deliveries, vanished } = yield* member.claim(10)
        gone += vanished
        found.push(...deliveries, ...member.takeNext(), ...yield* member.read(10, 0))
        yield* backend.clock === "live" ? Effect.sleep(20) : Effect.yieldNow
      }
      return { found, gone }
    })

    /** Removes all messages of `Trimmed` that are there. */
    const trimAll = Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const selector = Channel.selector(Trimmed)
      yield* backend.advance(20)
      yield* broker.trim(broker.shardsOf(selector)[0]!)
      assert.strictEqual((yield* broker.info(selector)).channels[0]!.length, 0)
    })

    test(
      "a message that a limit removes while it waits is left out: the next one goes on",
      Effect.gen(function*() {
        const member = yield* join("taking", { isTaking: true, source: Trimmed })
        yield* Publisher.publishAll(Trimmed, ["a0", "a1", "b0"])
        const [a0, b0] = yield* soon(readSome(member))
        assert.deepStrictEqual(texts([a0!, b0!]), ["a0", "b0"])
        yield* trimAll
        yield* Publisher.publish(Trimmed, "a2")
        assert.deepStrictEqual(yield* readNow(member), [])
        // The removed head is settled as any other, and frees its key.
        assert.deepStrictEqual(yield* member.ack([a0!, b0!]), [])
        assert.deepStrictEqual(texts(member.takeNext()), ["a2"])
      }),
      { trimInterval: "1 day", graceMillis: 0 }
    )

    test(
      "a message that a limit removes while its lost member holds it frees its key when another one looks for it",
      Effect.gen(function*() {
        const lost = yield* join("lost", { source: Trimmed })
        const owner = yield* join("owner", { isTaking: true, source: Trimmed })
        yield* Publisher.publishAll(Trimmed, ["a0", "a1"])
        yield* soon(readSome(lost))
        yield* trimAll
        yield* Publisher.publish(Trimmed, "a2")
        const { found, gone } = yield* soon(findSome(owner))
        assert.deepStrictEqual(texts(found), ["a2"])
        assert.isAtLeast(gone, 1)
        yield* owner.ack(found)
        assert.deepInclude(yield* leftover(Trimmed), { ready: 0, pending: 0 })
      }),
      { trimInterval: "1 day", graceMillis: 0 }
    )

    test(
      "a head that a limit removed frees its key when its member is lost, also after a renewal",
      Effect.gen(function*() {
        const lost = yield* join("lost", { source: Trimmed })
        const owner = yield* join("owner", { isTaking: true, source: Trimmed })
        yield* Publisher.publishAll(Trimmed, ["a0", "a1"])
        const held = yield* soon(readSome(lost))
        assert.deepStrictEqual(texts(held), ["a0"])
        yield* trimAll
        assert.deepStrictEqual(yield* lost.renew(held), [])
        yield* Publisher.publish(Trimmed, "a2")
        const { found } = yield* soon(findSome(owner))
        assert.deepStrictEqual(texts(found), ["a2"])
        // It only waited: no consumer was lost with it.
        assert.deepInclude({ ...found[0] }, { deliveryCount: 1, isSuspect: false })
        yield* owner.ack(found)
        assert.deepInclude(yield* leftover(Trimmed), { ready: 0, pending: 0 })
      }),
      { trimInterval: "1 day", graceMillis: 0 }
    )

    test(
      "a head that a limit removed frees its key, though the member that has found it leaves before that can be done",
      Effect.gen(function*() {
        const owner = yield* join("owner", { isTaking: true, source: Trimmed })
        yield* Publisher.publishAll(Trimmed, ["a0", "b0", "a1"])
        yield* Effect.scoped(Effect.gen(function*() {
          const lost = yield* join("lost", { source: Trimmed })
          const other = yield* join("other", { source: Trimmed })
          const finder = yield* join("finder", { source: Trimmed })
          assert.deepStrictEqual(texts(yield* soon(readSome(lost, 1))), ["a0"])
          yield* backend.advance(leaseMillis / 2)
          const b0 = yield* soon(readSome(other, 1))
          yield* trimAll
          let gone = 0
          yield* soon(Effect.gen(function*() {
            while (gone === 0) {
              gone += (yield* finder.claim(10)).vanished
              yield* backend.clock === "live" ? Effect.sleep(20) : Effect.yieldNow
            }
          }))
          yield* other.ack(b0)
        }))
        yield* Publisher.publish(Trimmed, "a2")
        const { found } = yield* soon(findSome(owner))
        assert.deepStrictEqual(texts(found), ["a2"])
        yield* owner.ack(found)
        assert.deepInclude(yield* leftover(Trimmed), { ready: 0, pending: 0 })
      }),
      { trimInterval: "1 day", graceMillis: 0 }
    )

    test(
      "a member that says nothing of an order goes by what its group has decided",
      Effect.gen(function*() {
        const silent = yield* join("silent", { ordering: undefined })
        yield* Publisher.publishAll(Text, ["a0", "a1"])
        // Nothing is decided yet.
        assert.deepStrictEqual(texts(yield* soon(readSome(silent))), ["a0", "a1"])
        const { seen: _, subscription } = yield* listen(Text, { group, concurrency: 1 })
        assert.strictEqual(subscription.group, group)
        const conflict = yield* Effect.flip(join("none", { ordering: "none" }))
        assert.deepInclude(conflict, { _tag: "OrderingConflict", group, recorded: "block", asked: "none" })
      })
    )
  })
}
