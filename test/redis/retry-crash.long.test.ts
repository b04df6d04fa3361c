/**
 * A process that retries messages is killed again and again: nothing is lost, and what a script had moved is moved once.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Redis } from "ioredis"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { Broker, Channel, DeadLetters, Publisher, Rotif } from "rotif"
import { inject } from "vitest"
import * as Keys from "../../src/redisBroker/keys.ts"
import { freshPrefix } from "../contract/kit.ts"

const url = `redis://127.0.0.1:${inject("redisPort")}`
const client = new Redis(url, { protocol: 2, lazyConnect: true })
afterAll(() => client.quit())

const Jobs = Channel.make("jobs", { payload: Schema.Int })
const messages = 200
const kills = 8
const retries = 4

describe("a process that retries, killed at any moment", () => {
  const prefix = freshPrefix()
  const keys = Keys.make(prefix, 0)
  const notes = `{${prefix}:0}:notes`

  const start = Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [
        "--conditions=rotif-source",
        join(import.meta.dirname, "../processes/retrying.ts")
      ], {
        env: { ...process.env, REDIS_URL: url, PREFIX: prefix, NOTES: notes },
        stdio: ["ignore", "inherit", "inherit"]
      })
    ),
    (child) => kill(child)
  )
  const kill = (child: ChildProcess) =>
    Effect.callback<void>((resume) => {
      if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
      child.once("exit", () => resume(Effect.void))
      child.kill("SIGKILL")
    })

  /** Waits until the server shows it; nothing in this process knows. */
  const until = (look: () => Promise<boolean>): Effect.Effect<void> =>
    Effect.flatMap(Effect.promise(look), (isSo) => isSo ? Effect.void : Effect.suspend(() => until(look)))

  it.live("loses nothing and moves nothing twice", () =>
    Effect.gen(function*() {
      yield* Publisher.publishAll(Jobs, Array.from({ length: messages }, (_, i) => i)).pipe(
        Effect.provide(Rotif.layer({ url, prefix }))
      )
      let noted = 0
      for (let i = 0; i < kills; i++) {
        yield* Effect.scoped(Effect.gen(function*() {
          yield* start
          // Somewhere in the midst of it: with leases, waiting messages, and settlements on their way.
          const wanted = noted + 30 + 17 * i
          yield* until(async () => (await client.llen(notes)) >= wanted)
        }))
        noted = yield* Effect.promise(() => client.llen(notes))
      }
      yield* Effect.scoped(Effect.gen(function*() {
        yield* start
        yield* until(async () => {
          const succeeded = (await client.lrange(notes, 0, -1)).filter((note) => note.endsWith(` ${retries + 1}`))
          return new Set(succeeded).size === messages
        })
        yield* until(async () => {
          const groups = (await client.call("XINFO", "GROUPS", keys.retry("workers", "jobs"))) as Array<Array<unknown>>
          const group = groups[0]!
          return group[group.indexOf("pending") + 1] === 0
        })
      }))

      const attempts = new Map<string, Set<number>>()
      for (const note of yield* Effect.promise(() => client.lrange(notes, 0, -1))) {
        const [payload = "", attempt] = note.split(" ")
        attempts.set(payload, (attempts.get(payload) ?? new Set()).add(Number(attempt)))
      }
      assert.strictEqual(attempts.size, messages)
      // No attempt was skipped: a crash costs none.
      for (const seen of attempts.values()) assert.deepStrictEqual(seen, new Set([1, 2, 3, 4, 5]))
      // Each of the four retries of each message came into the retry stream once, whatever was killed between.
      const info = yield* Effect.promise(() => client.call("XINFO", "STREAM", keys.retry("workers", "jobs")))
      const stream = info as Array<unknown>
      assert.strictEqual(stream[stream.indexOf("entries-added") + 1], messages * retries)
      yield* Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const { channels, dead, waiting } = yield* broker.info(Channel.selector(Jobs))
        const { lag, pending, ready } = channels[0]!.groups[0]!
        assert.deepStrictEqual({ dead, waiting, lag, pending, ready }, {
          dead: 0,
          waiting: 0,
          lag: 0,
          pending: 0,
          ready: 0
        })
        assert.strictEqual(yield* DeadLetters.count(), 0)
      }).pipe(Effect.provide(Rotif.layer({ url, prefix })))
      assert.strictEqual(yield* Effect.promise(() => client.exists(keys.bodies("workers", "jobs"))), 0)
    }), 60_000)
})
