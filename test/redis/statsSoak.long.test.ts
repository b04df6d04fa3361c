/** Statistics on Redis add up to the message through failures, crashes and restarts; stats.test.ts and contract/stats.ts show the parts. */
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Exit, Schema, Scope as Scopes } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { Broker, Channel, DeadLetters, Inspector, Publisher, Rotif, type Stats, Subscription } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { account, quiet } from "./statsKit.ts"

const Jobs = Channel.make("jobs", { payload: Schema.Int })

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
