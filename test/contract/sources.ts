/** Sources of subscriptions: templates, unions, patterns, groups, and where a group begins. */
import { assert, describe } from "@effect/vitest"
import { Clock, Deferred, Effect, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Scheduler, Stats, Subscription } from "rotif"
import { type Backend, leftover, listen, nothingLeft, promises, until } from "./kit.ts"

const Placed = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
const Paid = Channel.make("orders.paid", { payload: Schema.Struct({ cents: Schema.Int }) })
const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })
const Text = Channel.make("texts", { payload: Schema.String })
const AnyText = Channel.pattern("texts.*", { payload: Schema.String })

const text = (name: string) => Channel.make(name, { payload: Schema.String })

export const sourcesSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Subscription.make: sources", () => {
    test(
      "keeps a template channel in one log and hands over the params",
      Effect.gen(function*() {
        const { seen } = yield* listen(Notice)
        for (const userId of ["1", "2", "1"]) yield* Publisher.publish(Notice, `to ${userId}`, { params: { userId } })
        const messages = yield* soon(Queue.takeN(seen, 3))
        const broker = yield* Broker.Broker
        const { channels } = yield* broker.info({ _tag: "Pattern", pattern: "**" })
        assert.deepStrictEqual(messages.map(({ params, payload }) => [params.userId, payload]), [
          ["1", "to 1"],
          ["2", "to 2"],
          ["1", "to 1"]
        ])
        assert.deepStrictEqual(channels.map(({ channel, length }) => [channel, length]), [["users.:userId.notices", 3]])
      })
    )

    test(
      "tells the members of a union apart by their channel",
      Effect.gen(function*() {
        const { seen } = yield* listen(Channel.union([Placed, Paid, Notice]))
        yield* Publisher.publish(Placed, { id: "o-1" })
        yield* Publisher.publish(Paid, { cents: 5 })
        yield* Publisher.publish(Notice, "hi", { params: { userId: "7" } })
        const messages = yield* soon(Queue.takeN(seen, 3))
        const told = messages.map((message) => {
          switch (message.channel) {
            case "orders.placed":
              return message.payload.id
            case "orders.paid":
              return message.payload.cents
            case "users.:userId.notices":
              return message.params.userId
          }
        })
        assert.sameMembers(told, ["o-1", 5, "7"])
      })
    )

    test(
      "gives a pattern every channel that matches, and no other",
      Effect.gen(function*() {
        const one = yield* listen(AnyText, { group: "one" })
        const deep = yield* listen(Channel.pattern("texts.**", { payload: Schema.String }), { group: "deep" })
        for (const name of ["texts.a", "texts.a.b", "texts.c", "other.a", "texts"]) {
          yield* Publisher.publish(text(name), name)
        }
        yield* Publisher.publish(text("texts.z"), "texts.z")
        const some = yield* soon(Queue.takeN(one.seen, 3))
        const more = yield* soon(Queue.takeN(deep.seen, 4))
        assert.sameMembers(some.map(({ channel }) => channel), ["texts.a", "texts.c", "texts.z"])
        assert.sameMembers(more.map(({ payload }) => payload), ["texts.a", "texts.a.b", "texts.c", "texts.z"])
        yield* Effect.all([one.subscription.drain, deep.subscription.drain])
        assert.strictEqual(yield* Queue.size(one.seen), 0)
        assert.strictEqual(yield* Queue.size(deep.seen), 0)
      })
    )

    test(
      "takes a name that is a key of every object for a name like any other",
      Effect.gen(function*() {
        const names = ["__proto__", "constructor", "toString", "hasOwnProperty"]
        const headers = JSON.parse("{\"__proto__\":\"h\",\"constructor\":\"c\"}") as Record<string, string>
        const broker = yield* Broker.Broker
        for (const name of names) {
          const source = Channel.make(`${name}.:constructor.${name}`, { payload: Schema.Unknown })
          const { seen, subscription } = yield* listen(source, { group: name })
          const payload = JSON.parse(`{"__proto__":{"x":1},"${name}":2}`) as unknown
          const params = { constructor: name }
          const first = yield* Publisher.publish(source, payload, { id: name, headers, params })
          const second = yield* Publisher.publish(source, payload, { id: name, params })
          assert.deepStrictEqual([first._tag, second._tag], ["Published", "Duplicate"])
          const message = yield* soon(Queue.take(seen))
          assert.strictEqual(JSON.stringify(message.payload), JSON.stringify(payload))
          assert.deepStrictEqual(Object.entries(message.headers), Object.entries(headers))
          assert.deepStrictEqual(Object.entries(message.params), [["constructor", name]])
          yield* Publisher.publish(source, payload, { id: `${name}-later`, params, delay: "1 hour" })
          assert.isTrue(yield* Scheduler.cancel(source, `${name}-later`))
          yield* Scheduler.recurring(name, { every: "1 hour" }, source, payload, { params })
          assert.isTrue(yield* Scheduler.removeRecurring(name))
          yield* soon(subscription.drain)
          assert.deepStrictEqual(yield* leftover(source), nothingLeft)
        }
        yield* backend.advance(50)
        for (let shard = 0; shard < broker.shards; shard++) yield* broker.trim(shard)
        const { channels } = yield* broker.info({ _tag: "Pattern", pattern: "**" })
        assert.deepStrictEqual(channels.map(({ length }) => length), names.map(() => 0))
        assert.isUndefined(({} as Record<string, unknown>)["x"])
      }),
      { graceMillis: 20 }
    )

    test(
      "hands over a channel that appears while a pattern runs",
      Effect.gen(function*() {
        const { seen } = yield* listen(AnyText)
        const delays: Array<number> = []
        for (let i = 0; i < 10; i++) {
          const before = yield* Clock.currentTimeMillis
          yield* Publisher.publish(text(`texts.new-${i}`), String(i))
          const message = yield* soon(Queue.take(seen))
          delays.push((yield* Clock.currentTimeMillis) - before)
          assert.strictEqual(message.channel, `texts.new-${i}`)
        }
        delays.sort((a, b) => a - b)
        // The bound is 100 ms. A busy machine may exceed it now and then; a wait for the block interval would be longer on any machine.
        assert.isBelow(delays[2]!, 100, `${delays.join()} ms`)
        assert.isBelow(delays[5]!, 1_000, `${delays.join()} ms`)
      })
    )
  })

  describe("Subscription.make: groups", () => {
    test(
      "gives every group every message",
      Effect.gen(function*() {
        const groups = yield* Effect.forEach(["a", "b", "c"], (group) => listen(Text, { group }))
        yield* Publisher.publishAll(Text, ["1", "2", "3"])
        for (const { seen } of groups) {
          const messages = yield* soon(Queue.takeN(seen, 3))
          assert.deepStrictEqual(messages.map(({ payload }) => payload), ["1", "2", "3"])
        }
      })
    )

    test(
      "shares the messages of a group among its consumers",
      Effect.gen(function*() {
        const all = Array.from({ length: 60 }, (_, i) => String(i))
        const bothWork = yield* Deferred.make<void>()
        const workers = new Set<string>()
        const handler = (name: string) => () =>
          Effect.suspend(() => {
            workers.add(name)
            // No handler ends before both consumers have a message, so that neither can take them all.
            return workers.size === 2
              ? Effect.asVoid(Deferred.succeed(bothWork, undefined))
              : Deferred.await(bothWork)
          })
        const first = yield* listen(Text, { group: "g", prefetch: 0, handler: handler("first") })
        const second = yield* listen(Text, { group: "g", prefetch: 0, handler: handler("second") })
        yield* Publisher.publishAll(Text, all)
        yield* soon(Deferred.await(bothWork))
        const both = yield* Queue.unbounded<string>()
        for (const { seen } of [first, second]) {
          yield* Effect.forkScoped(Effect.forever(
            Effect.flatMap(Queue.take(seen), ({ payload }) => Queue.offer(both, payload))
          ))
        }
        assert.sameMembers(yield* soon(Queue.takeN(both, all.length)), all)
        yield* Effect.all([first.subscription.drain, second.subscription.drain])
        assert.strictEqual(yield* Queue.size(both), 0)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "names the group after the channel unless told otherwise",
      Effect.gen(function*() {
        const named = yield* listen(AnyText)
        const union = yield* listen(Channel.union([Placed, Paid]))
        const own = yield* listen(Text, { group: "mine", consumer: "worker-1" })
        assert.deepStrictEqual([named.subscription.group, named.subscription.pattern], ["texts.*", "texts.*"])
        assert.strictEqual(union.subscription.group, "orders.placed,orders.paid")
        assert.deepStrictEqual([own.subscription.group, own.subscription.pattern], ["mine", "texts"])
        assert.match(own.subscription.consumer, /^worker-1:/)
        assert.match(named.subscription.consumer, new RegExp(`:${process.pid}:`))
      })
    )

    test(
      "names groups and consumers with the functions of the configuration",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text)
        yield* Publisher.publish(Text, "x")
        assert.strictEqual(subscription.group, "shop/texts")
        assert.match(subscription.consumer, /^pod-7:/)
        assert.strictEqual((yield* soon(Queue.take(seen))).group, "shop/texts")
      }),
      { groupName: (source) => `shop/${source}`, consumerName: () => "pod-7" }
    )

    test(
      "gives consumers of the same name names of their own",
      Effect.gen(function*() {
        const both = yield* Effect.forEach([1, 2], () => listen(Text, { consumer: "same" }))
        assert.strictEqual(new Set(both.map(({ subscription }) => subscription.consumer)).size, 2)
      })
    )
  })

  describe("Subscription.make: startFrom", () => {
    const begin = (startFrom: Subscription.StartFrom | undefined) =>
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { group: "late", startFrom })
        yield* Publisher.publish(Text, "new")
        const payloads: Array<string> = []
        while (payloads.at(-1) !== "new") payloads.push((yield* soon(Queue.take(seen))).payload)
        return payloads
      })

    test(
      "begins with the oldest message",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b"])
        assert.deepStrictEqual(yield* begin(undefined), ["a", "b", "new"])
      })
    )

    test(
      "begins with the next message",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b"])
        assert.deepStrictEqual(yield* begin("latest"), ["new"])
      })
    )

    test(
      "begins after a position",
      Effect.gen(function*() {
        const [first] = yield* Publisher.publishAll(Text, ["a", "b", "c"])
        assert.deepStrictEqual(yield* begin({ position: first!.position! }), ["b", "c", "new"])
      })
    )

    test(
      "begins at a time",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* backend.advance("20 millis")
        const { position } = yield* Publisher.publish(Text, "c")
        const time = Number(position!.split("-")[0])
        assert.deepStrictEqual(yield* begin({ time }), ["c", "new"])
      })
    )

    const acked = (group: string, count: number) =>
      until(
        backend,
        Effect.map(Stats.channels(), (all) =>
          all.flatMap(({ groups }) => groups).filter((one) => one.group === group)
            .reduce((sum, { totals }) => sum + totals.acked, 0) === count)
      )

    test(
      "begins with messages that another group has not settled, never with those that only wait to be removed",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, { group: "first" })
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* acked("first", 2)
        yield* subscription.pause
        yield* Publisher.publishAll(Text, ["c", "d"])
        assert.deepStrictEqual(yield* begin("earliest"), ["c", "d", "new"])
        const [stats] = yield* Stats.channels(Text)
        const late = stats!.groups.find(({ group }) => group === "late")
        assert.deepInclude(late, { skipped: 2, lost: 0 })
      })
    )

    test(
      "begins with the oldest unsettled message of a group, also when later ones are acknowledged",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        yield* listen(Text, {
          group: "first",
          concurrency: 4,
          handler: ({ payload }) => payload === "b" ? Deferred.await(gate) : Effect.void
        })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* acked("first", 2)
        assert.deepStrictEqual(yield* begin("earliest"), ["b", "c", "new"])
        yield* Deferred.succeed(gate, undefined)
      })
    )

    test(
      "begins with messages kept for a group without a running consumer",
      Effect.gen(function*() {
        yield* Effect.scoped(listen(Channel.pattern("*", { payload: Schema.String }), { group: "away" }))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* listen(Text, { group: "first" })
          yield* Publisher.publishAll(Text, ["a", "b"])
          yield* acked("first", 2)
        }))
        assert.deepStrictEqual(yield* begin("earliest"), ["a", "b", "new"])
      })
    )

    test(
      "begins with what the last group had not settled when it was removed",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, { group: "first" })
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* acked("first", 2)
        yield* subscription.pause
        yield* Publisher.publishAll(Text, ["c", "d"])
        yield* subscription.unsubscribe({ removeGroup: true })
        yield* Publisher.publish(Text, "e")
        assert.deepStrictEqual(yield* begin("earliest"), ["c", "d", "e", "new"])
      })
    )

    test(
      "begins with the next message where all is settled",
      Effect.gen(function*() {
        yield* listen(Text, { group: "first" })
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* acked("first", 2)
        assert.deepStrictEqual(yield* begin("earliest"), ["new"])
      })
    )

    test(
      "begins where another registration of the group keeps a channel for it, regardless of the option",
      Effect.gen(function*() {
        yield* Effect.scoped(listen(Channel.pattern("*", { payload: Schema.String }), { group: "late" }))
        yield* Publisher.publishAll(Text, ["a", "b"])
        assert.deepStrictEqual(yield* begin("latest"), ["a", "b", "new"])
      })
    )

    test(
      "does not move a group that exists",
      Effect.gen(function*() {
        yield* Effect.scoped(listen(Text, { group: "late" }))
        yield* Publisher.publish(Text, "a")
        assert.deepStrictEqual(yield* begin("latest"), ["a", "new"])
      })
    )
  })
}
