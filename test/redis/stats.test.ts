/** Statistics on Redis: they add up to the message through crashes and lost answers, and are quiet where they may not look. */
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Exit, Layer, Queue, References, Schema, Scope as Scopes } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { Broker, Channel, DeadLetters, Inspector, Publisher, Rotif, Stats, Subscription } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"
import { listen, liveBackend } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Jobs = Channel.make("jobs", { payload: Schema.Int })
const { soon } = liveBackend("Redis", () => Layer.empty as never)

const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  soon(Effect.repeat(Effect.delay(check, 20), { until: (done) => done }))

const quiet = Effect.provideService(References.MinimumLogLevel, "None")

/** A group whose every message is accounted for: nothing is left over that only a limit could have taken. */
const account = (source: Channel.Source, group: string) =>
  Effect.map(Stats.channels(source), (channels) => {
    const found = Stats.ofGroup(channels, group)!
    const { dead, due, lag, pending, published, ready, removed, skipped, totals } = found
    const text = JSON.stringify(found)
    assert.strictEqual(published, skipped! + totals.acked + pending + ready + due + dead + removed + lag!, text)
    assert.strictEqual(found.lost, 0, text)
    return found
  })

/** Counts at one time, message by message, what is stored: {published, unread, pending, ready, due, acked, removed, skipped, dead}. */
const recount = `
local log, retry, bodies, counts, dead = unpack(KEYS)
local group, channel = unpack(ARGV)
local function open(stream)
  if redis.call('EXISTS', stream) == 0 then return 0, 0 end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == group then
      local unread = redis.call('XRANGE', stream, '(' .. info[8], '+')
      return #unread, #redis.call('XPENDING', stream, group, '-', '+', 100000)
    end
  end
  return #redis.call('XRANGE', stream, '-', '+'), 0
end
local function total(kind) return tonumber(redis.call('HGET', counts, kind .. '\\n' .. group .. '\\n' .. channel)) or 0 end
local unread, pending = open(log)
local ready, held = open(retry)
local buried = 0
for _, entry in ipairs(redis.call('XRANGE', dead, '-', '+')) do
  if string.sub(entry[2][2], 1, #group + 1) == group .. '\\n' then buried = buried + 1 end
end
return {redis.call('XINFO', 'STREAM', log)[12], unread, pending + held, ready, #redis.call('HKEYS', bodies),
  total('a'), total('x'), total('s'), buried}
`

describe("a soak with failures, crashes and restarts", () => {
  const prefix = "soak"
  const keys = Keys.make(prefix, 0)

  const start = (url: string, group: string) =>
    Effect.acquireRelease(
      Effect.sync(() =>
        spawn(
          process.execPath,
          ["--conditions=rotif-source", join(import.meta.dirname, "../processes/accounting.ts")],
          {
            env: { ...process.env, REDIS_URL: url, PREFIX: prefix, GROUP: group },
            stdio: ["ignore", "ignore", "inherit"]
          }
        )
      ),
      kill
    )
  const kill = (child: ChildProcess) =>
    Effect.callback<void>((resume) => {
      if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
      child.once("exit", () => resume(Effect.void))
      child.kill("SIGKILL")
    })

  /** How long processes take is not what is shown here, and a busy machine takes longer: only the time of the whole test bounds a wait. */
  const inTime = <E, R>(check: Effect.Effect<boolean, E, R>) =>
    Effect.repeat(Effect.delay(check, 50), { until: (done) => done })

  it.live(
    "published = acked + pending + ready + due + dead + lag, per group, to the message",
    () =>
      Effect.gen(function*() {
        const server = yield* RedisServer.make({ appendonly: "yes" })
        const layer = Rotif.layer({ url: server.url, prefix, drainTimeout: "1 second" })
        yield* Effect.gen(function*() {
          const broker = yield* Broker.Broker
          const groups: Array<string> = ["plain", "once"]
          let published = 0
          const publish = Effect.fnUntraced(function*(count: number) {
            const from = published
            published += count
            yield* Publisher.publishAll(Jobs, Array.from({ length: count }, (_, i) => from + i + 1))
          })
          const workers = new Map<string, { readonly group: string; readonly scope: Scope.Closeable }>()
          const begin = Effect.fnUntraced(function*(name: string, group: string) {
            const scope = yield* Scopes.fork(yield* Effect.scope)
            yield* Scopes.provide(start(server.url, group), scope)
            workers.set(name, { group, scope })
          })
          // Every group is there before it is looked at.
          for (const group of groups) {
            yield* Effect.scoped(Subscription.make(Jobs, { group, handler: () => Effect.never }))
          }
          yield* publish(500)
          for (const [i, group] of ["plain", "once", "plain", "once"].entries()) yield* begin(`w${i}`, group)
          const all = Effect.forEach(groups, (group) =>
            Effect.gen(function*() {
              const names = [
                keys.log("jobs"),
                keys.retry(group, "jobs"),
                keys.bodies(group, "jobs"),
                keys.counts,
                keys.dead
              ]
              const counted = yield* server.command("eval", recount, names.length, ...names, group, "jobs")
              const [stored, ...parts] = counted as ReadonlyArray<number>
              assert.strictEqual(parts.reduce((sum, part) => sum + part, 0), stored, `${group}: ${String(counted)}`)
              return yield* account(Jobs, group)
            }))
          const removals = new Map<string, number>()
          for (let round = 0; round < 8; round++) {
            yield* publish(200)
            // In the midst of it, however often it is looked at.
            const [before] = yield* all
            yield* inTime(Effect.map(all, ([now]) => now!.totals.acked > before!.totals.acked + 60))
            const [name, { group, scope }] = [...workers][round % workers.size]!
            yield* Scopes.close(scope, Exit.void)
            yield* all
            if (round === 2) {
              // A group that begins in the middle of it all.
              yield* Effect.scoped(
                Subscription.make(Jobs, { group: "late", startFrom: "latest", handler: () => Effect.never })
              )
              groups.push("late")
              yield* begin("late", "late")
            }
            if (round === 3 || round === 6) {
              yield* server.restart
              yield* inTime(Effect.isSuccess(broker.ping))
            }
            yield* begin(name, group)
            const { letters } = yield* DeadLetters.list({}, { order: "oldest", limit: 10 })
            for (const [i, letter] of letters.entries()) {
              if (i % 2 === 0) yield* DeadLetters.requeue(letter.letterId)
              else if (yield* DeadLetters.remove(letter.letterId)) {
                removals.set(letter.group, (removals.get(letter.group) ?? 0) + 1)
              }
            }
            yield* all
            assert.deepStrictEqual((yield* Inspector.verify({ confirmAfter: "200 millis" })).findings, [])
          }
          const isDone = ({ due, lag, pending, ready }: Stats.GroupSum) => lag === 0 && pending + ready + due === 0
          yield* inTime(Effect.map(all, (found) => found.every(isDone)))
          const hopeless = (from: number) =>
            Array.from({ length: published - from }, (_, i) => from + i + 1).filter((n) => n % 17 === 0 || n % 11 === 0)
              .length
          for (const found of yield* all) {
            assert.strictEqual(found.published, published)
            assert.strictEqual(found.dead, yield* DeadLetters.count({ group: found.group }))
            assert.strictEqual(found.removed, removals.get(found.group) ?? 0)
            // What can succeed has succeeded, and what cannot is dead, for every group by itself.
            assert.strictEqual(found.dead + found.removed, hopeless(found.skipped!))
            assert.strictEqual(found.totals.acked, published - found.skipped! - hopeless(found.skipped!))
            assert.isAtLeast(found.totals.dead, found.dead + found.removed)
            assert.isAtLeast(found.totals.failed, found.totals.retried)
          }
          const [plain, once, late] = yield* all
          assert.strictEqual(plain!.skipped, 0)
          assert.isAbove(late!.skipped!, 0)
          assert.isAbove(plain!.totals.crashed + once!.totals.crashed, 0)
        }).pipe(Effect.scoped, Effect.provide(layer))
      }).pipe(quiet, Effect.scoped),
    300_000
  )
})

/** A test with a server of its own, behind a proxy. */
const faulty = (
  name: string,
  body: (
    server: RedisServer.RedisServer,
    proxy: TcpProxy.TcpProxy
  ) => Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope>
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const layer = Rotif.layer({ url: proxy.url, prefix: "s", commandTimeout: 500, connectTimeout: 300 })
      yield* body(server, proxy).pipe(Effect.scoped, Effect.provide(layer))
    }).pipe(quiet), 60_000)

describe("counting of acknowledgements", () => {
  for (const size of [3, 50]) {
    for (const [what, word] of [["the acknowledgement", "xack"], ["its answer", size < 8 ? "evalsha" : "exec"]]) {
      faulty(
        `is counted once when the answer to ${size} of them is lost (${what})`,
        (_, proxy) =>
          Effect.gen(function*() {
            const broker = yield* Broker.Broker
            const member = yield* broker.join({
              shard: 0,
              group: "g",
              consumer: "me",
              selector: Channel.selector(Text),
              start: { _tag: "Earliest" },
              leaseMillis: 60_000
            })
            yield* Publisher.publishAll(Text, Array.from({ length: size * 2 }, String))
            const read = Effect.gen(function*() {
              const out: Array<Broker.Delivery> = []
              while (out.length < size) out.push(...yield* member.read(size - out.length, 1_000))
              return out
            })
            const taken = yield* read
            yield* member.ack(taken)
            const rest = yield* read
            assert.lengthOf(rest, size)
            const dropped = yield* proxy.dropReplyOnce((request) =>
              request.includes(word!) || request.includes("evalsha")
            )
            const outcome = yield* Effect.result(member.ack(rest))
            yield* soon(dropped)
            assert.strictEqual(outcome._tag, "Failure")
            assert.deepStrictEqual(yield* Effect.retry(member.ack(rest), { times: 10 }), [])
            assert.strictEqual((yield* account(Text, "g")).totals.acked, size * 2)
          })
      )
    }
  }

  faulty("is counted by a server that is out of memory, few or many", (server) =>
    Effect.gen(function*() {
      const { seen, subscription } = yield* listen(Text, { group: "g", concurrency: 100, ackMode: "manual" })
      yield* Publisher.publishAll(Text, Array.from({ length: 60 }, String))
      const messages = yield* soon(Queue.takeN(seen, 60))
      yield* server.command("config", "set", "maxmemory", "1mb")
      yield* Effect.forEach(messages.slice(0, 50), (message) => message.ack, { concurrency: "unbounded" })
      yield* Effect.forEach(messages.slice(50), (message) => message.ack)
      assert.strictEqual((yield* account(Text, "g")).totals.acked, 60)
      yield* server.command("config", "set", "maxmemory", 0)
      yield* soon(subscription.drain)
    }))

  faulty("counts nothing for a group that was removed meanwhile", (server) =>
    Effect.gen(function*() {
      const { seen, subscription } = yield* listen(Text, { group: "g", concurrency: 100, ackMode: "manual" })
      yield* Publisher.publishAll(Text, Array.from({ length: 20 }, String))
      const messages = yield* soon(Queue.takeN(seen, 20))
      const broker = yield* Broker.Broker
      yield* broker.removeGroup("g", Channel.selector(Text))
      const late = yield* Effect.forEach(messages, (message) => Effect.exit(message.ack), { concurrency: "unbounded" })
      assert.isTrue(late.every(Exit.isFailure))
      assert.isNull(yield* server.command("hget", "{s:0}:counts", "a\ng\ntexts"))
      yield* soon(subscription.drain)
      // Who subscribes again has what the group had not settled when it was removed.
      const again = yield* listen(Text, { group: "g", concurrency: 100, ackMode: "manual" })
      const more = yield* soon(Queue.takeN(again.seen, 20))
      yield* Effect.forEach(more, (message) => message.ack, { concurrency: "unbounded" })
      assert.strictEqual((yield* account(Text, "g")).totals.acked, 20)
    }))
})

describe("statistics that are not available", () => {
  it.live("the size of a channel is left out where MEMORY is not permitted, and nothing is said", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      yield* server.command("acl", "setuser", "small", "on", ">x", "~*", "&*", "+@all", "-memory")
      const look = (url: string) =>
        Effect.gen(function*() {
          yield* Publisher.publish(Text, "a")
          const [channel] = yield* Stats.channels(Text)
          return channel!
        }).pipe(Effect.provide(Rotif.layer({ url, prefix: "s" })))
      const small = yield* look(server.url.replace("redis://", "redis://small:x@"))
      assert.deepInclude(small, { bytes: undefined, published: 1, length: 1 })
      const whole = yield* look(server.url)
      assert.isAbove(whole.bytes!, 0)
    }).pipe(quiet))

  faulty(
    "a group that began in the middle of a long log is not known until it has come to the end",
    () =>
      Effect.gen(function*() {
        const receipts = yield* Publisher.publishAll(Text, Array.from({ length: 250 }, String))
        const options = {
          group: "g",
          concurrency: 50,
          startFrom: { position: receipts[120]!.position! }
        }
        const { subscription } = yield* listen(Text, { ...options, handler: () => Effect.never })
        yield* subscription.pause
        const before = Stats.ofGroup(yield* Stats.channels(Text), "g")!
        assert.deepInclude(before, { skipped: undefined, lag: undefined, lost: undefined })
        yield* Effect.forkScoped(subscription.drain)
        const second = yield* listen(Text, { group: "g", concurrency: 50 })
        yield* until(Effect.map(Stats.channels(Text), (channels) => Stats.ofGroup(channels, "g")?.totals.acked === 129))
        assert.deepInclude(yield* account(Text, "g"), { skipped: 121, lag: 0, pending: 0 })
        yield* soon(second.subscription.drain)
      })
  )
})
