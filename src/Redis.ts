/**
 * Connections to Redis; the only module that knows ioredis.
 *
 * One ioredis client is used for the life of one socket. It never reconnects, never queues while offline and never sends
 * a command a second time; when its socket is gone it is thrown away and a new one is made. That makes every failure
 * definite: a command was not sent, was answered, or was sent and its answer lost.
 *
 * @since 0.1.0
 */
import type { Duration, Scope } from "effect"
import { Config, Context, Effect, Layer, Redacted, Result, Schema } from "effect"
import type { ClusterNode, RedisOptions as IoredisOptions } from "ioredis"
import { Cluster, Command as ClientCommand, Redis as Client } from "ioredis"
import type { ConnectionOptions } from "node:tls"
import * as Activity from "./internal/activity.ts"
import * as Ending from "./internal/ending.ts"
import * as Given from "./internal/given.ts"
import * as Place from "./internal/redis/given.ts"
import { makeDurable, type Need, type Reached } from "./internal/redis/durable.ts"
import { exchange, makeConnection } from "./internal/redis/exchange.ts"
import { type Mode, parse as parseInfo, problemOf, textOfHello } from "./internal/redis/info.ts"
import type { Address, Settings, Socket, Subscribe } from "./internal/redis/link.ts"
import { isTooLong, Longest } from "./internal/redis/longest.ts"
import type { Command, Script } from "./internal/redis/protocol.ts"
import { classify, errorOf, messageOf, RedisError } from "./internal/redis/protocol.ts"
import { makeReader } from "./internal/redis/reader.ts"
import type { NatMap, Servers } from "./internal/redis/servers.ts"
import { tellWait } from "./internal/redis/waiting.ts"
import { addressOf, clusterServers, nameOf, oneServer } from "./internal/redis/servers.ts"
import { makeSubscriber } from "./internal/redis/subscriber.ts"

export { type RedisErrorReason } from "./internal/redis/protocol.ts"
export { type Address, classify, type Command, type NatMap, RedisError, type Script }

/**
 * A connection that is shared by everybody.
 *
 * It waits for Redis to come back at most `commandTimeout`. What was surely not executed (`Unavailable`, `Transient`,
 * MOVED, ASK) is tried again until then, and what was lost (`ConnectionLost`) too when `idempotent` is true.
 */
export interface Connection {
  readonly send: (command: Command, options: { readonly idempotent: boolean }) => Effect.Effect<unknown, RedisError>
  /** One write for all commands; replies in order. A reply the server refused is a `RedisError` in its place. Never repeated as a whole once a part was sent. */
  readonly pipeline: (
    commands: ReadonlyArray<Command>,
    options?: { readonly isCurrent?: (() => boolean) | undefined }
  ) => Effect.Effect<ReadonlyArray<unknown>, RedisError>
  /** With `isCurrent`, which is asked each time just before it is sent: one that has waited too long is `Unavailable`, and not sent. */
  readonly evaluate: (
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>,
    options: { readonly idempotent: boolean; readonly isCurrent?: (() => boolean) | undefined }
  ) => Effect.Effect<unknown, RedisError>
}

/**
 * What one caller writes and wants to be durable. All of them share one connection to each node, which serves nothing else.
 */
export interface DurableConnection extends Connection {
  /**
   * Waits until replicas have, or disks hold, everything that was executed for this caller. It has to be writes: for what was only
   * read, Redis waits for nothing.
   */
  readonly confirm: (need: Need) => Effect.Effect<Reached>
}

/** A connection of one reader, for commands that block. Commands are not repeated. */
export interface BlockingConnection {
  /**
   * Sends one blocking command. When no answer has come after `deadlineMillis` the connection is replaced and the command
   * fails with `ConnectionLost`. Connects first when there is no connection.
   */
  readonly send: (command: Command, deadlineMillis: number) => Effect.Effect<unknown, RedisError>
  /** The number of sockets used so far: when it changed, answers may have been lost. 0 before the first. */
  readonly generation: () => number
  /**
   * Makes a blocked command return now (CLIENT UNBLOCK from the shared connection to the same server). Where that is not permitted it does
   * nothing.
   */
  readonly unblock: Effect.Effect<void>
  /** Whether it is permitted, as far as is known: if not, commands are to block for short times only. */
  readonly mayUnblock: () => boolean
}

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
    handler: {
      readonly onMessage: (name: string, message: string) => void
      readonly onGap: () => void
    },
    command?: Subscribe
  ) => Effect.Effect<void, RedisError, Scope.Scope>
}>()("rotif/Redis") {}

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * What all ways to connect have in common.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommonOptions {
  /**
   * How long a command waits for a connection, and how long a sent command waits for any sign of life of the server
   * before its connection is given up. Default: 5 seconds.
   */
  readonly commandTimeout?: Duration.Input | undefined
  /** How long one attempt to connect may take, the handshake included. Default: 3 seconds. */
  readonly connectTimeout?: Duration.Input | undefined
  /** How long the layer tries to reach the server when it is built. Default: 10 seconds. */
  readonly startTimeout?: Duration.Input | undefined
  /** How many callers may wait for a connection that is down; more fail at once. Default: 10,000. */
  readonly maxWaiting?: number | undefined
  /** Shown by CLIENT LIST, followed by the purpose of the connection. Default: `"rotif"`. */
  readonly connectionName?: string | undefined
  /** Allows `rejectUnauthorized: false`, that is, TLS with a server nobody vouches for. Default: false. */
  readonly insecure?: boolean | undefined
}

/**
 * How to log in, and whether to encrypt.
 *
 * @category models
 * @since 0.1.0
 */
export interface SecurityOptions {
  readonly username?: string | undefined
  readonly password?: Redacted.Redacted<string> | string | undefined
  /** `true`, or options of `node:tls`. */
  readonly tls?: boolean | ConnectionOptions | undefined
  /** Which addresses of a host name are used: those of IPv4, of IPv6, or both (0, the default). */
  readonly family?: 0 | 4 | 6 | undefined
}

/**
 * One server, by URL: `redis://user:password@host:6379/0`, with TLS `rediss://`; a query may have `db`, `family` and `tls`. What
 * the URL and another option both say must be the same.
 *
 * @category models
 * @since 0.1.0
 */
export interface UrlOptions extends CommonOptions, SecurityOptions {
  readonly url: string | Redacted.Redacted<string>
  readonly db?: number | undefined
}

/**
 * One server, by name.
 *
 * @category models
 * @since 0.1.0
 */
export interface HostOptions extends CommonOptions, SecurityOptions {
  readonly host: string
  /** Default: 6379. */
  readonly port?: number | undefined
  readonly db?: number | undefined
}

/**
 * The master that Sentinels name. A failover is noticed through them.
 *
 * @category models
 * @since 0.1.0
 */
export interface SentinelOptions extends CommonOptions, SecurityOptions {
  readonly sentinels: ReadonlyArray<Address>
  /** The name of the master, such as `"mymaster"`. */
  readonly name: string
  readonly db?: number | undefined
  readonly sentinelUsername?: string | undefined
  readonly sentinelPassword?: Redacted.Redacted<string> | string | undefined
  readonly sentinelTls?: boolean | ConnectionOptions | undefined
  /** Addresses as the servers tell them, to addresses as they are reached from here. */
  readonly natMap?: NatMap | undefined
}

/**
 * A Redis Cluster, by some of its nodes.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClusterOptions extends CommonOptions, SecurityOptions {
  readonly cluster: ReadonlyArray<Address>
  /** Addresses as the nodes tell them, to addresses as they are reached from here. */
  readonly natMap?: NatMap | undefined
}

/**
 * The options of a client that exists. The client itself is neither used nor closed. A `keyPrefix` and
 * `replyMapping: "resp3"` are refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions extends CommonOptions {
  readonly client: Client | Cluster
}

/**
 * Where Redis is.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = UrlOptions | HostOptions | SentinelOptions | ClusterOptions | ClientOptions

/**
 * All options, whatever the place.
 *
 * @category models
 * @since 0.1.0
 */
export interface AllOptions extends UrlOptions, HostOptions, SentinelOptions, ClusterOptions, ClientOptions {}

/**
 * The options of a client of ioredis.
 *
 * @category models
 * @since 0.1.0
 */
export type { IoredisOptions }

type RawOptions = Omit<IoredisOptions, "replyMapping">

const reveal = (secret: Redacted.Redacted<string> | string): string =>
  Redacted.isRedacted(secret) ? Redacted.value(secret) : secret

const refused = (message: string) => new RedisError({ reason: "Refused", command: "connect", message })

const orRefuse = <A>(found: Result.Result<A, Given.Problem>): A =>
  Given.orThrow(found, ({ message }) => refused(message))

const tlsOf = (tls: boolean | ConnectionOptions | undefined): ConnectionOptions | undefined =>
  tls === true ? {} : tls === false ? undefined : tls

const securityOf = (options: SecurityOptions): RawOptions => {
  const tls = tlsOf(options.tls)
  return {
    ...(options.username === undefined ? {} : { username: options.username }),
    ...(options.password === undefined ? {} : { password: reveal(options.password) }),
    ...(tls === undefined ? {} : { tls }),
    ...(options.family === undefined ? {} : { family: options.family })
  }
}

const urlOf = (options: UrlOptions): RawOptions => {
  const { db = 0, family, host, password, port, tls, username } = orRefuse(Place.parseUrl("url", options.url))
  return {
    host,
    port,
    db: options.db ?? db,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(tls === true ? { tls: {} } : {}),
    ...(family === undefined ? {} : { family }),
    ...securityOf(options)
  }
}

/** What the options say about the place, in the words of ioredis. */
interface Origin {
  readonly mode: Mode
  readonly base: RawOptions
  /** The nodes of a Cluster to begin with. */
  readonly seeds: ReadonlyArray<string>
  readonly natMap: NatMap | undefined
}

const direct = (mode: Mode, base: RawOptions): Origin => ({ mode, base, seeds: [], natMap: undefined })

// Not by `instanceof`: the client may come from another copy of ioredis.
const isCluster = (client: Client | Cluster): client is Cluster => client.isCluster

const clientOrigin = (client: Client | Cluster): Origin => {
  const { keyPrefix, replyMapping, ...base }: IoredisOptions = isCluster(client)
    ? { ...client.options.redisOptions, keyPrefix: client.options.keyPrefix ?? "" }
    : client.options
  if (keyPrefix) throw refused("a client with keyPrefix cannot be used: give rotif a prefix of its own")
  if (replyMapping === "resp3") throw refused(`a client with replyMapping "resp3" cannot be used: use "legacy"`)
  if (!isCluster(client)) return direct(base.sentinels ? "sentinel" : "standalone", base)
  // Private in its type, and the only place where ioredis keeps what the Cluster was made with.
  const nodes: ReadonlyArray<ClusterNode> = Reflect.get(client, "startupNodes")
  const options = nodes.map((node): RawOptions =>
    typeof node === "string"
      ? new Client(node, { lazyConnect: true }).options
      : typeof node === "number"
      ? { port: node }
      : { ...node, host: node.host ?? "127.0.0.1", port: node.port ?? 6379 }
  )
  const { password, tls, username } = options[0] ?? {}
  return {
    mode: "cluster",
    base: {
      ...(username ? { username } : {}),
      ...(password ? { password } : {}),
      ...(tls ? { tls } : {}),
      ...base
    },
    seeds: options.map((node) => nameOf(addressIn(node))),
    natMap: client.options.natMap
  }
}

const addressIn = ({ host = "localhost", port = 6379 }: RawOptions): Address => ({ host, port })

const originOf = (given: Options): Origin => {
  // What is `undefined` was not given.
  const options = orRefuse(Place.check(given)) as unknown as Options
  const origin = placeOf(options)
  check(origin, options)
  return origin
}

const placeOf = (options: Options): Origin => {
  if ("client" in options) return clientOrigin(options.client)
  if ("cluster" in options) {
    return { mode: "cluster", base: securityOf(options), seeds: options.cluster.map(nameOf), natMap: options.natMap }
  }
  if ("sentinels" in options) {
    const sentinelTls = tlsOf(options.sentinelTls)
    const base: RawOptions = {
      ...securityOf(options),
      sentinels: options.sentinels.map(({ host, port }) => ({ host, port })),
      name: options.name,
      db: options.db ?? 0,
      enableTLSForSentinelMode: options.tls !== undefined && options.tls !== false,
      ...(options.sentinelUsername === undefined ? {} : { sentinelUsername: options.sentinelUsername }),
      ...(options.sentinelPassword === undefined ? {} : { sentinelPassword: reveal(options.sentinelPassword) }),
      ...(sentinelTls === undefined ? {} : { sentinelTLS: sentinelTls }),
      ...(options.natMap === undefined ? {} : { natMap: options.natMap })
    }
    return direct("sentinel", base)
  }
  if ("url" in options) return direct("standalone", urlOf(options))
  const { db = 0, host, port = 6379 } = options
  return direct("standalone", { host, port, db, ...securityOf(options) })
}

/**
 * A client of ioredis, of one server or of a Cluster.
 *
 * @category models
 * @since 0.1.0
 */
export type IoredisClient = Client | Cluster

/**
 * Makes a client of ioredis for the same place, for commands that Rotif does not need. It connects at its first command, and reconnects as
 * ioredis does, or as the options of ioredis in `more` say; whoever made it closes it. It has nothing to do with the connections of Rotif.
 *
 * **Errors**: throws `RedisError` (`Refused`) for options that cannot be used.
 *
 * @category constructors
 * @since 0.1.0
 */
export const clientUnsafe = (options: Options, more?: RawOptions): IoredisClient => {
  const { base, mode, natMap, seeds } = originOf(options)
  if (more?.keyPrefix) throw refused("a client with keyPrefix cannot be used: give rotif a prefix of its own")
  const common = { ...base, ...more, replyMapping: "legacy", lazyConnect: true } as const
  const client = mode === "cluster"
    ? new Cluster(seeds.map(addressOf), {
      lazyConnect: true,
      redisOptions: common,
      ...(natMap === undefined ? {} : { natMap })
    })
    : new Client(common)
  // A command that fails tells its caller; without a listener the failure of the connection would be printed as well.
  client.on("error", () => {})
  return client
}

/** What every socket is opened with: it is used as it is, and thrown away when anything goes wrong. */
const rawOptionsOf = (origin: Origin, connectMillis: number): RawOptions => ({
  ...origin.base,
  lazyConnect: true,
  enableOfflineQueue: false,
  // `open` reads the same INFO, and says what is wrong.
  enableReadyCheck: false,
  retryStrategy: () => null,
  maxRetriesPerRequest: null,
  autoResubscribe: false,
  reconnectOnError: null,
  connectTimeout: connectMillis,
  // A destroyed socket does not wait for the other side.
  disconnectTimeout: 1,
  keepAlive: 10_000,
  disableClientInfo: true,
  keyPrefix: "",
  // Plain arrays everywhere.
  protocol: 2,
  stringNumbers: false,
  enableAutoPipelining: false,
  readOnly: false,
  commandTimeout: undefined,
  blockingTimeout: undefined,
  ...(origin.mode === "sentinel"
    ? {
      role: "master",
      failoverDetector: true,
      sentinelRetryStrategy: () => null,
      sentinelCommandTimeout: sentinelMillis
    }
    : {})
})

/** One Sentinel that does not answer must not use up the time of an attempt. */
const sentinelMillis = 1000

const check = (origin: Origin, options: Options): void => {
  if (origin.mode === "cluster" && origin.seeds.length === 0) throw refused("a Cluster needs at least one node")
  if (origin.mode === "sentinel" && !origin.base.sentinels?.length) throw refused("at least one Sentinel is needed")
  for (const tls of [origin.base.tls, origin.base.sentinelTLS]) {
    if (tls?.rejectUnauthorized === false && options.insecure !== true) {
      throw refused("rejectUnauthorized: false accepts any server: it needs the option insecure: true")
    }
  }
}

// -----------------------------------------------------------------------------
// Sockets
// -----------------------------------------------------------------------------

const utf8 = { replyEncoding: "utf8" } as const

/** Large commands go alone: together they may be longer than a string can be. */
const longestWrite = 2 ** 26

const destroy = (client: Client): void => {
  // Also ends the connections to Sentinels; the socket itself would wait for the other side.
  client.disconnect()
  client.stream?.destroy()
}

const socketOf = (client: Client, target: string, id: number, runId: string, longest: Longest): Socket => {
  let hasWritten = false
  let pending = 0
  // Commands go to the socket as one text: many small writes, corked or not, cost more than the commands themselves.
  let text = ""
  const collector = {
    isPipeline: true,
    write: (part: string | Buffer) => {
      const more = part.toString()
      if (text.length + more.length > longestWrite) flush()
      text += more
    },
    destination: { redis: client }
  } as const
  const flush = () => {
    if (text === "") return
    const written = text
    text = ""
    if (client.stream.writable) client.stream.write(written)
  }
  const send = (name: string, args: ReadonlyArray<string | number>): Promise<unknown> => {
    const command = new ClientCommand(name, args as Array<string | number>, utf8)
    client.sendCommand(command, collector)
    return command.promise
  }
  return {
    target,
    id,
    runId,
    // Not writable: its end was asked for (by the failover detector), and has not come yet.
    isReady: () => client.status === "ready" && client.stream.writable,
    pending: () => pending,
    write: (commands, isAsking, done) => {
      const replies = new Array<unknown>(commands.length)
      let missing = commands.length
      pending += missing
      const settle = (index: number, reply: unknown) => {
        replies[index] = reply
        pending--
        if (--missing === 0) done(replies)
      }
      for (let index = 0; index < commands.length; index++) {
        const command = commands[index]!
        const name = command[0]
        // Its own refusal says nothing that the reply of the command does not say.
        if (isAsking) send("asking", []).catch(() => {})
        send(name, command.slice(1)).then(
          (reply) => settle(index, reply),
          (error) => {
            const failure = errorOf(name, error)
            if (isTooLong(failure)) longest.refused(command)
            settle(index, failure)
          }
        )
      }
      // What comes first in this turn of the event loop goes at once; all else waits for its end and goes in one write.
      if (hasWritten) return
      hasWritten = true
      flush()
      process.nextTick(() => {
        hasWritten = false
        flush()
      })
    },
    onMessage: (listener) => {
      client.on("message", (channel: string, message: string) => listener("subscribe", channel, message))
      client.on("pmessage", (pattern: string, _: string, message: string) => listener("psubscribe", pattern, message))
      client.on("smessage", (channel: string, message: string) => listener("ssubscribe", channel, message))
    },
    onMoved: (listener) => void client.on("moved", listener),
    onEnd: (listener) => void client.once("end", listener),
    destroy: () => destroy(client)
  }
}

/** What a failure to connect means, where the words of the client do not say it. */
const problemAt = (message: string, isTls: boolean): string =>
  /Unknown RESP type|Protocol error, got/.test(message)
    ? `this is no Redis server, or it speaks TLS on this port (${message.replace(" Please report this.", "")})`
    : isTls && /wrong version number|packet length too long|before secure TLS connection/.test(message)
    ? `the server does not speak TLS on this port (${message})`
    : !isTls && (message === "Connection is closed." || /ECONNRESET|EPIPE/.test(message))
    ? "the server closed the connection at once: it may speak TLS on this port, or be no Redis server"
    : message

/**
 * Opens sockets: connects, logs in, looks at the server.
 *
 * What the lost predecessor wrote may still wait in the buffers of the server. It is killed there before anything else
 * is sent, so that nothing of it can be executed later than what is sent here.
 */
const opener = (
  origin: Origin,
  options: Options,
  connectMillis: number,
  longest: Longest
): Settings["open"] => {
  const raw = rawOptionsOf(origin, connectMillis)
  const clientName = options.connectionName ?? "rotif"
  // The connectTimeout of ioredis ends with the TCP connection: a frozen server would never answer.
  const limit = connectMillis + sentinelMillis * (raw.sentinels?.length ?? 0)

  return async (target, predecessor, signal) => {
    const client = new Client({
      ...raw,
      ...target.address,
      connectionName: `${clientName}:${target.role}`,
      socketTimeout: target.silenceMillis,
      replyMapping: "legacy"
    })
    let failure: unknown
    client.on("error", (error) => {
      failure ??= error
    })
    const give = (why: string) => {
      failure ??= new Error(why)
      destroy(client)
    }
    const hint = raw.tls === undefined ? "" : ": does it speak TLS on this port?"
    const timer = setTimeout(() => give(`no answer within ${limit} ms${hint}`), limit)
    const abort = () => give("closed")
    signal.addEventListener("abort", abort)
    try {
      await client.connect()
      const [id, text] = await Promise.all([
        client.call("client", "id"),
        client.call("info").catch((error: unknown) => {
          if (!messageOf(error).startsWith("NOPERM")) throw error
          // It tells less, and is permitted more often.
          return client.call("hello").then(textOfHello, () => "")
        })
      ])
      // ioredis tells a refused SELECT by an event, and goes on with another database.
      if (failure !== undefined) throw failure
      const info = parseInfo(String(text))
      const problem = problemOf(info, origin.mode)
      if (problem !== undefined) throw problem.isLasting ? refused(problem.message) : new Error(problem.message)
      if (predecessor !== undefined && info.runId !== "" && predecessor.runId === info.runId) {
        await client.call("client", "kill", "id", predecessor.id).catch((error: unknown) => {
          // Not permitted, or gone already.
          if (classify(error) !== "Refused") throw error
        })
      }
      return socketOf(client, target.name, Number(id), info.runId, longest)
    } catch (error) {
      destroy(client)
      const first = failure ?? error
      throw new RedisError({
        reason: first instanceof RedisError ? first.reason : classify(first) === "Refused" ? "Refused" : "Unavailable",
        command: "connect",
        message: `${target.name}: ${problemAt(messageOf(first), raw.tls !== undefined)}`
      })
    } finally {
      clearTimeout(timer)
      signal.removeEventListener("abort", abort)
    }
  }
}

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

const isLoopback = (host: string) => host === "localhost" || host === "::1" || host.startsWith("127.")

/** Warns of what would lose messages or show the password. */
const inspect = Effect.fnUntraced(function*(
  origin: Origin,
  servers: Servers,
  startMillis: number,
  longest: Longest
) {
  const replies = yield* exchange(servers, 0, startMillis, {
    commands: ["maxmemory-policy", "appendonly", "save", "proto-max-bulk-len"].map((
      name
    ): Command => ["config", "get", name]),
    idempotent: true
  })
  // Where CONFIG is not permitted nothing is known, and nothing said.
  const [policy, appendOnly, save, bulk] = replies.map((reply) => Array.isArray(reply) ? String(reply[1]) : undefined)
  longest.set(Number(bulk))
  if (policy !== undefined && policy !== "noeviction") {
    yield* Effect.logWarning(`Redis may evict messages: maxmemory-policy is ${policy}, set it to noeviction`)
  }
  if (appendOnly === "no" && save === "") {
    yield* Effect.logWarning("Redis keeps nothing over a restart: neither appendonly nor save is set")
  }
  const { base, seeds } = origin
  const hosts = [
    ...(origin.mode === "standalone" && !base.path ? [base.host ?? "localhost"] : []),
    ...(base.sentinels ?? []).map((sentinel) => sentinel.host ?? "localhost"),
    ...seeds.map((seed) => addressOf(seed).host)
  ]
  if (base.password && !base.tls && !hosts.every(isLoopback)) {
    yield* Effect.logWarning("The password of Redis is sent over the network without TLS")
  }
})

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
      // Whoever closes them from inside of a handler has not acknowledged its message yet.
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
