/** Users of Redis without optional rights: a missing right is reported once, and all else works. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Queue, Schema } from "effect"
import { Channel, Inspector, Publisher, Rotif } from "rotif"
import { documented } from "../fixtures/documentedUser.ts"
import * as LogLines from "../fixtures/logLines.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { listen, liveBackend } from "../contract/kit.ts"

const { soon } = liveBackend("Redis", () => Layer.empty as never)

const All = Channel.pattern("orders.*", { payload: Schema.String })
const Placed = Channel.make("orders.placed", { payload: Schema.String })
const Paid = Channel.make("orders.paid", { payload: Schema.String })
const Sent = Channel.make("orders.sent", { payload: Schema.String })

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.map(effect, () => performance.now() - from)
  })

/** How often a command was refused by the ACL. */
const rejected = Effect.fnUntraced(function*(server: RedisServer.RedisServer, command: string) {
  const stats = String(yield* server.command("info", "commandstats"))
  const found = new RegExp(`^cmdstat_${command.replace("|", "\\|")}:.*rejected_calls=(\\d+)`, "m").exec(stats)
  return Number(found?.[1] ?? 0)
})

const user = (...rules: ReadonlyArray<string>) =>
  Effect.fnUntraced(function*(server: RedisServer.RedisServer) {
    yield* server.command("acl", "setuser", "bob", "reset", "on", ">secret", "~*", "&*", ...rules)
    return Rotif.layer({
      url: `redis://bob:secret@127.0.0.1:${server.port}`,
      prefix: "rotif",
      blockInterval: "5 seconds"
    })
  })

/** Generous for a busy machine, and far from the 5 seconds of one blocked read. */
const quick = 2_000

const lives = Effect.gen(function*() {
  const { seen, subscription } = yield* listen(All, { group: "g" })
  const others = yield* Effect.forEach(["a", "b", "c"], (group) => listen(All, { group }))
  yield* Publisher.publish(Placed, "1")
  yield* soon(Queue.take(seen))
  const took = {
    newChannel: yield* elapsed(Effect.andThen(Publisher.publish(Paid, "2"), soon(Queue.take(seen)))),
    pause: yield* elapsed(subscription.pause),
    resume: yield* elapsed(
      Effect.gen(function*() {
        yield* subscription.resume
        yield* Publisher.publish(Sent, "3")
        yield* soon(Queue.take(seen))
      })
    ),
    unsubscribe: yield* elapsed(others[0]!.subscription.unsubscribe({ removeGroup: true })),
    drain: yield* elapsed(subscription.drain)
  }
  for (const [what, millis] of Object.entries(took)) assert.isBelow(millis, quick, what)
})

describe("a user without client|unblock", () => {
  for (
    const [name, rules] of [
      ["+@all -@dangerous", ["+@all", "-@dangerous"]],
      ["+@all -client|unblock", ["+@all", "-client|unblock"]],
      [
        "the documented user without it",
        documented.slice(4).filter((rule) => rule.startsWith("+") && rule !== "+client|unblock")
      ]
    ] satisfies ReadonlyArray<readonly [string, ReadonlyArray<string>]>
  ) {
    it.live(
      `${name}: it is told once, never tried, and everything is as quick as a short read`,
      () =>
        Effect.gen(function*() {
          const log = LogLines.make()
          const server = yield* RedisServer.make()
          const layer = yield* user(...rules)(server)
          yield* lives.pipe(Effect.scoped, Effect.provide(layer), Effect.provide(log.layer))
          const told = log.find("Warn", "+client|unblock")
          assert.strictEqual(told.length, 1)
          assert.include(told[0]!.text, "250 ms")
          assert.strictEqual(yield* rejected(server, "client|unblock"), 0)
          assert.strictEqual(log.find("Warn", "+info").length, rules.includes("-@dangerous") ? 1 : 0)
          assert.strictEqual(log.find("Warn", "+client|kill").length, rules.includes("-@dangerous") ? 1 : 0)
          assert.strictEqual(log.find("Info", "+config|get").length, rules.includes("-client|unblock") ? 0 : 1)
        }),
      60_000
    )
  }

  it.live(
    "a user that loses the permission at run time: one attempt, one warning, and the work goes on",
    () =>
      Effect.gen(function*() {
        const log = LogLines.make()
        const server = yield* RedisServer.make()
        const layer = yield* user("+@all")(server)
        yield* Effect.gen(function*() {
          const { seen, subscription } = yield* listen(All, { group: "g" })
          yield* Publisher.publish(Placed, "1")
          yield* soon(Queue.take(seen))
          assert.strictEqual(log.lines.filter(({ text }) => text.includes("permit +")).length, 0)
          yield* server.command("acl", "setuser", "bob", "-client|unblock")
          // The read that is blocked now is the last one that nobody can wake.
          yield* Publisher.publish(Paid, "2")
          yield* soon(Queue.take(seen))
          assert.isBelow(yield* elapsed(subscription.pause), quick)
          yield* subscription.resume
          assert.isBelow(yield* elapsed(subscription.drain), quick)
        }).pipe(Effect.scoped, Effect.provide(layer), Effect.provide(log.layer))
        assert.strictEqual(log.find("Warn", "+client|unblock").length, 1)
        assert.strictEqual(yield* rejected(server, "client|unblock"), 1)
      }),
    60_000
  )
})

describe("a user without INFO", () => {
  it.live("a replica and another kind of server are noticed all the same; verify works", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const layer = yield* user("+@all", "-@dangerous")(server)
      const report = yield* Effect.gen(function*() {
        yield* Publisher.publish(Placed, "1")
        return yield* Inspector.verify({ confirmAfter: 10 })
      }).pipe(Effect.provide(layer))
      assert.deepStrictEqual(report.findings, [])
      const failure = (options: object) =>
        Effect.map(
          Effect.exit(Effect.scoped(Layer.build(Rotif.layer({
            startTimeout: "1 second",
            url: `redis://bob:secret@127.0.0.1:${server.port}`,
            ...options
          })))),
          (exit) => Exit.isFailure(exit) ? String(exit.cause) : "no failure"
        )
      assert.include(
        yield* failure({
          url: undefined,
          username: "bob",
          password: "secret",
          cluster: [{ host: "127.0.0.1", port: server.port }]
        }),
        "Cluster"
      )
      const master = yield* RedisServer.make()
      yield* server.command("replicaof", "127.0.0.1", String(master.port))
      assert.include(yield* failure({}), "replica")
    }), 60_000)
})

describe("a user without a required right", () => {
  it.live("a user without channels is refused at the start, with the rights to grant", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      yield* server.command("acl", "setuser", "bob", "reset", "on", ">secret", "~*", "resetchannels", "+@all")
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(
        Rotif.layer({ url: `redis://bob:secret@127.0.0.1:${server.port}`, prefix: "shop" })
      )))
      assert.isTrue(Exit.isFailure(exit))
      const text = Exit.isFailure(exit) ? String(exit.cause) : ""
      assert.include(text, "+publish +subscribe &{shop:*")
    }), 60_000)
})
