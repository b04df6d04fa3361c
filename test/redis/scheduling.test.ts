/** Scheduled and recurring messages on Redis: lost answers, killed processes, wrong data. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Queue, Schema } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { Broker, Channel, Publisher, Rotif, Scheduler } from "rotif"
import { inject } from "vitest"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"
import { freshPrefix, listen } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Broken = Channel.make("broken", { payload: Schema.String })

const url = `redis://127.0.0.1:${inject("redisPort")}`

/** A server, and what a program has on it: directly, and behind a proxy. */
const make = Effect.gen(function*() {
  const server = yield* RedisServer.make()
  const proxy = yield* TcpProxy.make(server)
  const prefix = freshPrefix()
  const key = (name: string) => `{${prefix}:0}:${name}`
  const layer = (options?: Omit<Rotif.RedisOptions, "url" | "client"> & { readonly proxied?: boolean }) => {
    const { proxied, ...rest } = options ?? {}
    return Layer.fresh(Rotif.layer({ url: proxied === true ? proxy.url : server.url, prefix, ...rest }))
  }
  const ids = Effect.map(
    server.command("xrange", key("log:texts"), "-", "+"),
    (entries) => (entries as ReadonlyArray<readonly [string, ReadonlyArray<string>]>).map(([, fields]) => fields[1]!)
  )
  const until = (
    text: string,
    command: Effect.Effect<unknown, RedisServer.RedisServerError>,
    wanted: (reply: number) => boolean
  ) =>
    Effect.gen(function*() {
      while (!wanted(Number(yield* command))) yield* Effect.sleep(5)
    }).pipe(Effect.timeoutOrElse({ duration: "15 seconds", orElse: () => Effect.die(new Error(`never: ${text}`)) }))
  const length = server.command("xlen", key("log:texts"))
  const waiting = server.command("zcard", key("waiting"))
  return { server, proxy, prefix, key, layer, ids, until, length, waiting }
})

const canary = (request: Buffer) => request.includes("canary")

/** The server knows the scripts: what is lost is not the answer that it does not. */
const warm = Effect.gen(function*() {
  yield* Publisher.publish(Text, "first")
  yield* Publisher.publish(Text, "warm", { id: "warm", delay: "1 hour" })
  yield* Scheduler.cancel(Text, "warm")
})

describe("Publisher.publish with a delay, its answer lost", () => {
  it.live("stores the message once", () =>
    Effect.gen(function*() {
      const { layer, proxy, waiting } = yield* make
      yield* Effect.gen(function*() {
        yield* warm
        const dropped = yield* proxy.dropReplyOnce(canary)
        const receipt = yield* Publisher.publish(Text, "canary", { delay: "1 hour" })
        yield* dropped
        assert.strictEqual(receipt._tag, "Scheduled")
        assert.strictEqual(yield* Scheduler.count(Text), 1)
        assert.strictEqual(yield* waiting, 1)
      }).pipe(Effect.provide(layer({ proxied: true, delayed: false })))
    }))

  it.live("stores it once, also with an id", () =>
    Effect.gen(function*() {
      const { layer, proxy } = yield* make
      yield* Effect.gen(function*() {
        yield* warm
        const dropped = yield* proxy.dropReplyOnce(canary)
        const receipt = yield* Publisher.publish(Text, "canary", { delay: "1 hour", id: "a" })
        yield* dropped
        assert.deepInclude(receipt, { _tag: "Scheduled", id: "a" })
        assert.strictEqual(yield* Scheduler.count(Text), 1)
      }).pipe(Effect.provide(layer({ proxied: true, delayed: false })))
    }))

  it.live("stores it once, when it was promoted meanwhile", () =>
    Effect.gen(function*() {
      const { ids, layer, length, proxy, until, waiting } = yield* make
      yield* Effect.gen(function*() {
        yield* warm
        const dropped = yield* proxy.dropReplyOnce(canary)
        yield* proxy.refuse
        const publishing = yield* Effect.forkChild(Publisher.publish(Text, "canary", { delay: 10 }))
        yield* dropped
        // Another process promotes it while this one has no connection.
        yield* until("promoted", length, (found) => found === 2).pipe(Effect.provide(layer()))
        yield* proxy.accept
        const receipt = yield* Fiber.join(publishing)
        // What the call was told, whatever has become of the message since.
        assert.strictEqual(receipt._tag, "Scheduled")
        assert.deepStrictEqual([(yield* ids).length, yield* waiting], [2, 0])
        assert.strictEqual((yield* ids)[1], receipt.id)
      }).pipe(Effect.provide(layer({ proxied: true, delayed: false })))
    }))

  it.live("stores each of many once", () =>
    Effect.gen(function*() {
      const { layer, proxy, waiting } = yield* make
      yield* Effect.gen(function*() {
        yield* warm
        const dropped = yield* proxy.dropReplyOnce(canary)
        const texts = Array.from({ length: 1_200 }, (_, i) => i === 700 ? "canary" : String(i))
        const receipts = yield* Publisher.publishAll(Text, texts, { delay: "1 hour" })
        yield* dropped
        assert.deepStrictEqual(new Set(receipts.map(({ _tag }) => _tag)), new Set(["Scheduled"]))
        assert.lengthOf(new Set(receipts.map(({ id }) => id)), 1_200)
        assert.strictEqual(yield* waiting, 1_200)
        const ids: Array<string> = []
        let cursor: string | undefined
        do {
          const page: Scheduler.Page = yield* Scheduler.list({ cursor, limit: 1_000 })
          ids.push(...page.messages.map(({ id }) => id))
          cursor = page.cursor
        } while (cursor !== undefined)
        assert.deepStrictEqual(ids, receipts.map(({ id }) => id))
      }).pipe(Effect.provide(layer({ proxied: true, delayed: false })))
    }))

  const changes = [
    ["cancel", Scheduler.cancel(Text, "canary")],
    ["reschedule", Scheduler.reschedule(Text, "canary", { delay: 1 })],
    ["deliverNow", Scheduler.deliverNow(Text, "canary")]
  ] as const
  for (const [what, change] of changes) {
    it.live(`a lost answer of ${what} is told when Redis is back, though the message is gone by then`, () =>
      Effect.gen(function*() {
        const { layer, proxy, until, waiting } = yield* make
        yield* Effect.gen(function*() {
          yield* warm
          yield* Publisher.publish(Text, "x", { delay: "1 hour", id: "canary" })
          const dropped = yield* proxy.dropReplyOnce(canary)
          yield* proxy.refuse
          const changing = yield* Effect.forkChild(change)
          yield* dropped
          yield* until("promoted", waiting, (found) => found === 0).pipe(Effect.provide(layer()))
          yield* proxy.accept
          assert.isTrue(yield* Fiber.join(changing))
          assert.isFalse(yield* change)
          assert.strictEqual(yield* Scheduler.count(Text), 0)
        }).pipe(Effect.provide(layer({ proxied: true, delayed: false })))
      }))

    it.live(`a ${what} that could not be decided in time is an uncertain failure, not a wrong one`, () =>
      Effect.gen(function*() {
        const { layer, proxy } = yield* make
        yield* Effect.gen(function*() {
          yield* warm
          yield* Publisher.publish(Text, "x", { delay: "1 hour", id: "canary" })
          yield* proxy.dropReplyOnce(canary)
          yield* proxy.refuse
          assert.strictEqual((yield* Effect.flip(change) as Effect.Effect<Broker.BrokerError>).reason, "Uncertain")
          yield* proxy.accept
        }).pipe(Effect.provide(layer({ proxied: true, delayed: false, commandTimeout: 300 })))
      }))
  }
})

const startPromoter = (url: string, prefix: string) =>
  Effect.sync(() =>
    spawn(process.execPath, [
      "--conditions=rotif-source",
      join(import.meta.dirname, "../fixtures/promoter.ts"),
      url,
      prefix
    ], {
      stdio: ["ignore", "ignore", "inherit"]
    })
  )

describe("promotion", () => {
  it.live("goes on past entries that are broken", () =>
    Effect.gen(function*() {
      const { key, layer, length, server, until, waiting } = yield* make
      const member = (id: string) => `\n${Text.name}\n${id}`
      yield* Effect.gen(function*() {
        yield* Publisher.publish(Text, "first")
        yield* Publisher.publish(Broken, "x", { id: "x", delay: 50 })
        yield* Publisher.publishAll(Text, ["a", "no body", "b", "no message", "c"], (id) => ({ id, delay: 50 }))
        yield* server.command("hdel", key("bodies::texts"), "no body")
        yield* server.command("hset", key("bodies::texts"), "no message", "not a body")
        yield* server.command(
          "zadd",
          key("waiting"),
          1,
          "garbage",
          2,
          "half\ngarbage",
          3,
          member("unknown"),
          4,
          "\n\n\n"
        )
        // The streams and bodies of others are of a wrong type.
        yield* server.command("del", key("log:broken"))
        yield* server.command("set", key("log:broken"), "a string")
        yield* server.command("zadd", key("waiting"), 5, "\nother\nx")
        yield* server.command("set", key("bodies::other"), "a string")
      }).pipe(Effect.provide(layer({ delayed: false })))
      yield* Effect.gen(function*() {
        yield* until("all promoted", length, (found) => found === 4)
        yield* Publisher.publish(Text, "last", { delay: 20 })
        yield* until("the last promoted", length, (found) => found === 5)
      }).pipe(Effect.provide(layer()))
      // What may be mended is put off, not lost.
      assert.strictEqual(yield* waiting, 2)
      assert.isNotNull(yield* server.command("zscore", key("waiting"), "\nother\nx"))
      assert.isNotNull(yield* server.command("hget", key("bodies::broken"), "x"))
    }))

  it.live("moves bodies of any size, in bounded steps", () =>
    Effect.gen(function*() {
      const { layer, length, until, waiting } = yield* make
      yield* Effect.gen(function*() {
        const large = "x".repeat(500_000)
        yield* Publisher.publishAll(Text, Array.from({ length: 60 }, () => large), { delay: 100 })
        yield* until("all promoted", length, (found) => found === 60)
        assert.strictEqual(yield* waiting, 0)
      }).pipe(Effect.provide(layer()))
    }))

  it.live(
    "goes on in another process when its own is killed, and moves each message once",
    () =>
      Effect.gen(function*() {
        const { ids, layer, length, prefix, server, until } = yield* make
        const total = 6_000
        const receipts = yield* Publisher.publishAll(
          Text,
          Array.from({ length: total }, (_, i) => String(i)),
          (_, i) => ({ delay: 500 + i })
        ).pipe(Effect.provide(layer({ delayed: false })))
        let child: ChildProcess | undefined
        yield* Effect.addFinalizer(() => Effect.sync(() => child?.kill("SIGKILL")))
        let kills = 0
        let seen = 0
        while (seen < total) {
          child = yield* startPromoter(server.url, prefix)
          const goal = Math.min(total, seen + 1 + kills * 83 % 400)
          yield* until("the process promotes", length, (found) => found >= goal)
          const ended = new Promise((resolve) => child!.once("exit", resolve))
          child.kill("SIGKILL")
          yield* Effect.promise(() => ended)
          kills++
          seen = Number(yield* length)
        }
        assert.isAbove(kills, 5)
        const moved = yield* ids
        assert.lengthOf(moved, total)
        assert.deepStrictEqual(new Set(moved), new Set(receipts.map(({ id }) => id)))
      }),
    60_000
  )
})

describe("Scheduler.recurring in several processes", () => {
  it.live("publishes each tick once", () =>
    Effect.gen(function*() {
      const prefix = freshPrefix()
      const process = Layer.fresh(Rotif.layer({ url, prefix }))
      const another = Layer.fresh(Rotif.layer({ url, prefix }))
      yield* Effect.gen(function*() {
        // Both define it, as each process does at its start.
        const define = Scheduler.recurring("beat", { every: 40 }, Text, "tick", { catchUp: { all: 1_000 } })
        const { seen } = yield* listen(Text)
        yield* define
        yield* Effect.gen(function*() {
          yield* define
          const ticks = yield* Effect.timeout(Queue.takeN(seen, 40), "10 seconds")
          const times = ticks.map(({ id }) => Number(new Date(id.slice(5))))
          assert.deepStrictEqual(times, times.map((_, i) => times[0]! + i * 40))
        }).pipe(Effect.provide(another))
      }).pipe(Effect.scoped, Effect.provide(process))
    }))

  it.live("makes its channel known, with its limits", () =>
    Effect.gen(function*() {
      const { key, layer, server } = yield* make
      const Limited = Channel.make("limited", { payload: Schema.String, limits: { maxLength: 7 } })
      yield* Effect.gen(function*() {
        yield* Scheduler.recurring("k", { every: "1 hour" }, Limited, "x")
        assert.strictEqual(yield* server.command("hget", key("channels"), "limited"), "{\"maxLength\":7}")
        // Also when everything else is gone.
        yield* server.command("del", key("log:limited"), key("channels"))
        yield* server.command("zadd", key("ticks"), 1, "k")
      }).pipe(Effect.provide(layer({ delayed: false })))
      yield* Effect.gen(function*() {
        const { seen } = yield* listen(Channel.pattern("*", { payload: Schema.String }))
        assert.match((yield* Effect.timeout(Queue.take(seen), "10 seconds")).id, /^k@/)
      }).pipe(Effect.scoped, Effect.provide(layer()))
    }))

  it.live("keeps others going when one of them cannot be published", () =>
    Effect.gen(function*() {
      const { key, layer, server } = yield* make
      yield* Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Scheduler.recurring("bad", { every: 30 }, Broken, "x")
        yield* server.command("zadd", key("ticks"), 1, "orphan")
        yield* server.command("hset", key("recurring"), "unreadable", "{}\ntexts\n\n\"x\"")
        yield* server.command("zadd", key("ticks"), 2, "unreadable")
        yield* server.command("set", key("log:broken"), "a string")
        yield* Scheduler.recurring("good", { every: 30 }, Text, "tick")
        yield* Effect.timeout(Queue.takeN(seen, 2), "10 seconds")
        assert.isNull(yield* server.command("zscore", key("ticks"), "orphan"))
      }).pipe(Effect.scoped, Effect.provide(layer()))
    }))
})
