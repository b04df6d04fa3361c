/** Passwords, user names and keys are in nothing that is logged, traced, thrown, or printed by accident (docs/security.md). */
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Cause, ConfigProvider, Effect, Exit, Layer, Logger, Redacted, References, Schema, Tracer } from "effect"
import { inspect } from "node:util"
import {
  Broadcast,
  Broker,
  Channel,
  DeadLetters,
  Deduplication,
  Health,
  Inspector,
  Middleware,
  Publisher,
  Redis,
  Rotif,
  Scheduler,
  Stats,
  Subscription
} from "rotif"
import { NotificationManager } from "rotif/promise"
import { until } from "../faults/Run.ts"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"

/** In every credential; what is said anywhere must not have it. */
const secret = "canary"
const [username, password, wrong] = [`${secret}-user`, `${secret}-password`, `${secret}-wrong`]
const [sentinelUsername, sentinelPassword] = [`${secret}-watcher`, `${secret}-sentinel`]
const key = `-----BEGIN PRIVATE KEY-----\n${secret}-key\n-----END PRIVATE KEY-----`
const user = (password: string) => `${username} on >${password} ~* &* +@all`

const Text = Channel.make("texts", { payload: Schema.String })
const quick = { commandTimeout: 300, connectTimeout: 500, startTimeout: 1_500 } as const

/** All that is said, in every way a program may print it. */
const makeEars = () => {
  const said: Array<string> = []
  const spans: Array<Tracer.NativeSpan> = []
  const print = (...values: ReadonlyArray<unknown>) => {
    for (const value of values) {
      said.push(inspect(value, { depth: Infinity, showHidden: true, maxStringLength: null, maxArrayLength: null }))
      said.push(String(value))
      said.push(JSON.stringify(value, (_, inner: unknown) => typeof inner === "bigint" ? String(inner) : inner) ?? "")
    }
  }
  const failed = (exit: Exit.Exit<unknown, unknown>) => {
    assert(Exit.isFailure(exit))
    said.push(Cause.pretty(exit.cause))
    const error = Cause.squash(exit.cause)
    print(exit, error, Cause.prettyErrors(exit.cause))
    if (error instanceof Error) print(error.message, error.stack, error.cause)
  }
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const layer = Layer.mergeAll(
    Logger.layer([Logger.make(({ cause, message }) => print(message, cause))]),
    Layer.succeed(Tracer.Tracer, tracer),
    Layer.succeed(References.MinimumLogLevel, "All")
  )
  /** With what the spans have by now: their attributes, events, and exits with their causes. */
  const leaks = () => {
    for (const { attributes, events, links, name, status } of spans) {
      print([name, [...attributes], events, links, status])
    }
    return said.filter((text) => text.includes(secret)).slice(0, 3).map((text) => {
      const at = text.indexOf(secret)
      return text.slice(Math.max(0, at - 200), at + 100)
    })
  }
  return { said, spans, print, failed, layer, leaks }
}

const tracing = Layer.provide(Middleware.layer(Middleware.tracing(), Middleware.logging()))

/** A place with its ways to log in, and the servers behind it. */
interface Place {
  readonly right: Rotif.RedisOptions
  readonly wrong: ReadonlyArray<Rotif.RedisOptions>
  readonly servers: ReadonlyArray<RedisServer.RedisServer>
}

const standalone = Effect.gen(function*() {
  const server = yield* RedisServer.make({ user: user(password) })
  const url = (word: string) => Redacted.make(`redis://${username}:${word}@${server.host}:${server.port}`)
  return {
    right: { url: Redacted.value(url(password)) },
    wrong: [{ url: url(wrong) }, { url: Redacted.value(url(wrong)) }, {
      url: `redis://${username}:${password}@127.0.0.1:1`
    }],
    servers: [server]
  }
})

const sentinels = Effect.gen(function*() {
  const server = yield* RedisServer.make({ user: user(password) })
  const sentinel = yield* RedisServer.make({
    sentinel: [
      `monitor main ${server.host} ${server.port} 1`,
      `auth-user main ${username}`,
      `auth-pass main ${password}`
    ],
    user: ["default off", `${sentinelUsername} on >${sentinelPassword} ~* &* +@all`]
  })
  const right = {
    sentinels: [{ host: sentinel.host, port: sentinel.port }],
    name: "main",
    username,
    password: Redacted.make(password),
    sentinelUsername,
    sentinelPassword: Redacted.make(sentinelPassword)
  }
  return {
    right,
    wrong: [
      { ...right, sentinelPassword: wrong },
      { ...right, password: wrong },
      { ...right, sentinels: [{ host: "127.0.0.1", port: 1 }] }
    ],
    servers: [server]
  }
})

const cluster = Effect.gen(function*() {
  const { nodes } = yield* RedisCluster.make({ config: { user: user(password) } })
  const right = {
    cluster: nodes.map(({ host, port }) => ({ host, port })),
    username,
    password: Redacted.make(password)
  }
  return {
    right,
    wrong: [{ ...right, password: wrong }, { ...right, cluster: [{ host: "127.0.0.1", port: 1 }] }],
    servers: nodes
  }
})

const places: ReadonlyArray<
  readonly [name: string, place: Effect.Effect<Place, RedisServer.RedisServerError, Scope.Scope>]
> = [["one server", standalone], ["Sentinels", sentinels], ["a Cluster", cluster]]

describe("credentials", () => {
  it.live.each(places)(
    "are in nothing that is said of %s, at the start, while it fails, and in what it is",
    ([, place]) =>
      Effect.gen(function*() {
        const { right, servers, wrong: others } = yield* place
        const ears = makeEars()
        yield* Effect.forEach(others, (options) => {
          const layer = Rotif.layer({ ...quick, ...options })
          return Effect.map(Effect.exit(Effect.scoped(Layer.build(layer))), ears.failed)
        }, { concurrency: "unbounded" }).pipe(Effect.provide(ears.layer))
        const layer = Rotif.layer({ ...quick, ...right })
        ears.print(layer)
        yield* Effect.gen(function*() {
          const handled: Array<string> = []
          yield* Subscription.make(Text, {
            group: "g",
            handler: ({ payload }) => Effect.sync(() => void handled.push(payload))
          })
          yield* Publisher.publish(Text, "first")
          yield* until("it is handled", Effect.sync(() => handled.includes("first")))
          const redis = yield* Redis.Redis
          const services = [
            redis,
            redis.connection("k"),
            yield* Effect.scoped(redis.blocking("k")),
            yield* Publisher.Publisher,
            yield* Scheduler.Scheduler,
            yield* Broadcast.Broadcast,
            yield* Subscription.Subscriptions,
            yield* DeadLetters.DeadLetters,
            yield* Stats.Stats,
            yield* Health.Health,
            yield* Inspector.Inspector,
            yield* Broker.Broker,
            yield* Deduplication.Deduplication,
            ...(yield* Subscription.running)
          ]
          ears.print(...services)
          for (const server of servers) {
            yield* server.command("acl", "setuser", username, "resetpass", ">other")
            yield* server.command("client", "kill", "user", username)
          }
          const exits = yield* Effect.forEach(["a", "b"], (text) => Effect.exit(Publisher.publish(Text, text)))
          for (const exit of exits) ears.failed(exit)
          ears.print(yield* Effect.exit(redis.connection("k").send(["get", "k"], { idempotent: true })))
          ears.print(yield* Health.check, ...services)
          for (const server of servers) yield* server.command("acl", "setuser", username, "resetpass", `>${password}`)
          yield* until("it is healed", Effect.map(Effect.exit(Publisher.publish(Text, "last")), Exit.isSuccess))
        }).pipe(Effect.scoped, Effect.provide(layer.pipe(tracing)), Effect.provide(ears.layer))
        assert.isAbove(
          ears.spans.filter(({ status }) => status._tag === "Ended" && Exit.isFailure(status.exit)).length,
          1
        )
        assert.isTrue(ears.said.some((text) => text.includes("WRONGPASS")))
        assert.deepStrictEqual(ears.leaks(), [])
      }).pipe(Effect.scoped)
  )

  it.live("are in nothing that is said of TLS: its keys, their passphrase, and options that are none", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const ears = makeEars()
      const given: ReadonlyArray<object> = [
        { key },
        { key, cert: key },
        { pfx: Buffer.from(key), passphrase: `${secret}-passphrase` },
        { passphrase: [`${secret}-passphrase`] },
        { key: { text: key } },
        { key: [{ pem: key, passphrase: `${secret}-passphrase` }] },
        { ca: { text: key } },
        { ticketKeys: `${secret}-ticket` },
        { ticketKeys: Buffer.from(`${secret}-ticket`) },
        { session: `${secret}-session` },
        { pskCallback: `${secret}-psk` },
        { secureContext: `${secret}-context` }
      ]
      const { host, port } = server
      const node = { host, port }
      const options = given.flatMap((tls): ReadonlyArray<Redis.Options> => [
        { host, port, tls },
        { sentinels: [node], name: "main", sentinelTls: tls },
        { cluster: [node], tls }
      ])
      yield* Effect.forEach(
        options,
        (options) => Effect.map(Effect.exit(Effect.scoped(Redis.make({ ...quick, ...options }))), ears.failed),
        { concurrency: "unbounded", discard: true }
      ).pipe(Effect.provide(ears.layer))
      assert.deepStrictEqual(ears.leaks(), [])
    }).pipe(Effect.scoped))

  it.live("are in no manager of the Promise API that is printed, nor in what it logs and rejects with", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ user: user(password) })
      const ears = makeEars()
      const logger = { debug: ears.print, info: ears.print, warn: ears.print, error: ears.print }
      const managerOf = (word: string) =>
        Effect.acquireRelease(
          Effect.sync(() =>
            new NotificationManager({ redis: `redis://${username}:${word}@${server.host}:${server.port}`, logger })
          ),
          (manager) => Effect.promise(() => manager.stopAll())
        )
      const [good, bad] = [yield* managerOf(password), yield* managerOf(wrong)]
      ears.print(good, bad)
      yield* Effect.promise(() => good.publish("texts", "a"))
      const subscription = yield* Effect.promise(() => good.subscribe("texts", () => Promise.resolve()))
      const rejection = yield* Effect.flip(Effect.tryPromise({ try: () => bad.publish("texts", "a"), catch: (e) => e }))
      assert.include(String(rejection), "WRONGPASS")
      ears.print(rejection, good, bad, subscription)
      assert.deepStrictEqual(ears.leaks(), [])
    }).pipe(Effect.scoped))

  it.effect("are in no options from the environment, and no layer that is printed", () =>
    Effect.gen(function*() {
      const ears = makeEars()
      const environment = {
        REDIS_URL: `redis://${username}:${password}@localhost:1`,
        REDIS_PASSWORD: password,
        REDIS_SENTINEL_PASSWORD: sentinelPassword
      }
      const read = (more: Record<string, string>) =>
        Redis.config.parse(ConfigProvider.fromUnknown({ ...environment, ...more }))
      const all = [yield* read({}), yield* read({ REDIS_SENTINELS: "a:1" }), yield* read({ REDIS_CLUSTER: "a:1" })]
      const unreadable = yield* Effect.exit(read({ REDIS_TLS: "no such thing" }))
      ears.failed(unreadable)
      for (const options of all) ears.print(options, Redis.layer(options), Rotif.layer(options), Redis.make(options))
      const url = environment.REDIS_URL
      ears.print(Redis.layer({ url }), Rotif.layer({ url, password }), Redis.make({ url, tls: { key } }))
      assert.deepStrictEqual(ears.leaks(), [])
    }))
})
