/** Messages in states that cannot be, made by hand: found, repaired where that loses nothing, and handled in the end. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { Broker, Channel, DeadLetters, Inspector, Publisher, Stats } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import {
  about,
  bodies,
  brief,
  broken,
  handles,
  it1,
  keys,
  log,
  long,
  mends,
  oneLeased,
  oneWaiting,
  options,
  reports,
  retry,
  take,
  Text,
  verify
} from "../contract/inspectorKit.ts"

describe("Inspector: messages", () => {
  broken("a name that waits and has no body", (server) =>
    Effect.gen(function*() {
      const { waits } = yield* oneWaiting(server)
      const id = waits.slice("g\ntexts\n".length)
      yield* server.command("hdel", bodies, id)
      assert.deepInclude(brief(yield* verify), it1("TimeWithoutBody", keys.waiting, { ...about, id }))
      const { left, repaired } = yield* Inspector.repair(options)
      assert.deepStrictEqual(brief(repaired), [it1("TimeWithoutBody", keys.waiting, { ...about, id })])
      // What is gone is gone, and that is said.
      assert.deepStrictEqual(brief(left), [it1("LostMessages", keys.counts, about)])
      assert.strictEqual(yield* server.command("zcard", keys.waiting), 0)
      yield* (yield* Broker.Broker).removeGroup("g", Channel.selector(Text))
      yield* server.command("zadd", keys.waiting, Date.now() + long, "strange")
      yield* mends(it1("TimeWithoutBody", keys.waiting, { id: "strange" }))
    }))

  broken("a body that waits for no time: of a retry, and a scheduled one", (server) =>
    Effect.gen(function*() {
      const { position, waits } = yield* oneWaiting(server)
      yield* Publisher.publish(Text, "b", { id: "1", delay: "1 hour" })
      yield* server.command("zrem", keys.waiting, waits, Keys.waitingMember("", "texts", "1"))
      yield* server.command("del", keys.retries("g"), retry)
      const found = yield* verify
      assert.sameDeepMembers(brief(found), [
        it1("BodyWithoutTime", bodies, { ...about, id: position }),
        it1("BodyWithoutTime", keys.bodies("", "texts"), { channel: "texts", id: "1" })
      ])
      assert.lengthOf((yield* Inspector.repair(options)).repaired, 2)
      assert.deepStrictEqual(yield* verify, [])
      yield* handles("a", "b")
    }))

  broken("a body of a group that is not registered is left alone", (server) =>
    Effect.gen(function*() {
      yield* server.command("hset", keys.bodies("gone", "texts"), "1-0", "{}\n\"a\"")
      yield* reports(
        /subscribe and repair/,
        it1("BodyWithoutTime", keys.bodies("gone", "texts"), {
          group: "gone",
          channel: "texts",
          id: "1-0"
        })
      )
    }))

  broken("a body that cannot be read", (server) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "b", { id: "1", delay: "1 hour" })
      yield* server.command("hset", keys.bodies("", "texts"), "1", "strange")
      yield* reports(/thrown away/, it1("Unreadable", keys.bodies("", "texts"), { channel: "texts", id: "1" }))
    }))

  broken("a due message that no promoter has moved", (server) =>
    Effect.gen(function*() {
      const { position, waits } = yield* oneWaiting(server)
      yield* server.command("zadd", keys.waiting, Date.now() - 100_000, waits)
      yield* mends(it1("Overdue", keys.waiting, { ...about, id: position }))
      yield* handles("a")
    }))

  broken(
    "messages that wait for their ordering key and stand in no line, and a key without a head",
    (server) =>
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const member = yield* broker.join({
          shard: 0,
          group: "g",
          consumer: "me",
          selector: Channel.selector(Text),
          start: { _tag: "Earliest" },
          leaseMillis: long,
          ordering: "block",
          isTaking: () => true
        })
        yield* broker.append(
          ["a", "b", "c"].map((id) => ({ id, channel: "texts", payload: `"${id}"`, orderingKey: "k" }))
        )
        const [head] = yield* member.read(3, 1_000)
        assert.deepStrictEqual(yield* verify, [])
        yield* server.command("del", keys.lines("g", "texts"))
        const [, [second = ""] = []] = (yield* server.command("xrange", log, "-", "+")) as Array<Array<string>>
        yield* mends(it1("BrokenGate", keys.lines("g", "texts"), { ...about, id: second }))
        yield* member.ack([head!])
        const [next] = member.takeNext()
        assert.strictEqual(next?.id, "b")
        yield* server.command("sadd", keys.busy("g", "texts"), "stray")
        yield* mends(it1("BrokenGate", keys.busy("g", "texts"), about))
        yield* member.ack([next!])
        yield* member.ack(member.takeNext())
        assert.strictEqual(Stats.ofGroup(yield* Stats.channels(Text), "g")?.pending, 0)
        assert.strictEqual(yield* server.command("exists", keys.busy("g", "texts"), keys.lines("g", "texts")), 0)
      })
  )

  broken("a delivery whose message is gone, once it was left alone for long", (server) =>
    Effect.gen(function*() {
      const { member, position } = yield* oneLeased(server)
      yield* server.command("xdel", log, position)
      assert.notInclude((yield* verify).map(({ kind }) => kind), "GhostDelivery")
      yield* server.command("xclaim", log, "g", "me", 0, position, "IDLE", 100_000, "JUSTID")
      // An XCLAIM removes what is gone: a delivery that is left behind is made of one that is there.
      yield* Publisher.publish(Text, "b")
      yield* take(member, 1)
      const [[second]] = (yield* server.command("xrange", log, "-", "+")) as [[string]]
      yield* server.command("xclaim", log, "g", "me", 0, second, "IDLE", 100_000, "JUSTID")
      yield* server.command("xdel", log, second)
      assert.deepInclude(brief(yield* verify), it1("GhostDelivery", log, { ...about, id: second }))
      const { left, repaired } = yield* Inspector.repair(options)
      assert.deepStrictEqual(brief(repaired), [it1("GhostDelivery", log, { ...about, id: second })])
      // Two messages were removed behind the back of the group: that is told, and cannot be repaired.
      assert.deepStrictEqual(brief(left), [it1("LostMessages", keys.counts, about)])
      assert.match(left[0]!.message, /^2 messages were removed/)
      assert.deepStrictEqual(yield* server.command("xpending", log, "g"), [0, null, null, null])
    }))

  broken(
    "a delivery in the retry stream whose message is gone; the account is right again",
    (server) =>
      Effect.gen(function*() {
        const { delivery, member } = yield* oneLeased(server)
        yield* member.redeliver([{ delivery, delayMillis: 0, attempt: 2 }])
        yield* take(member, 1)
        const [[again]] = (yield* server.command("xrange", retry, "-", "+")) as [[string]]
        yield* server.command("xclaim", retry, "g", "me", 0, again, "IDLE", 100_000, "JUSTID")
        yield* server.command("xdel", retry, again)
        const { left, repaired } = yield* Inspector.repair(options)
        assert.deepStrictEqual(brief(repaired), [it1("GhostDelivery", retry, { ...about, id: again })])
        assert.deepStrictEqual(brief(left), [it1("LostMessages", keys.counts, about)])
        assert.deepInclude(Stats.ofGroup(yield* Stats.channels(Text), "g"), { pending: 0, ready: 0, lost: 1 })
      })
  )

  broken("waiting and in the log", (server) =>
    Effect.gen(function*() {
      const { position } = yield* oneLeased(server)
      yield* server.command("hset", bodies, position, "{\"i\":\"1\"}\n\"a\"")
      yield* server.command("zadd", keys.waiting, Date.now() + long, Keys.waitingMember("g", "texts", position))
      const found = yield* verify
      assert.deepInclude(brief(found), it1("TwoStates", keys.waiting, { ...about, id: position }))
      const { repaired } = yield* Inspector.repair(options)
      assert.lengthOf(repaired, 1)
      assert.deepStrictEqual(yield* verify, [])
      assert.strictEqual(yield* server.command("hlen", bodies), 0)
      yield* server.command("xclaim", log, "g", "lost", 0, position, "IDLE", 100_000, "JUSTID")
      yield* handles("a")
    }))

  broken("waiting and ready again", (server) =>
    Effect.gen(function*() {
      const { delivery, member, position } = yield* oneLeased(server)
      yield* member.redeliver([{ delivery, delayMillis: 0, attempt: 2 }])
      yield* server.command("hset", bodies, position, "{\"i\":\"1\"}\n\"a\"")
      yield* server.command("zadd", keys.waiting, Date.now() + long, Keys.waitingMember("g", "texts", position))
      assert.deepInclude(brief(yield* verify), it1("TwoStates", retry, { ...about, id: position }))
      assert.lengthOf((yield* Inspector.repair(options)).repaired, 1)
      assert.deepStrictEqual(yield* verify, [])
      yield* handles("a")
    }))

  broken("ready again and in the log", (server) =>
    Effect.gen(function*() {
      const { delivery, member, position } = yield* oneLeased(server)
      yield* member.redeliver([{ delivery, delayMillis: 0, attempt: 2 }])
      // The group is set back: its message is handed out again in the log.
      yield* server.command("xgroup", "SETID", log, "g", "0")
      yield* server.command("xreadgroup", "GROUP", "g", "lost", "STREAMS", log, ">")
      yield* server.command("xclaim", log, "g", "lost", 0, position, "IDLE", 100_000, "JUSTID")
      assert.deepInclude(brief(yield* verify), it1("TwoStates", retry, { ...about, id: position }))
      assert.lengthOf((yield* Inspector.repair(options)).repaired, 1)
      assert.deepStrictEqual(yield* verify, [])
      yield* handles("a")
    }))

  broken("given up, and on its way", (server) =>
    Effect.gen(function*() {
      const { delivery, member, position } = yield* oneLeased(server)
      yield* member.bury([{ delivery, failure: { reason: "term", message: "no" } }])
      assert.deepStrictEqual(yield* verify, [])
      const { letters: [letter] } = yield* DeadLetters.list()
      yield* server.command("hset", bodies, position, "{\"i\":\"1\"}\n\"a\"")
      yield* server.command("zadd", keys.waiting, Date.now() + long, Keys.waitingMember("g", "texts", position))
      const found = (yield* verify).filter(({ kind }) => kind === "TwoStates")
      assert.deepStrictEqual(brief(found), [it1("TwoStates", keys.dead, { ...about, id: letter!.letterId })])
      assert.match(found[0]!.message, /given it up/)
      assert.deepInclude(brief((yield* Inspector.repair(options)).left), brief(found)[0])
      yield* DeadLetters.remove(letter!.letterId)
      assert.notInclude((yield* verify).map(({ kind }) => kind), "TwoStates")
    }))

  broken("messages of transactions that no relay has brought to their shards", (server) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "a")
      yield* server.command("xadd", keys.outbox, "1-0", "m", "{\"id\":\"b\",\"channel\":\"texts\"}", "p", "\"b\"")
      yield* mends(it1("Unrelayed", keys.outbox, { id: "1-0" }))
      yield* handles("a", "b")
    }))
})
