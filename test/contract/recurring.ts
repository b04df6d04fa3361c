/** Recurring messages, on every backend. */
import { assert, describe } from "@effect/vitest"
import { Cron, DateTime, Duration, Effect, Layer, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Rotif, Scheduler } from "rotif"
import { type Backend, listen, promises } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("texts.other", { payload: Schema.String })
const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })

const millis = DateTime.toEpochMillis

/** The time in the id of a tick. */
const instant = ({ id }: { readonly id: string }) => millis(DateTime.makeUnsafe(id.slice(id.indexOf("@") + 1)))

const only = Effect.gen(function*() {
  const all = yield* Scheduler.listRecurring
  assert.lengthOf(all, 1)
  return all[0]!
})

export const recurringSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Scheduler.recurring", () => {
    test(
      "publishes a tick at each interval, none early, until it is removed",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const { next } = yield* Scheduler.recurring("beat", { every: "100 millis" }, Text, "tick", {
          headers: { h: "1" },
          catchUp: { all: 1_000 }
        })
        const messages = yield* soon(Queue.takeN(seen, 4))
        for (const [i, message] of messages.entries()) {
          assert.strictEqual(message.payload, "tick")
          assert.match(message.id, /^beat@\d{4}-/)
          assert.deepStrictEqual({ ...message.headers }, { h: "1" })
          assert.isAtLeast(millis(message.publishedAt), instant(message))
          assert.strictEqual(instant(message), millis(next) + i * 100)
        }
        assert.isTrue(yield* Scheduler.removeRecurring("beat"))
        assert.isFalse(yield* Scheduler.removeRecurring("beat"))
        yield* Publisher.publish(Text, "removed")
        yield* Publisher.publish(Text, "end", { delay: 350 })
        // Ticks that were published before it was removed are in front of this.
        while ((yield* soon(Queue.take(seen))).payload !== "removed");
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "end")
        assert.deepStrictEqual(yield* Scheduler.listRecurring, [])
      })
    )

    test(
      "lists definitions with their next ticks",
      Effect.gen(function*() {
        yield* Scheduler.recurring("yearly", "0 0 1 1 *", Text, "a", { timeZone: "Europe/Berlin", catchUp: "none" })
        const cron = Cron.parseUnsafe("30 0 12 * * 1", "America/New_York")
        yield* Scheduler.recurring("weekly", cron, Notice, "b", { params: { userId: "42" }, catchUp: { all: 5 } })
        const { next } = yield* Scheduler.recurring("often", { every: "1 hour" }, Other, "c")
        const all = yield* Scheduler.listRecurring
        assert.deepStrictEqual(all.map(({ key }) => key).sort(), ["often", "weekly", "yearly"])
        assert.deepStrictEqual(
          all.map(({ next }) => millis(next)),
          all.map(({ next }) => millis(next)).sort((a, b) => a - b)
        )
        const byKey = (key: string) => all.find((definition) => definition.key === key)!
        assert.deepInclude(byKey("yearly"), { channel: "texts", payload: "\"a\"", catchUp: "none" })
        assert.deepStrictEqual(byKey("yearly").recurs, { cron: "0 0 0 1 1 *", timeZone: "Europe/Berlin" })
        assert.deepStrictEqual(byKey("weekly").recurs, { cron: "30 0 12 * * 1", timeZone: "America/New_York" })
        assert.deepStrictEqual(byKey("weekly").catchUp, { all: 5 })
        assert.deepStrictEqual({ ...byKey("weekly").params }, { userId: "42" })
        assert.deepStrictEqual(byKey("often").recurs, { every: Duration.hours(1) })
        assert.strictEqual(millis(byKey("often").next), millis(next))
        assert.match(DateTime.formatIso(byKey("yearly").next), /-12-31T23:00:00.000Z$/)
      })
    )

    test(
      "keeps the next tick when it is defined again, and works it out anew when it recurs otherwise",
      Effect.gen(function*() {
        const first = yield* Scheduler.recurring("k", { every: "1 hour" }, Text, "a")
        yield* backend.advance("20 millis")
        const same = yield* Scheduler.recurring("k", { every: "1 hour" }, Text, "b")
        assert.deepStrictEqual(same, first)
        assert.strictEqual((yield* only).payload, "\"b\"")
        const other = yield* Scheduler.recurring("k", { every: "2 hours" }, Text, "b")
        assert.isAtLeast(millis(other.next) - millis(first.next), Duration.toMillis("1 hour"))
        assert.deepStrictEqual((yield* only).next, other.next)
      })
    )

    test(
      "has one definition for a key, on any channel",
      Effect.gen(function*() {
        for (const channel of [Text, Other, Text]) {
          yield* Scheduler.recurring("k", { every: "1 hour" }, channel, "x")
          assert.strictEqual((yield* only).channel, channel.name)
        }
      })
    )

    test(
      "a definition that ticks earlier than all others wakes the ticker",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Scheduler.recurring("slow", { every: "1 day" }, Text, "slow")
        yield* backend.advance("50 millis")
        yield* Scheduler.recurring("fast", { every: "100 millis" }, Text, "fast")
        const message = yield* soon(Queue.take(seen))
        assert.strictEqual(message.payload, "fast")
        // Long before the next look of the ticker.
        assert.isBelow(millis(message.publishedAt) - instant(message), 5_000)
      })
    )

    test(
      "refuses what cannot recur",
      Effect.gen(function*() {
        const attempt = (recurs: Scheduler.Recurs, options?: Scheduler.RecurringOptions, key = "k") =>
          Effect.flip(Scheduler.recurring(key, recurs, Text, "x", options))
        const errors = yield* Effect.all([
          attempt("61 * * * *"),
          attempt("every day"),
          attempt("0 0 30 2 *"),
          attempt("* * * * *", { timeZone: "Mars/Olympus" }),
          attempt({ every: 0 }),
          attempt({ every: Number.NaN }),
          attempt({ every: -1 }),
          attempt({ every: Number.POSITIVE_INFINITY }),
          attempt({ every: 1000 }, { catchUp: { all: 0 } }),
          attempt({ every: 1000 }, { catchUp: { all: 1.5 } }),
          attempt({ every: 1000 }, {}, ""),
          attempt({ every: 1000 }, {}, "a\nb"),
          attempt({ every: 1000 }, {}, "x".repeat(401))
        ])
        assert.deepStrictEqual(errors.map(({ _tag }) => _tag), Array(errors.length).fill("InvalidSchedule"))
        assert.strictEqual((yield* attempt({ every: 1000 }, { expiresIn: -1 }))._tag, "InvalidPublishOptions")
        assert.deepStrictEqual(yield* Scheduler.listRecurring, [])
      })
    )

    test(
      "publishes each tick once, however many processes run",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const another = () => Layer.fresh(Rotif.layerBroker())
        const others = Layer.mergeAll(another(), another(), another())
        yield* Effect.gen(function*() {
          yield* Scheduler.recurring("beat", { every: "60 millis" }, Text, "tick", { catchUp: { all: 100 } })
          const ticks = (yield* soon(Queue.takeN(seen, 12))).map(instant)
          assert.deepStrictEqual(ticks, ticks.map((_, i) => ticks[0]! + i * 60))
        }).pipe(Effect.provide(others))
      })
    )

    test(
      "catches up with missed ticks, as its option says",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const minute = 60_000
        // As after five and three quarters of a minute without any process: its ticks are 345, 285, …, 45 s old.
        const missed = (catchUp: "none" | "latest" | { readonly all: number }) =>
          Effect.gen(function*() {
            const { next } = yield* Scheduler.recurring("k", { every: minute }, Text, "x", { catchUp })
            const [shard = 0] = broker.shardsOf(Channel.selector(Text))
            const [definition] = yield* broker.recurring.list(shard)
            yield* Scheduler.removeRecurring("k")
            const from = millis(next) - minute - 345_000
            yield* broker.recurring.upsert(definition!, from)
            const ages = yield* Effect.scoped(Effect.gen(function*() {
              const { seen } = yield* listen(Text)
              const came: Array<number> = []
              yield* Effect.gen(function*() {
                yield* Publisher.publish(Text, "end", { delay: 150 })
                for (
                  let message = yield* soon(Queue.take(seen));
                  message.payload !== "end";
                  message = yield* soon(Queue.take(seen))
                ) {
                  came.push((instant(message) - from) / minute)
                }
              }).pipe(Effect.provide(Rotif.layerBroker()))
              return came
            }))
            assert.strictEqual(millis((yield* only).next) - from, 6 * minute)
            yield* Scheduler.removeRecurring("k")
            return ages
          })
        assert.deepStrictEqual(yield* missed("none"), [])
        assert.deepStrictEqual(yield* missed("latest"), [5])
        assert.deepStrictEqual(yield* missed({ all: 3 }), [3, 4, 5])
        assert.deepStrictEqual(yield* missed({ all: 100 }), [0, 1, 2, 3, 4, 5])
      }),
      { delayed: false }
    )
  })
}
