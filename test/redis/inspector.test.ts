/** Keys, channels, groups, recurring messages and counts broken by hand: found with the right words, and repaired where that loses nothing. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema } from "effect"
import { Broker, Channel, DeadLetters, Inspector, Publisher, Redis, Rotif, Scheduler } from "rotif"
import { inject } from "vitest"
import * as Keys from "../../src/redisBroker/keys.ts"
import {
  about,
  bodies,
  brief,
  broken,
  handles,
  it1,
  join,
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
import { freshPrefix, listen } from "../contract/kit.ts"

describe("Inspector: keys", () => {
  broken("a key that is not Rotif's, and a key of a shard that does not exist", (server) =>
    Effect.gen(function*() {
      yield* server.command("set", "{rotif:0}:strange", "x")
      yield* server.command("set", "{rotif:7}:meta", "x")
      yield* server.command("set", "{rotif:once:k}", "x")
      yield* server.command("set", "{rotif:more:0}:strange", "x")
      yield* server.command("set", "elsewhere", "x")
      const found = yield* verify
      assert.sameDeepMembers(brief(found), [
        it1("UnknownKey", "{rotif:0}:strange"),
        it1("UnknownKey", "{rotif:7}:meta")
      ])
      assert.isTrue(found.some(({ message }) => message.includes("has 1 shards")))
      assert.strictEqual((yield* Inspector.repair(options)).left.length, 2)
    }))

  broken("one of a channel that belongs to another shard", (server) =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      yield* Publisher.publish(Text, "a")
      const [home] = broker.shardsOf(Channel.selector(Text))
      const away = Keys.make("rotif", 1 - home!)
      assert.deepStrictEqual(yield* verify, [])
      yield* server.command("xadd", away.log("texts"), "*", "i", "1", "p", "\"b\"")
      yield* server.command("set", away.seen("texts", "i1"), "1-0", "px", long)
      const found = yield* verify
      assert.sameDeepMembers(
        brief(found),
        [away.log("texts"), away.seen("texts", "i1")].map((key) => it1("Misplaced", key, { channel: "texts" }))
      )
      for (const { message, repair, shard } of found) {
        assert.match(message, new RegExp(`belongs to shard ${home}: .*number of shards`))
        assert.deepStrictEqual({ repair, shard }, { repair: undefined, shard: 1 - home! })
      }
      assert.lengthOf((yield* Inspector.repair(options)).left, 2)
    }), 2)

  broken("one of a wrong type", (server) =>
    Effect.gen(function*() {
      yield* server.command("set", keys.waiting, "x")
      yield* server.command("set", keys.dead, "x")
      yield* server.command("hset", keys.channels, "texts", "")
      yield* server.command("set", log, "x")
      const found = yield* verify
      assert.sameDeepMembers(brief(found), [keys.waiting, keys.dead, log].map((key) => it1("WrongType", key)))
      assert.isTrue(found.every(({ message, repair }) => message.includes("must be a ") && repair === undefined))
      assert.deepStrictEqual((yield* Inspector.repair(options)).repaired, [])
    }))

  broken("a window and a turn that never end", (server) =>
    Effect.gen(function*() {
      const window = keys.seen("texts", "i1")
      yield* Publisher.publish(Text, "a", { id: "1" })
      yield* server.command("persist", window)
      yield* server.command("set", keys.janitor, "somebody")
      const found = yield* verify
      assert.sameDeepMembers(brief(found), [it1("NoExpiry", window), it1("NoExpiry", keys.janitor)])
      assert.lengthOf((yield* Inspector.repair(options)).repaired, 2)
      assert.deepStrictEqual(yield* verify, [])
      assert.isAbove(Number(yield* server.command("pttl", window)), 0)
      assert.strictEqual(yield* server.command("exists", keys.janitor), 0)
    }))

  broken("a record of a removed group, but not of a group that has messages", (server) =>
    Effect.gen(function*() {
      yield* server.command("zadd", keys.members("gone"), 1, "me")
      yield* server.command("hset", keys.once("gone"), "texts\nk", "")
      const found = yield* verify
      assert.sameDeepMembers(
        brief(found),
        [keys.members("gone"), keys.once("gone")].map((key) => it1("OrphanRecord", key, { group: "gone" }))
      )
      yield* server.command("hset", keys.floors("gone"), "texts", "1-0")
      const { left, repaired } = yield* Inspector.repair(options)
      assert.deepStrictEqual(repaired, [])
      assert.deepStrictEqual(brief(left), [it1("UnregisteredGroup", keys.floors("gone"), { group: "gone" })])
      yield* server.command("del", keys.floors("gone"))
      assert.lengthOf((yield* Inspector.repair(options)).repaired, 2)
      assert.deepStrictEqual(yield* verify, [])
    }))
})

describe("Inspector: channels and groups", () => {
  broken("a log of a channel that is not registered", (server) =>
    Effect.gen(function*() {
      yield* server.command("xadd", log, "*", "i", "1", "p", "\"a\"")
      yield* mends(it1("UnregisteredChannel", log, { channel: "texts" }))
      yield* handles("a")
    }))

  broken("a registered channel without a log", (server) =>
    Effect.gen(function*() {
      yield* server.command("hset", keys.channels, "texts", "")
      yield* mends(it1("MissingLog", log, { channel: "texts" }))
      yield* Publisher.publish(Text, "a")
      yield* handles("a")
    }))

  broken("limits that cannot be read", (server) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "a")
      yield* server.command("hset", keys.channels, "texts", "{")
      yield* mends(it1("Unreadable", keys.channels, { channel: "texts" }))
      yield* (yield* Broker.Broker).trim(0)
    }))

  broken("a registration that names nothing", (server) =>
    Effect.gen(function*() {
      yield* server.command("hset", keys.groups, "strange", "")
      yield* reports(/names no group/, it1("Unreadable", keys.groups, { id: "strange" }))
    }))

  broken("an entry of the pauses that is none", (server) =>
    Effect.gen(function*() {
      yield* server.command("hset", keys.paused, "g\ntexts", "strange")
      yield* mends(it1("Unreadable", keys.paused, { id: "g\ntexts" }))
    }))

  broken("a retry stream that its group does not know of", (server) =>
    Effect.gen(function*() {
      const { delivery, member } = yield* oneLeased(server)
      yield* member.redeliver([{ delivery, delayMillis: 0, attempt: 2 }])
      yield* server.command("del", keys.retries("g"))
      yield* mends(it1("UnlistedRetries", retry, about))
      yield* handles("a")
    }))

  broken("a group that is not registered", (server) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "a")
      yield* server.command("xgroup", "CREATE", log, "strange", "0")
      yield* reports(/subscribe with it, or remove it/, it1("UnregisteredGroup", log, { ...about, group: "strange" }))
    }))

  broken("a group that is gone from the log", (server) =>
    Effect.gen(function*() {
      const { delivery, member } = yield* oneLeased(server)
      yield* member.ack([delivery])
      yield* (yield* Broker.Broker).trim(0)
      yield* Publisher.publish(Text, "b")
      yield* server.command("xgroup", "DESTROY", log, "g")
      yield* mends(it1("LostGroup", log, about))
      yield* handles("b")
    }))

  broken("a floor beyond the acknowledged messages", (server) =>
    Effect.gen(function*() {
      const { position } = yield* oneLeased(server)
      for (const floor of [position, "9999999999999-0"]) {
        yield* server.command("hset", keys.floors("g"), "texts", floor)
        yield* mends(it1("FloorBeyondCursor", keys.floors("g"), about))
      }
      // Now the group may be lost.
      yield* server.command("xgroup", "DESTROY", log, "g")
      yield* mends(it1("LostGroup", log, about))
      yield* handles("a")
    }))
})

describe("Inspector: recurring messages, dead letters, counts", () => {
  broken("a tick of nothing, and a definition that never ticks", (server) =>
    Effect.gen(function*() {
      yield* server.command("zadd", keys.ticks, Date.now() + long, "nothing")
      yield* mends(it1("TickWithoutDefinition", keys.ticks, { id: "nothing" }))
      yield* Scheduler.recurring("often", { every: "1 hour" }, Text, "tick")
      yield* server.command("del", keys.ticks)
      yield* mends(it1("DefinitionWithoutTick", keys.recurring, { channel: "texts", id: "often" }))
      assert.isAbove(Number(yield* server.command("zscore", keys.ticks, "often")), Date.now())
      yield* server.command("zadd", keys.ticks, 1, "often")
      yield* reports(/nobody has published it/, it1("OverdueTick", keys.ticks, { id: "often" }))
      yield* server.command("hset", keys.recurring, "often", "strange")
      yield* server.command("del", keys.ticks)
      yield* reports(/is no recurring message/, it1("DefinitionWithoutTick", keys.recurring, { id: "often" }))
    }))

  broken("a letter that would never be offered again", (server) =>
    Effect.gen(function*() {
      const { delivery, member } = yield* oneLeased(server)
      yield* member.bury([{ delivery, failure: { reason: "term", message: "no" } }])
      const { letters: [letter] } = yield* DeadLetters.list()
      const broker = yield* Broker.Broker
      assert.lengthOf(
        (yield* broker.letters.offer(0, { name: "n", limit: 1, leaseMillis: 1, start: "earliest" })).offers,
        1
      )
      yield* server.command("del", keys.offers("n"))
      yield* server.command("hset", keys.offered("n"), "1-0", "1\n")
      const found = yield* verify
      assert.sameDeepMembers(
        brief(found),
        [letter!.letterId, "0:1-0"].map((id) => it1("LostOffer", keys.offered("n"), { id }))
      )
      assert.lengthOf((yield* Inspector.repair(options)).repaired, 2)
      assert.deepStrictEqual(yield* verify, [])
      assert.lengthOf(
        (yield* broker.letters.offer(0, { name: "n", limit: 5, leaseMillis: 1, start: "earliest" })).offers,
        1
      )
    }))

  broken("counts that are wrong", (server) =>
    Effect.gen(function*() {
      const { delivery, member } = yield* oneLeased(server)
      yield* member.bury([{ delivery, failure: { reason: "term", message: "no" } }])
      const field = "d\ng\ntexts\nterm"
      yield* server.command("hset", keys.counts, field, 5)
      assert.deepInclude(brief(yield* verify), it1("LetterCount", keys.counts, { ...about, id: field }))
      yield* Inspector.repair(options)
      assert.strictEqual(yield* DeadLetters.count(), 1)
      assert.deepStrictEqual(yield* verify, [])
      yield* server.command("hset", keys.counts, "a\ng\ntexts", -3)
      yield* reports(/acked is -3/, it1("Miscounted", keys.counts, about))
      yield* server.command("hdel", keys.counts, "a\ng\ntexts")
      yield* DeadLetters.requeue((yield* DeadLetters.list()).letters[0]!.letterId)
      yield* member.ack(yield* take(member, 1))
      yield* server.command("hset", keys.counts, "z\ng\ntexts", 0)
      const { repaired } = yield* Inspector.repair(options)
      assert.deepStrictEqual(brief(repaired), [it1("Miscounted", keys.counts, { ...about, id: "z\ng\ntexts" })])
      assert.deepStrictEqual(yield* verify, [])
    }))
})

describe("Inspector.verify", () => {
  broken("goes on whatever lies under the keys, and ends at its limit", (server) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "a")
      const kinds = Object.values(keys).filter((key) => typeof key === "string" && !/:(events|broadcasts)$/.test(key))
      const names = [
        ...kinds,
        log,
        retry,
        bodies,
        keys.retries("g"),
        keys.floors("g"),
        keys.members("g"),
        keys.once("g"),
        keys.offers("n"),
        keys.offered("n"),
        keys.bodies("%", "\u0000"),
        keys.log("__proto__"),
        "{rotif:0}:",
        "{rotif:0}:log",
        "{rotif:0}:log:%zz",
        "{rotif:0}:log:a:b",
        "{rotif:0}x",
        "{rotif:0",
        "{rotif:-1}:meta",
        "{rotif:99999}:meta"
      ]
      const writes: ReadonlyArray<(key: string) => ReadonlyArray<string | number>> = [
        (key) => ["set", key, "\u0000{"],
        (key) => ["hset", key, "__proto__", "{\n\n", "a\nb", "1", "", "", "constructor", "[]"],
        (key) => ["zadd", key, "-inf", "a", "+inf", "\n\n", 1, "g\ntexts\n1-0", 2, "\ntexts\nx", 3, "x\n"],
        (key) => ["xadd", key, "1-1", "", "", "b", "{}\n]", "k", "x"],
        (key) => ["sadd", key, "", "__proto__", "\u0000"],
        (key) => ["rpush", key, "x"]
      ]
      for (const write of writes) {
        yield* server.command("flushall")
        for (const key of names) {
          const [command, ...args] = write(key as string)
          yield* server.command(command as string, ...args)
        }
        const found = yield* verify
        assert.isNotEmpty(found)
        for (const finding of found) Schema.decodeUnknownSync(Inspector.Finding)(finding)
        yield* Inspector.repair(options)
        const left = yield* verify
        assert.deepStrictEqual(left.filter(({ repair }) => repair !== undefined), [])
      }
      const { findings, isComplete } = yield* Inspector.verify({ ...options, limit: 2 })
      assert.deepStrictEqual([findings.length, isComplete], [2, false])
    }))

  broken(
    "repairs beyond the limit of its list; and says when more is left",
    (server) =>
      Effect.gen(function*() {
        for (let i = 0; i < 5; i++) yield* server.command("set", `{rotif:0}:strange${i}`, "x")
        const names = Array.from({ length: 30 }, (_, i) => [Date.now() + long, `strange${i}`]).flat()
        yield* server.command("zadd", keys.waiting, ...names)
        const { isComplete, left, repaired } = yield* Inspector.repair({ ...options, limit: 2 })
        assert.isAtLeast(repaired.length, 30)
        assert.deepStrictEqual([left.length, isComplete], [2, false])
        assert.strictEqual(yield* server.command("exists", keys.waiting), 0)
        assert.lengthOf((yield* Inspector.repair(options)).left, 5)
      })
  )

  broken("finds all that needs no list of keys without the right to list them", (server) =>
    Effect.gen(function*() {
      const { position, waits } = yield* oneWaiting(server)
      yield* server.command("zrem", keys.waiting, waits)
      yield* server.command("set", "{rotif:0}:strange", "x")
      yield* server.command("acl", "setuser", "default", "-scan")
      const { findings, isComplete, listsKeys } = yield* Inspector.verify(options)
      assert.deepStrictEqual([isComplete, listsKeys], [true, false])
      assert.deepStrictEqual(brief(findings), [it1("BodyWithoutTime", bodies, { ...about, id: position })])
      assert.lengthOf((yield* Inspector.repair(options)).repaired, 1)
      yield* handles("a")
    }))

  broken("goes through very many in pages", () =>
    Effect.gen(function*() {
      yield* Publisher.publishAll(Text, Array.from({ length: 2_500 }, (_, i) => `${i}`), () => ({ delay: "1 hour" }))
      const member = yield* join()
      yield* Publisher.publishAll(Text, Array.from({ length: 1_200 }, String))
      const taken = yield* take(member, 1_200)
      yield* member.redeliver(taken.slice(0, 700).map((delivery) => ({ delivery, delayMillis: 0, attempt: 2 })))
      yield* member.bury(
        taken.slice(700, 1_000).map((delivery) => ({ delivery, failure: { reason: "term", message: "" } }))
      )
      const report = yield* Inspector.verify(options)
      assert.deepStrictEqual(report.findings, [])
      assert.deepInclude(report.looked, { pending: 200, ready: 700, waiting: 2_500, bodies: 2_500, letters: 300 })
    }))

  it.live("looks at every shard of a Cluster, at each key once", () =>
    Effect.gen(function*() {
      const prefix = freshPrefix()
      const cluster = inject("clusterPorts").map((port) => ({ host: "127.0.0.1", port }))
      yield* Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const send = (...[name, key, ...args]: readonly [string, string, ...ReadonlyArray<string>]) =>
          redis.connection(key).send([name, key, ...args], { idempotent: true })
        const shards = Array.from({ length: 8 }, (_, shard) => Keys.make(prefix, shard))
        const channel = (i: number) => Channel.make(`c${i}`, { payload: Schema.String })
        for (let i = 0; i < 20; i++) yield* Publisher.publish(channel(i), "x", { id: "1", delay: "1 hour" })
        const { findings, looked } = yield* Inspector.verify(options)
        assert.deepStrictEqual(findings, [])
        assert.deepInclude(looked, { channels: 20, waiting: 20, bodies: 20 })
        // Of each channel its log, its bodies, the window and what its publish was told; of each shard at least three, at most
        // six, and of the first one who ends the retention of dead letters.
        assert.isAtLeast(looked.keys, 80 + 3)
        assert.isAtMost(looked.keys, 80 + 8 * 6 + 1)
        for (const { waiting } of shards) yield* send("del", waiting)
        for (const { shard } of shards) yield* send("set", `{${prefix}:${shard}}:strange`, "x")
        const broken = (yield* Inspector.verify(options)).findings
        assert.strictEqual(broken.filter(({ kind }) => kind === "BodyWithoutTime").length, 20)
        assert.strictEqual(broken.filter(({ kind }) => kind === "UnknownKey").length, 8)
        const { left, repaired } = yield* Inspector.repair(options)
        assert.deepStrictEqual([repaired.length, left.length], [20, 8])
        const { seen } = yield* listen(Channel.pattern("*", { payload: Schema.String }), { group: "g" })
        assert.lengthOf(yield* Queue.takeN(seen, 20), 20)
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ cluster, prefix, shards: 8 })))
    }), 30_000)
})
