/** Statistics: the totals of every group add up, however its messages end. */
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Fiber, Queue, Schema, Stream } from "effect"
import { Broker, Channel, DeadLetters, Publisher, Stats, Subscription, Transaction } from "rotif"
import { type Backend, listen, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("others", { payload: Schema.String })
const Both = Channel.union([Text, Other])
const Latest = Channel.make("latest", { payload: Schema.String, limits: { maxLength: 2 } })
const AnyNews = Channel.pattern("news.*", { payload: Schema.String })
const Sport = Channel.make("news.sport", { payload: Schema.String })

const sum = (channels: ReadonlyArray<Stats.ChannelStats>, group: string) => {
  const found = Stats.ofGroup(channels, group)
  if (found === undefined) return undefined
  const { dead, due, lag, lost, pending, published, ready, removed, skipped, totals: { acked } } = found
  assert.strictEqual(
    published,
    skipped! + acked + pending + ready + due + dead + removed + lag! + lost!,
    JSON.stringify(found)
  )
  return { published, skipped, acked, pending, ready, due, dead, removed, lag, lost }
}

const zero = { skipped: 0, acked: 0, pending: 0, ready: 0, due: 0, dead: 0, removed: 0, lag: 0, lost: 0 }

/** Reads the totals of a group, and asserts that they add up. */
const account = (source: Channel.Source, group: string) =>
  Effect.map(Stats.channels(source), (channels) => sum(channels, group))

/** Reads until it has `count` messages: a wake-up may end a read with none. */
const readAll = Effect.fnUntraced(function*(member: Broker.Member, count: number) {
  const out: Array<Broker.Delivery> = []
  while (out.length < count) out.push(...yield* member.read(count - out.length, 1_000))
  return out
})

const totals = (source: Channel.Source, group: string) =>
  Effect.map(Stats.channels(source), (channels) => Stats.ofGroup(channels, group)!.totals)

const join = Effect.fnUntraced(function*(source: Channel.Source, consumer: string, leaseMillis = 60_000) {
  const broker = yield* Broker.Broker
  const selector = Channel.selector(source)
  return yield* broker.join({
    shard: broker.shardsOf(selector)[0]!,
    group: "g",
    consumer,
    selector,
    start: { _tag: "Earliest" },
    leaseMillis
  })
})

export const statsSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Stats.channels", () => {
    test(
      "follows a message from its publish to its end",
      Effect.gen(function*() {
        const member = yield* join(Text, "me")
        const is = Effect.fnUntraced(function*(expected: object) {
          assert.deepStrictEqual(yield* account(Text, "g"), { published: 5, ...zero, ...expected })
        })
        yield* Publisher.publishAll(Text, ["1", "2", "3", "4", "5"])
        yield* is({ lag: 5 })
        const [one, two, three, four, five] = yield* readAll(member, 5)
        yield* is({ pending: 5 })
        yield* member.ack([one!])
        yield* member.redeliver([{ delivery: two!, delayMillis: 0, attempt: 1 }])
        yield* member.redeliver([{ delivery: three!, delayMillis: 3_600_000, attempt: 2 }])
        yield* member.bury([four!, five!].map((delivery) => ({ delivery, failure: { reason: "term", message: "" } })))
        yield* is({ acked: 1, ready: 1, due: 1, dead: 2 })
        const { letters: [first, second] } = yield* DeadLetters.list({}, { order: "oldest" })
        assert.isTrue(yield* DeadLetters.remove(first!.letterId))
        assert.isTrue(yield* DeadLetters.requeue(second!.letterId))
        yield* is({ acked: 1, ready: 2, due: 1, removed: 1 })
        const again = yield* readAll(member, 2)
        yield* is({ acked: 1, pending: 2, due: 1, removed: 1 })
        yield* member.ack(again)
        // A second call changes nothing.
        yield* member.ack([one!, ...again])
        yield* is({ acked: 3, due: 1, removed: 1 })
        assert.deepStrictEqual(yield* totals(Text, "g"), {
          acked: 3,
          duplicates: 0,
          failed: 3,
          retried: 1,
          dead: 2,
          crashed: 0
        })
      })
    )

    test(
      "counts the acknowledgements of many at once, of few, and of another group apart",
      Effect.gen(function*() {
        // It exists from the beginning, and returns for the messages kept for it.
        yield* Effect.scoped(listen(Text, { group: "slow" }))
        yield* Publisher.publishAll(Text, Array.from({ length: 120 }, String))
        yield* Publisher.publishAll(Other, ["a", "b", "c"])
        const { seen, subscription } = yield* listen(Both, { group: "g", concurrency: 100 })
        yield* soon(Queue.takeN(seen, 123))
        yield* soon(subscription.drain)
        const slow = yield* listen(Text, { group: "slow" })
        yield* soon(Queue.takeN(slow.seen, 120))
        yield* soon(slow.subscription.drain)
        assert.deepStrictEqual(yield* account(Both, "g"), { published: 123, ...zero, acked: 123 })
        assert.deepStrictEqual(yield* account(Other, "g"), { published: 3, ...zero, acked: 3 })
        assert.deepStrictEqual(yield* account(Both, "slow"), { published: 120, ...zero, acked: 120 })
      })
    )

    test(
      "leaves out messages published before a group that begins with the next one",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["before", "before", "before"])
        const { seen, subscription } = yield* listen(Text, { group: "g", startFrom: "latest" })
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* soon(Queue.takeN(seen, 2))
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 2))
        yield* Publisher.publish(Text, "c")
        yield* soon(Queue.take(seen))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* account(Text, "g"), { published: 6, ...zero, skipped: 3, acked: 3 })
      })
    )

    test(
      "leaves out messages published up to a position",
      Effect.gen(function*() {
        const receipts = yield* Publisher.publishAll(Text, ["before", "before", "a", "b"])
        const { seen, subscription } = yield* listen(Text, {
          group: "g",
          startFrom: { position: receipts[1]!.position! }
        })
        assert.strictEqual((yield* account(Text, "g"))?.skipped, 2)
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* account(Text, "g"), { published: 4, ...zero, skipped: 2, acked: 2 })
      })
    )

    test(
      "begins a new account for a group that was removed; the dead letters it still has are no messages of that",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b", "c", "d"])
        const mortal = { group: "g", maxRetries: 0 }
        const first = yield* listen(Text, {
          ...mortal,
          handler: ({ payload }) => payload < "c" ? Effect.fail("no") : Effect.void
        })
        yield* soon(Queue.takeN(first.seen, 4))
        yield* until(backend, Effect.map(first.subscription.stats, ({ dead, processed }) => dead + processed === 4))
        assert.deepStrictEqual(yield* account(Text, "g"), { published: 4, ...zero, acked: 2, dead: 2 })
        yield* soon(first.subscription.unsubscribe({ removeGroup: true }))
        assert.isUndefined(yield* account(Text, "g"))
        // One is requeued while its group has no consumer.
        const { letters } = yield* DeadLetters.list({}, { order: "oldest" })
        assert.isTrue(yield* DeadLetters.requeue(letters[0]!.letterId))
        const second = yield* listen(Text, { group: "g", startFrom: "latest" })
        yield* Publisher.publish(Text, "e")
        const seen = yield* soon(Queue.takeN(second.seen, 2))
        assert.sameMembers(seen.map(({ payload }) => payload), ["a", "e"])
        yield* soon(second.subscription.drain)
        assert.deepStrictEqual(yield* account(Text, "g"), { published: 5, ...zero, skipped: 2, acked: 2, dead: 1 })
        assert.isTrue(yield* DeadLetters.remove(letters[1]!.letterId))
        assert.deepStrictEqual(yield* account(Text, "g"), { published: 5, ...zero, skipped: 2, acked: 2, removed: 1 })
      })
    )

    test(
      "counts messages that a limit removed before the group received them",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const trim = Effect.forEach(
          Array.from({ length: broker.shards }, (_, shard) => shard),
          (shard) => broker.trim(shard),
          { discard: true }
        )
        const member = yield* join(Latest, "me")
        yield* Publisher.publishAll(Latest, Array.from({ length: 300 }, String))
        yield* trim
        const found = yield* account(Latest, "g")
        assert.isAbove(found!.lost!, 0)
        assert.deepStrictEqual(found, { published: 300, ...zero, lag: found!.lag, lost: 300 - found!.lag! })
        const rest = yield* readAll(member, found!.lag!)
        assert.strictEqual(rest.length, found!.lag)
        yield* member.ack(rest)
        assert.deepStrictEqual(yield* account(Latest, "g"), {
          published: 300,
          ...zero,
          acked: rest.length,
          lost: 300 - rest.length
        })
      }),
      { graceMillis: 0 }
    )

    test(
      "counts a crash when the message is settled",
      Effect.gen(function*() {
        const lost = yield* join(Text, "lost", 200)
        const heir = yield* join(Text, "heir", 200)
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        assert.lengthOf(yield* readAll(lost, 3), 3)
        yield* backend.advance(400)
        const { deliveries: [one, two, three] } = yield* heir.claim(3)
        yield* heir.ack([one!])
        yield* heir.redeliver([{ delivery: two!, delayMillis: 0, attempt: 2 }])
        assert.strictEqual((yield* totals(Text, "g")).crashed, 2)
        assert.deepStrictEqual(yield* account(Text, "g"), { published: 3, ...zero, acked: 1, pending: 1, ready: 1 })
        yield* heir.bury([{ delivery: three!, failure: { reason: "crashed", message: "" } }])
        yield* heir.ack(yield* readAll(heir, 1))
        assert.deepStrictEqual(yield* totals(Text, "g"), {
          acked: 2,
          duplicates: 0,
          failed: 1,
          retried: 1,
          dead: 1,
          crashed: 3
        })
      })
    )

    test(
      "counts transactions, and duplicates among the acknowledged messages",
      Effect.gen(function*() {
        const transactional = yield* Subscription.make(Text, {
          group: "g",
          transactional: true,
          exactlyOnce: { key: ({ payload }) => payload },
          handler: () => Effect.flatMap(Transaction.key("count"), (key) => Transaction.incrby(key, 1))
        })
        yield* Publisher.publishAll(Text, ["a", "b", "a", "a"])
        yield* until(
          backend,
          Effect.map(transactional.stats, ({ duplicates, processed }) => duplicates + processed === 4)
        )
        yield* soon(transactional.drain)
        assert.deepStrictEqual(yield* account(Text, "g"), { published: 4, ...zero, acked: 4 })
        assert.deepInclude(yield* totals(Text, "g"), { acked: 4, duplicates: 2 })
      })
    )

    test(
      "tells of scheduled messages apart: they are published when they are due",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b"], () => ({ delay: "1 hour" }))
        yield* Publisher.publish(Text, "c")
        const [found] = yield* Stats.channels(Text)
        assert.deepInclude(found, { channel: "texts", published: 1, length: 1, scheduled: 2, groups: [] })
      })
    )

    test(
      "knows the consumers of a group, and how old what they have not settled is",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        const member = yield* join(Text, "me")
        const taken = yield* readAll(member, 2)
        yield* backend.advance(300)
        const look = Effect.map(Stats.channels(Text), ([channel]) => channel!.groups[0]!)
        const before = yield* look
        assert.deepStrictEqual(before.consumers.map(({ consumer, pending }) => [consumer, pending]), [["me", 2]])
        assert.isAtLeast(before.consumers[0]!.idleMillis, 250)
        assert.isAtLeast(before.oldestMillis!, 250)
        yield* member.ack(taken)
        assert.isAtLeast((yield* look).oldestMillis!, 250)
        yield* member.ack(yield* readAll(member, 1))
        const after = yield* look
        assert.isUndefined(after.oldestMillis)
        assert.isBelow(after.consumers[0]!.idleMillis, before.consumers[0]!.idleMillis + 10_000)
        const [channel] = yield* Stats.channels(Text)
        assert.isTrue(channel!.bytes === undefined || channel!.bytes > 0)
      })
    )

    test(
      "knows what waits on a new channel for a group that nobody runs at present",
      Effect.gen(function*() {
        const { subscription } = yield* listen(AnyNews, { group: "g" })
        yield* soon(subscription.drain)
        yield* Publisher.publishAll(Sport, ["a", "b"])
        assert.deepStrictEqual(yield* account(AnyNews, "g"), { published: 2, ...zero, lag: 2 })
      })
    )

    test(
      "tells of all channels, or of those of a source",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "a")
        yield* Publisher.publish(Other, "b")
        const names = (source?: Channel.Source) =>
          Effect.map(Stats.channels(source), (all) => all.map(({ channel }) => channel).sort())
        assert.deepStrictEqual(yield* names(), ["others", "texts"])
        assert.deepStrictEqual(yield* names(Other), ["others"])
        assert.isUndefined(Stats.ofGroup(yield* Stats.channels(), "nobody"))
      })
    )
  })

  describe("Stats.stream", () => {
    test(
      "gives a snapshot now and after each interval",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { group: "g" })
        const since = yield* Clock.currentTimeMillis
        const taking = yield* Effect.forkChild(
          Stats.stream({ source: Text, interval: 100 }).pipe(Stream.take(3), Stream.runCollect),
          { startImmediately: true }
        )
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(seen))
        const snapshots = [...yield* soon(Fiber.join(taking))]
        assert.isAtLeast((yield* Clock.currentTimeMillis) - since, 200)
        const times = snapshots.map(({ takenAt }) => takenAt.epochMilliseconds)
        assert.deepStrictEqual(times, times.toSorted((a, b) => a - b))
        const last = snapshots[2]!
        assert.strictEqual(sum(last.channels, "g")?.published, 1)
        assert.deepStrictEqual(last.subscriptions.map(({ consumer, group, pattern }) => [pattern, group, consumer]), [
          ["texts", "g", subscription.consumer]
        ])
      })
    )
  })

  describe("subscription.stats", () => {
    test(
      "has how long handlers take, in quantiles, and begins anew when it is reset",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          concurrency: 10,
          handler: ({ payload }) => Effect.sleep(Number(payload))
        })
        assert.isUndefined((yield* subscription.stats).processing)
        yield* Publisher.publishAll(Text, [...Array.from({ length: 18 }, () => "20"), "200", "200"])
        yield* soon(Queue.takeN(seen, 20))
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 20))
        const { processing } = yield* subscription.stats
        assert.strictEqual(processing!.count, 20)
        assert.isAtLeast(processing!.p50Millis, 19)
        assert.isBelow(processing!.p50Millis, 150)
        assert.isAtMost(processing!.p50Millis, processing!.p90Millis)
        assert.isAtLeast(processing!.p99Millis, 190)
        assert.isAtMost(processing!.p99Millis, processing!.maxMillis)
        yield* Stats.reset
        const { processing: none, ...after } = yield* subscription.stats
        assert.isUndefined(none)
        assert.deepInclude(after, { processed: 0, held: 0, inFlight: 0, lastMessageAtMillis: undefined })
        assert.strictEqual((yield* totals(Text, "texts")).acked, 20)
      })
    )
  })
}
