/** Shared by the tests of the inspector: they damage a namespace on a real server, and check the findings and the repairs. */
import { assert, it } from "@effect/vitest"
import { Effect, Queue, Schema, type Scope } from "effect"
import { Broker, Channel, Inspector, Publisher, Rotif } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { listen, liveBackend } from "./kit.ts"

export const Text = Channel.make("texts", { payload: Schema.String })
export const keys = Keys.make("rotif", 0)
export const log = keys.log("texts")
export const retry = keys.retry("g", "texts")
export const bodies = keys.bodies("g", "texts")
const backend = liveBackend("Redis", () => Rotif.layerMemory)
const { soon } = backend
export const long = 3_600_000

/** Declares a test on a server of its own, where no background duty repairs anything. */
export const broken = (
  name: string,
  body: (server: RedisServer.RedisServer) => Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope>,
  shards?: number
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const layer = Rotif.layer({ url: server.url, delayed: false, trimInterval: "1 hour", shards })
      yield* body(server).pipe(Effect.scoped, Effect.provide(layer))
    }), 30_000)

export const options = { confirmAfter: 10, tolerance: "1 minute" } as const
export const verify = Effect.map(Inspector.verify(options), ({ findings }) => findings)

/** The findings without their messages, which have a test of their own. */
export const brief = (findings: ReadonlyArray<Inspector.Finding>) =>
  findings.map(({ channel, group, id, key, kind }) => ({ kind, key, group, channel, id }))

export const it1 = (
  kind: Inspector.Kind,
  key: string,
  about: { readonly group?: string; readonly channel?: string; readonly id?: string } = {}
) => ({ kind, key, group: undefined, channel: undefined, id: undefined, ...about })

export const about = { group: "g", channel: "texts" }

/** Expects exactly these findings, repairs them, and expects none afterwards. */
export const mends = Effect.fnUntraced(function*(...expected: ReadonlyArray<ReturnType<typeof it1>>) {
  const before = yield* verify
  assert.deepStrictEqual(brief(before), expected)
  for (const finding of before) assert.isString(finding.repair)
  // `verify` has changed nothing.
  assert.deepStrictEqual(brief(yield* verify), expected)
  const { left, repaired } = yield* Inspector.repair(options)
  assert.deepStrictEqual([brief(repaired), left], [expected, []])
  assert.deepStrictEqual(yield* verify, [])
  assert.deepInclude(yield* Inspector.repair(options), { repaired: [], left: [] })
})

/** Expects exactly these findings, with this message; a repair leaves them. */
export const reports = Effect.fnUntraced(function*(words: RegExp, ...expected: ReadonlyArray<ReturnType<typeof it1>>) {
  const before = yield* verify
  assert.deepStrictEqual(brief(before), expected)
  for (const finding of before) {
    assert.match(finding.message, words)
    assert.isUndefined(finding.repair)
  }
  const { left, repaired } = yield* Inspector.repair(options)
  assert.deepStrictEqual([repaired, brief(left)], [[], expected])
  assert.deepStrictEqual(brief(yield* verify), expected)
})

export const join = (leaseMillis = 60_000) =>
  Effect.flatMap(Broker.Broker, (broker) =>
    broker.join({
      shard: 0,
      group: "g",
      consumer: "me",
      selector: Channel.selector(Text),
      start: { _tag: "Earliest" },
      leaseMillis
    }))

export const take = Effect.fnUntraced(function*(member: Broker.Member, count: number) {
  const out: Array<Broker.Delivery> = []
  while (out.length < count) out.push(...yield* soon(member.read(count - out.length, 1_000)))
  return out
})

/** Expects a new subscription to handle exactly these payloads. */
export const handles = Effect.fnUntraced(function*(...payloads: ReadonlyArray<string>) {
  const broker = yield* Broker.Broker
  yield* broker.promote(0, 100)
  const { seen, subscription } = yield* listen(Text, { group: "g" })
  assert.sameMembers((yield* soon(Queue.takeN(seen, payloads.length))).map(({ payload }) => payload), [...payloads])
  yield* soon(subscription.drain)
  assert.strictEqual(yield* Queue.size(seen), 0)
})

/** Makes a group that holds one delivery, and gives its position in the log. */
export const oneLeased = Effect.fnUntraced(function*(server: RedisServer.RedisServer) {
  const member = yield* join()
  yield* Publisher.publish(Text, "a")
  const [delivery] = yield* take(member, 1)
  const [[position]] = (yield* server.command("xrange", log, "-", "+")) as [[string]]
  return { member, delivery: delivery!, position }
})

/** Makes a group with one message whose retry is due in an hour. */
export const oneWaiting = Effect.fnUntraced(function*(server: RedisServer.RedisServer) {
  const leased = yield* oneLeased(server)
  yield* leased.member.redeliver([{ delivery: leased.delivery, delayMillis: long, attempt: 2 }])
  return { ...leased, waits: Keys.waitingMember("g", "texts", leased.position) }
})
