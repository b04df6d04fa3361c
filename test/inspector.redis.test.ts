/** Every invariant broken by hand in a real server: found with the right words, mended where that loses nothing, and handled in the end. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema, type Scope } from "effect"
import { Broker, Channel, DeadLetters, Inspector, Publisher, Rotif, Scheduler, Stats } from "rotif"
import * as Keys from "../src/internal/keys.ts"
import * as RedisServer from "./fixtures/RedisServer.ts"
import { listen, liveBackend } from "./suite/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const keys = Keys.make("rotif", 0)
const log = keys.log("texts")
const retry = keys.retry("g", "texts")
const bodies = keys.bodies("g", "texts")
const backend = liveBackend("Redis", () => Rotif.layerMemory)
const { soon } = backend
const long = 3_600_000

/** A server with a namespace in it; nothing heals by itself. */
const broken = (
  name: string,
  body: (server: RedisServer.RedisServer) => Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope>
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const layer = Rotif.layer({ url: server.url, delayed: false, trimInterval: "1 hour" })
      yield* body(server).pipe(Effect.scoped, Effect.provide(layer))
    }), 30_000)

const options = { confirmAfter: 10, tolerance: "1 minute" } as const
const verify = Effect.map(Inspector.verify(options), ({ findings }) => findings)

/** What was found, without its words; these are looked at in one place. */
const brief = (findings: ReadonlyArray<Inspector.Finding>) =>
  findings.map(({ channel, group, id, key, kind }) => ({ kind, key, group, channel, id }))

const it1 = (
  kind: Inspector.Kind,
  key: string,
  about: { readonly group?: string; readonly channel?: string; readonly id?: string } = {}
) => ({ kind, key, group: undefined, channel: undefined, id: undefined, ...about })

const about = { group: "g", channel: "texts" }

/** Exactly this is found; it is mended, and nothing is found any more. */
const mends = Effect.fnUntraced(function*(...expected: ReadonlyArray<ReturnType<typeof it1>>) {
  const before = yield* verify
  assert.deepStrictEqual(brief(before), expected)
  for (const finding of before) assert.isString(finding.repair)
  // Looking has changed nothing.
  assert.deepStrictEqual(brief(yield* verify), expected)
  const { left, mended } = yield* Inspector.repair(options)
  assert.deepStrictEqual([brief(mended), left], [expected, []])
  assert.deepStrictEqual(yield* verify, [])
  assert.deepInclude(yield* Inspector.repair(options), { mended: [], left: [] })
})

/** Exactly this is found, with these words, and it stays. */
const reports = Effect.fnUntraced(function*(words: RegExp, ...expected: ReadonlyArray<ReturnType<typeof it1>>) {
  const before = yield* verify
  assert.deepStrictEqual(brief(before), expected)
  for (const finding of before) {
    assert.match(finding.message, words)
    assert.isUndefined(finding.repair)
  }
  const { left, mended } = yield* Inspector.repair(options)
  assert.deepStrictEqual([mended, brief(left)], [[], expected])
  assert.deepStrictEqual(brief(yield* verify), expected)
})

const join = (leaseMillis = 60_000) =>
  Effect.flatMap(Broker.Broker, (broker) =>
    broker.join({
      shard: 0,
      group: "g",
      consumer: "me",
      selector: Channel.selector(Text),
      start: { _tag: "Earliest" },
      leaseMillis
    }))

const take = Effect.fnUntraced(function*(member: Broker.Member, count: number) {
  const out: Array<Broker.Delivery> = []
  while (out.length < count) out.push(...yield* soon(member.read(count - out.length, 1_000)))
  return out
})

/** These payloads, and no others, are handled by a new subscription. */
const handles = Effect.fnUntraced(function*(...payloads: ReadonlyArray<string>) {
  const broker = yield* Broker.Broker
  yield* broker.promote(0, 100)
  const { seen, subscription } = yield* listen(Text, { group: "g" })
  assert.sameMembers((yield* soon(Queue.takeN(seen, payloads.length))).map(({ payload }) => payload), [...payloads])
  yield* soon(subscription.drain)
  assert.strictEqual(yield* Queue.size(seen), 0)
})

/** A group with one delivery at hand, and its position in the log. */
const oneLeased = Effect.fnUntraced(function*(server: RedisServer.RedisServer) {
  const member = yield* join()
  yield* Publisher.publish(Text, "a")
  const [delivery] = yield* take(member, 1)
  const [[position]] = (yield* server.command("xrange", log, "-", "+")) as [[string]]
  return { member, delivery: delivery!, position }
})

/** A group with one message that waits for its retry for an hour. */
const oneWaiting = Effect.fnUntraced(function*(server: RedisServer.RedisServer) {
  const leased = yield* oneLeased(server)
  yield* leased.member.requeue([{ delivery: leased.delivery, delayMillis: long, attempt: 2 }])
  return { ...leased, waits: Keys.waitingMember("g", "texts", leased.position) }
})

describe("Inspector: keys", () => {
  broken("one that is none of Rotif's, and one of a shard that is not there", (server) =>
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

  broken("one of a wrong type", (server) =>
    Effect.gen(function*() {
      yield* server.command("set", keys.waiting, "x")
      yield* server.command("set", keys.dead, "x")
      yield* server.command("hset", keys.channels, "texts", "")
      yield* server.command("set", log, "x")
      const found = yield* verify
      assert.sameDeepMembers(brief(found), [keys.waiting, keys.dead, log].map((key) => it1("WrongType", key)))
      assert.isTrue(found.every(({ message, repair }) => message.includes("must be a ") && repair === undefined))
      assert.deepStrictEqual((yield* Inspector.repair(options)).mended, [])
    }))

  broken("a window and a turn that never end", (server) =>
    Effect.gen(function*() {
      const window = keys.seen("texts", "i1")
      yield* Publisher.publish(Text, "a", { id: "1" })
      yield* server.command("persist", window)
      yield* server.command("set", keys.janitor, "somebody")
      const found = yield* verify
      assert.sameDeepMembers(brief(found), [it1("NoExpiry", window), it1("NoExpiry", keys.janitor)])
      assert.lengthOf((yield* Inspector.repair(options)).mended, 2)
      assert.deepStrictEqual(yield* verify, [])
      assert.isAbove(Number(yield* server.command("pttl", window)), 0)
      assert.strictEqual(yield* server.command("exists", keys.janitor), 0)
    }))

  broken("a record of a group that is gone, but not of one that has something", (server) =>
    Effect.gen(function*() {
      yield* server.command("zadd", keys.members("gone"), 1, "me")
      yield* server.command("hset", keys.marks("gone"), "texts\nk", "")
      const found = yield* verify
      assert.sameDeepMembers(
        brief(found),
        [keys.members("gone"), keys.marks("gone")].map((key) => it1("OrphanRecord", key, { group: "gone" }))
      )
      yield* server.command("hset", keys.floors("gone"), "texts", "1-0")
      const { left, mended } = yield* Inspector.repair(options)
      assert.deepStrictEqual(mended, [])
      assert.deepStrictEqual(brief(left), [it1("UnregisteredGroup", keys.floors("gone"), { group: "gone" })])
      yield* server.command("del", keys.floors("gone"))
      assert.lengthOf((yield* Inspector.repair(options)).mended, 2)
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

  broken("a retry stream that its group does not know of", (server) =>
    Effect.gen(function*() {
      const { delivery, member } = yield* oneLeased(server)
      yield* member.requeue([{ delivery, delayMillis: 0, attempt: 2 }])
      yield* server.command("del", keys.retries("g"))
      yield* mends(it1("UnlistedRetries", retry, about))
      yield* handles("a")
    }))

  broken("a group that nobody has registered", (server) =>
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

  broken("a floor beyond what was acknowledged", (server) =>
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

describe("Inspector: messages", () => {
  broken("a name that waits and has no body", (server) =>
    Effect.gen(function*() {
      const { waits } = yield* oneWaiting(server)
      const id = waits.slice("g\ntexts\n".length)
      yield* server.command("hdel", bodies, id)
      assert.deepInclude(brief(yield* verify), it1("TimeWithoutBody", keys.waiting, { ...about, id }))
      const { left, mended } = yield* Inspector.repair(options)
      assert.deepStrictEqual(brief(mended), [it1("TimeWithoutBody", keys.waiting, { ...about, id })])
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
      assert.lengthOf((yield* Inspector.repair(options)).mended, 2)
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

  broken("what was due and nobody has moved", (server) =>
    Effect.gen(function*() {
      const { position, waits } = yield* oneWaiting(server)
      yield* server.command("zadd", keys.waiting, Date.now() - 100_000, waits)
      yield* mends(it1("Overdue", keys.waiting, { ...about, id: position }))
      yield* handles("a")
    }))

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
      const { left, mended } = yield* Inspector.repair(options)
      assert.deepStrictEqual(brief(mended), [it1("GhostDelivery", log, { ...about, id: second })])
      // Two messages were removed behind the back of the group: that is told, and cannot be mended.
      assert.deepStrictEqual(brief(left), [it1("LostMessages", keys.counts, about)])
      assert.match(left[0]!.message, /^2 messages were removed/)
      assert.deepStrictEqual(yield* server.command("xpending", log, "g"), [0, null, null, null])
    }))

  broken(
    "a delivery in the retry stream whose message is gone; the account is right again",
    (server) =>
      Effect.gen(function*() {
        const { delivery, member } = yield* oneLeased(server)
        yield* member.requeue([{ delivery, delayMillis: 0, attempt: 2 }])
        yield* take(member, 1)
        const [[again]] = (yield* server.command("xrange", retry, "-", "+")) as [[string]]
        yield* server.command("xclaim", retry, "g", "me", 0, again, "IDLE", 100_000, "JUSTID")
        yield* server.command("xdel", retry, again)
        const { left, mended } = yield* Inspector.repair(options)
        assert.deepStrictEqual(brief(mended), [it1("GhostDelivery", retry, { ...about, id: again })])
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
      const { mended } = yield* Inspector.repair(options)
      assert.lengthOf(mended, 1)
      assert.deepStrictEqual(yield* verify, [])
      assert.strictEqual(yield* server.command("hlen", bodies), 0)
      yield* server.command("xclaim", log, "g", "lost", 0, position, "IDLE", 100_000, "JUSTID")
      yield* handles("a")
    }))

  broken("waiting and ready again", (server) =>
    Effect.gen(function*() {
      const { delivery, member, position } = yield* oneLeased(server)
      yield* member.requeue([{ delivery, delayMillis: 0, attempt: 2 }])
      yield* server.command("hset", bodies, position, "{\"i\":\"1\"}\n\"a\"")
      yield* server.command("zadd", keys.waiting, Date.now() + long, Keys.waitingMember("g", "texts", position))
      assert.deepInclude(brief(yield* verify), it1("TwoStates", retry, { ...about, id: position }))
      assert.lengthOf((yield* Inspector.repair(options)).mended, 1)
      assert.deepStrictEqual(yield* verify, [])
      yield* handles("a")
    }))

  broken("ready again and in the log", (server) =>
    Effect.gen(function*() {
      const { delivery, member, position } = yield* oneLeased(server)
      yield* member.requeue([{ delivery, delayMillis: 0, attempt: 2 }])
      // The group is set back: its message is handed out again in the log.
      yield* server.command("xgroup", "SETID", log, "g", "0")
      yield* server.command("xreadgroup", "GROUP", "g", "lost", "STREAMS", log, ">")
      yield* server.command("xclaim", log, "g", "lost", 0, position, "IDLE", 100_000, "JUSTID")
      assert.deepInclude(brief(yield* verify), it1("TwoStates", retry, { ...about, id: position }))
      assert.lengthOf((yield* Inspector.repair(options)).mended, 1)
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

  broken("messages of transactions that nobody has brought to their shards", (server) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "a")
      yield* server.command("xadd", keys.outbox, "1-0", "m", "{\"id\":\"b\",\"channel\":\"texts\"}", "p", "\"b\"")
      yield* mends(it1("Unrelayed", keys.outbox, { id: "1-0" }))
      yield* handles("a", "b")
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
      assert.lengthOf((yield* Inspector.repair(options)).mended, 2)
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
      const { mended } = yield* Inspector.repair(options)
      assert.deepStrictEqual(brief(mended), [it1("Miscounted", keys.counts, { ...about, id: "z\ng\ntexts" })])
      assert.deepStrictEqual(yield* verify, [])
    }))
})

describe("Inspector.verify", () => {
  broken("goes on whatever lies under the keys, and ends at its limit", (server) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "a")
      const kinds = Object.values(keys).filter((key) => typeof key === "string" && !/:(events|casts)$/.test(key))
      const names = [
        ...kinds,
        log,
        retry,
        bodies,
        keys.retries("g"),
        keys.floors("g"),
        keys.members("g"),
        keys.marks("g"),
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
        (key) => ["xadd", key, "1-1", "", "", "m", "{}", "k", "x", "p", "]"],
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

  broken("finds what is not a question of keys without the right to list them", (server) =>
    Effect.gen(function*() {
      const { position, waits } = yield* oneWaiting(server)
      yield* server.command("zrem", keys.waiting, waits)
      yield* server.command("set", "{rotif:0}:strange", "x")
      yield* server.command("acl", "setuser", "default", "-scan")
      const { findings, isComplete, listsKeys } = yield* Inspector.verify(options)
      assert.deepStrictEqual([isComplete, listsKeys], [true, false])
      assert.deepStrictEqual(brief(findings), [it1("BodyWithoutTime", bodies, { ...about, id: position })])
      assert.lengthOf((yield* Inspector.repair(options)).mended, 1)
      yield* handles("a")
    }))

  broken("goes through very many in pages", () =>
    Effect.gen(function*() {
      yield* Publisher.publishAll(Text, Array.from({ length: 2_500 }, (_, i) => `${i}`), () => ({ delay: "1 hour" }))
      const member = yield* join()
      yield* Publisher.publishAll(Text, Array.from({ length: 1_200 }, String))
      const taken = yield* take(member, 1_200)
      yield* member.requeue(taken.slice(0, 700).map((delivery) => ({ delivery, delayMillis: 0, attempt: 2 })))
      yield* member.bury(
        taken.slice(700, 1_000).map((delivery) => ({ delivery, failure: { reason: "term", message: "" } }))
      )
      const report = yield* Inspector.verify(options)
      assert.deepStrictEqual(report.findings, [])
      assert.deepInclude(report.looked, { pending: 200, ready: 700, waiting: 2_500, bodies: 2_500, letters: 300 })
    }))
})
