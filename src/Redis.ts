/**
 * Connections to Redis; the only module that knows ioredis.
 *
 * One ioredis client is used for the life of one socket. It never reconnects, never queues while offline and never sends
 * a command a second time; when its socket is gone it is thrown away and a new one is made. That makes every failure
 * definite: a command was not sent, was answered, or was sent and its answer lost.
 *
 * @since 0.1.0
 */
import type { Scope } from "effect"
import { Config, Context, Effect, Layer, Redacted, Result, Schema } from "effect"
import * as Activity from "./internal/activity.ts"
import * as Ending from "./internal/ending.ts"
import * as Given from "./internal/optionChecks.ts"
import { Longest } from "./redis/argumentLimit.ts"
import { makeReader } from "./redis/blocking.ts"
import type { BlockingConnection, Connection, DurableConnection } from "./redis/connection.ts"
import type { IoredisOptions } from "./redis/ioredis.ts"
import { ClientCommand } from "./redis/ioredis.ts"
import type { Address, Settings, Subscribe } from "./redis/link.ts"
import type { Options } from "./redis/options.ts"
import { addressIn, originOf, refused } from "./redis/clientOptions.ts"
import type { Command, Script } from "./redis/protocol.ts"
import { RedisError } from "./redis/protocol.ts"
import { makeDurable } from "./redis/replicaWait.ts"
import { makeConnection } from "./redis/request.ts"
import { inspect } from "./redis/serverChecks.ts"
import type { NatMap } from "./redis/servers.ts"
import { addressOf, clusterServers, nameOf, oneServer } from "./redis/servers.ts"
import { opener } from "./redis/socket.ts"
import { tellWait } from "./redis/startWait.ts"
import type { Handler } from "./redis/subscriber.ts"
import { makeSubscriber } from "./redis/subscriber.ts"

export type {
  AllOptions,
  ClientOptions,
  ClusterOptions,
  CommonOptions,
  HostOptions,
  IoredisClient,
  Options,
  SecurityOptions,
  SentinelOptions,
  UrlOptions
} from "./redis/options.ts"
export type { BlockingConnection, Connection, DurableConnection } from "./redis/connection.ts"
export { clientUnsafe } from "./redis/clientOptions.ts"

export { RedisErrorReason } from "./redis/protocol.ts"
export { type Address, type Command, type NatMap, RedisError, type Script }

/**
 * The connections to one Redis: a server, a Sentinel setup or a Cluster.
 *
 * @category services
 * @since 0.1.0
 */
export class Redis extends Context.Service<Redis, {
  readonly mode: "standalone" | "sentinel" | "cluster"
  /** The number of the database; a Cluster has one, 0. */
  readonly database: number
  /** The option `commandTimeout`: within twice this time a command ends. */
  readonly commandMillis: number
  /** The shared connection that serves this key (of the node that owns its slot). */
  readonly connection: (key: string) => Connection
  /** For writes to this key that are to be durable. */
  readonly durable: (key: string) => DurableConnection
  /** A connection of its own to the node that owns the slot of this key; closing the scope unblocks and closes it. */
  readonly blocking: (
    key: string,
    /** What is known already about the permission for `unblock`; else it is found out by the first refusal. */
    options?: { readonly mayUnblock?: boolean | undefined }
  ) => Effect.Effect<BlockingConnection, RedisError, Scope.Scope>
  /** The key that decides where a command goes in a Cluster: its first one. */
  readonly keyOf: (command: Command) => string | undefined
  /**
   * Calls `onMessage` for every Pub/Sub message on these channels until the scope closes, and `onGap` after each time the
   * subscription was interrupted. All listeners share one connection. With `"psubscribe"` the names are patterns as Redis
   * understands them, and `onMessage` gets the pattern; with `"ssubscribe"` they are sharded channels, and the listeners share
   * one connection to each node.
   */
  readonly listen: (
    names: ReadonlyArray<string>,
    handler: Handler,
    command?: Subscribe
  ) => Effect.Effect<void, RedisError, Scope.Scope>
}>()("rotif/Redis") {}

/**
 * The options of a client of ioredis.
 *
 * @category models
 * @since 0.1.0
 */
export type { IoredisOptions }

/**
 * Connects to Redis, and closes all connections with the scope.
 *
 * **Errors**: `Refused` at once for options that cannot be used, a wrong password, missing permissions, a server before
 * 7.0 or of another kind than the options say; `Unavailable` when no server answered within `startTimeout`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options: Options) {
  const origin = yield* Effect.try({
    try: () => originOf(options),
    // What ioredis or Node say about options may quote them.
    catch: (error) => error instanceof RedisError ? error : refused("these options are not valid")
  })
  const option = <A>(found: Result.Result<A, Given.Problem>): Effect.Effect<A, RedisError> =>
    Effect.fromResult(Result.mapError(found, ({ message }) => refused(message)))
  const timeout = (name: "connectTimeout" | "commandTimeout" | "startTimeout", usual: number) =>
    option(Given.span(name, options[name], { usual, least: 1 }))
  const connectMillis = yield* timeout("connectTimeout", 3_000)
  const startMillis = yield* timeout("startTimeout", 10_000)
  const longest = new Longest()
  const open = opener(origin, options, connectMillis, longest)
  let problem: string | undefined
  const settings: Settings = {
    connectMillis,
    commandMillis: yield* timeout("commandTimeout", 5_000),
    longest,
    maxWaiting: yield* option(
      Given.count("maxWaiting", options.maxWaiting, { usual: 10_000, least: 0, most: Number.MAX_SAFE_INTEGER })
    ),
    open: (...args) =>
      open(...args).catch((error: RedisError) => {
        problem = error.message
        throw error
      })
  }
  const { base, mode } = origin
  const serverName = mode === "sentinel" ? `master ${base.name}` : base.path ?? nameOf(addressIn(base))
  const servers = mode === "cluster" ? clusterServers(settings, origin) : oneServer(settings, serverName)
  const slotOf = (key: string) => mode === "cluster" ? new ClientCommand("type", [key]).getSlot() ?? 0 : 0
  const subscriber = makeSubscriber(settings, servers, slotOf)
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      const close = Effect.sync(() => {
        subscriber.close()
        servers.close()
      })
      // A handler that closes them has not acknowledged its message yet.
      return Activity.current() === undefined
        ? close
        : Effect.sync(() => void Activity.detach(Effect.ensuring(Ending.allOver, close)))
    })
  )
  const durable = makeDurable(settings, servers)
  const unblocking = { isRefused: false }
  const connections = new Map<number, Connection>()
  yield* tellWait(
    inspect(origin, servers, startMillis, longest),
    () =>
      `the start waits for Redis (${
        problem ?? `${mode === "cluster" ? origin.seeds.join(", ") : serverName} has not answered yet`
      })`
  )
  return Redis.of({
    mode,
    database: mode === "cluster" ? 0 : base.db ?? 0,
    commandMillis: settings.commandMillis,
    connection: (key) => {
      const slot = slotOf(key)
      let connection = connections.get(slot)
      if (connection === undefined) {
        connection = makeConnection(settings, servers, slot)
        connections.set(slot, connection)
      }
      return connection
    },
    durable: (key) => durable(slotOf(key)),
    blocking: (key, options) => {
      if (options?.mayUnblock === false) unblocking.isRefused = true
      return makeReader(settings, servers, slotOf(key), unblocking)
    },
    keyOf: ([name, ...args]) => new ClientCommand(name, args).getKeys()[0]?.toString(),
    listen: subscriber.listen
  })
})

/**
 * Provides `Redis` on connections of its own.
 *
 * **Errors**: as those of `make`.
 *
 * **Example** (A server, Sentinels, a Cluster)
 *
 * ```ts
 * Redis.layer({ url: "redis://localhost:6379" })
 * Redis.layer({ sentinels: [{ host: "10.0.0.1", port: 26379 }], name: "mymaster", password })
 * Redis.layer({ cluster: [{ host: "10.0.0.1", port: 7000 }], tls: true, password })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Redis, RedisError> => Layer.effect(Redis, make(options))

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

const addresses = (name: string): Config.Config<ReadonlyArray<Address> | undefined> =>
  optional(
    Config.Array(Schema.String.check(Schema.isPattern(/^.+:\d+$/)), name).pipe(
      Config.map((names) => names.map(addressOf))
    )
  )

/**
 * Reads the options from the environment.
 *
 * | name | meaning |
 * | --- | --- |
 * | `REDIS_CLUSTER` | nodes of a Cluster, `host:port,host:port` |
 * | `REDIS_SENTINELS` | Sentinels, `host:port,host:port`, when there is no `REDIS_CLUSTER` |
 * | `REDIS_SENTINEL_NAME` | the name of their master (default `mymaster`) |
 * | `REDIS_SENTINEL_USERNAME`, `REDIS_SENTINEL_PASSWORD` | how to log in to the Sentinels |
 * | `REDIS_URL` | one server, when there is neither of these (default `redis://localhost:6379`) |
 * | `REDIS_USERNAME`, `REDIS_PASSWORD` | how to log in; not other than in the URL |
 * | `REDIS_TLS` | `true` for TLS; a `rediss://` URL does the same |
 * | `REDIS_COMMAND_TIMEOUT`, `REDIS_CONNECT_TIMEOUT`, `REDIS_START_TIMEOUT` | spans of time, such as `5 seconds` |
 *
 * @category config
 * @since 0.1.0
 */
export const config: Config.Config<Options> = Config.all({
  cluster: addresses("REDIS_CLUSTER"),
  sentinels: addresses("REDIS_SENTINELS"),
  name: Config.String("REDIS_SENTINEL_NAME").pipe(Config.withDefault("mymaster")),
  sentinelUsername: optional(Config.String("REDIS_SENTINEL_USERNAME")),
  sentinelPassword: optional(Config.Redacted("REDIS_SENTINEL_PASSWORD")),
  url: Config.Redacted("REDIS_URL").pipe(Config.withDefault(Redacted.make("redis://localhost:6379"))),
  username: optional(Config.String("REDIS_USERNAME")),
  password: optional(Config.Redacted("REDIS_PASSWORD")),
  tls: optional(Config.Boolean("REDIS_TLS")),
  commandTimeout: optional(Config.Duration("REDIS_COMMAND_TIMEOUT")),
  connectTimeout: optional(Config.Duration("REDIS_CONNECT_TIMEOUT")),
  startTimeout: optional(Config.Duration("REDIS_START_TIMEOUT"))
}).pipe(
  Config.map(({ cluster, name, sentinelPassword, sentinelUsername, sentinels, url, ...common }): Options =>
    cluster !== undefined
      ? { cluster, ...common }
      : sentinels !== undefined
      ? { sentinels, name, sentinelUsername, sentinelPassword, ...common }
      : { url, ...common }
  )
)

/**
 * Provides `Redis` with options from `Config`: those of `config`, or others.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Config<Options> = config
): Layer.Layer<Redis, RedisError | Config.ConfigError> => Layer.effect(Redis, Effect.flatMap(options, make))
