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
import { Config, Context, Data, Duration, Effect, Layer, Redacted, Schema } from "effect"
import type { ClusterNode, NatMap, RedisOptions as IoredisOptions } from "ioredis"
import { Cluster, Command as ClientCommand, Redis as Client } from "ioredis"
import { createHash } from "node:crypto"
import type { ConnectionOptions } from "node:tls"
import { type Mode, parse as parseInfo, problemOf } from "./internal/redis/info.ts"
import { messageOf } from "./internal/redis/text.ts"

/**
 * Why a command failed.
 *
 * - `Unavailable`: no connection in time; nothing was sent.
 * - `ConnectionLost`: sent, and the connection went away before the answer; it may have been executed.
 * - `Transient`: the server refused it for now (LOADING, BUSY, TRYAGAIN, CLUSTERDOWN, MASTERDOWN, READONLY, NOREPLICAS,
 *   UNBLOCKED, MISCONF, NOSCRIPT, max clients); not executed.
 * - `OutOfMemory`: refused with OOM; not executed.
 * - `NoGroup`: the stream or the consumer group is gone.
 * - `Refused`: the server will not accept it as things stand (WRONGTYPE, NOPERM, WRONGPASS, NOAUTH, CROSSSLOT, …).
 *
 * @category errors
 * @since 0.1.0
 */
export type RedisErrorReason = "Unavailable" | "ConnectionLost" | "Transient" | "OutOfMemory" | "NoGroup" | "Refused"

/**
 * A command failed. Its message holds no arguments and no credentials.
 *
 * @category errors
 * @since 0.1.0
 */
export class RedisError extends Data.TaggedError("RedisError")<{
  readonly reason: RedisErrorReason
  /** The name of the command, or of the script. */
  readonly command: string
  readonly message: string
}> {
  /** Whether the same command may succeed later without anybody changing anything. */
  get isRetryable(): boolean {
    return this.reason !== "Refused"
  }
}

/** A name in lower case and its arguments. */
export type Command = readonly [name: string, ...args: ReadonlyArray<string | number>]

/** A Lua script; sent by its hash, and whole where the server does not know it (also after SCRIPT FLUSH or a restart). */
export interface Script {
  readonly name: string
  readonly lua: string
}

/**
 * A connection that is shared by everybody.
 *
 * It waits for Redis to come back at most `commandTimeout`. What was surely not executed (`Unavailable`, `Transient`,
 * MOVED, ASK) is tried again until then, and what was lost (`ConnectionLost`) too when `idempotent` is true.
 */
export interface Connection {
  readonly send: (command: Command, options: { readonly idempotent: boolean }) => Effect.Effect<unknown, RedisError>
  /** One write for all commands; replies in order. A reply the server refused is a `RedisError` in its place. Never repeated as a whole once a part was sent. */
  readonly pipeline: (commands: ReadonlyArray<Command>) => Effect.Effect<ReadonlyArray<unknown>, RedisError>
  readonly evaluate: (
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>,
    options: { readonly idempotent: boolean }
  ) => Effect.Effect<unknown, RedisError>
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
  /** Makes a blocked command return now (CLIENT UNBLOCK from the shared connection to the same server). */
  readonly unblock: Effect.Effect<void>
}

export class Redis extends Context.Service<Redis, {
  readonly mode: "standalone" | "sentinel" | "cluster"
  /** The shared connection that serves this key (of the node that owns its slot). */
  readonly connection: (key: string) => Connection
  /** A connection of its own to the node that owns the slot of this key; closing the scope unblocks and closes it. */
  readonly blocking: (key: string) => Effect.Effect<BlockingConnection, RedisError, Scope.Scope>
  /**
   * Calls `onMessage` for every Pub/Sub message on these channels until the scope closes, and `onGap` after each time the
   * subscription was interrupted. All listeners share one connection.
   */
  readonly listen: (channels: ReadonlyArray<string>, handler: {
    readonly onMessage: (channel: string, message: string) => void
    readonly onGap: () => void
  }) => Effect.Effect<void, RedisError, Scope.Scope>
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
}

/**
 * The address of a server or node.
 *
 * @category models
 * @since 0.1.0
 */
export interface Address {
  readonly host: string
  readonly port: number
}

/**
 * One server, by URL: `redis://user:password@host:6379/0`, with TLS `rediss://`. Other options win over the URL.
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

type RawOptions = Omit<IoredisOptions, "replyMapping">

/** Options with defaults applied. */
interface Settings {
  readonly mode: Mode
  readonly commandMillis: number
  readonly connectMillis: number
  readonly startMillis: number
  readonly maxWaiting: number
  readonly name: string
  /** What every socket is opened with, except for the address in a Cluster. */
  readonly base: RawOptions
  /** The nodes of a Cluster to begin with. */
  readonly seeds: ReadonlyArray<string>
  readonly natMap: NatMap | undefined
}

const reveal = (secret: Redacted.Redacted<string> | string): string =>
  Redacted.isRedacted(secret) ? Redacted.value(secret) : secret

const refused = (message: string) => new RedisError({ reason: "Refused", command: "connect", message })

const nameOf = (address: Address): string => `${address.host}:${address.port}`

/** The host of an IPv6 address contains colons, too. */
const addressOf = (name: string): Address => {
  const at = name.lastIndexOf(":")
  return { host: name.slice(0, at), port: Number(name.slice(at + 1)) }
}

const tlsOf = (tls: boolean | ConnectionOptions | undefined): ConnectionOptions | undefined =>
  tls === true ? {} : tls === false ? undefined : tls

const securityOf = (options: SecurityOptions): RawOptions => {
  const tls = tlsOf(options.tls)
  return {
    ...(options.username === undefined ? {} : { username: options.username }),
    ...(options.password === undefined ? {} : { password: reveal(options.password) }),
    ...(tls === undefined ? {} : { tls })
  }
}

const urlOf = (options: UrlOptions): RawOptions => {
  const text = reveal(options.url)
  const url = URL.canParse(text) ? new URL(text) : undefined
  const db = url === undefined ? "" : url.pathname.replace(/^\//, "")
  // The text is not quoted: it may hold a password.
  if (url === undefined || !/^rediss?:$/.test(url.protocol) || url.hostname === "" || !/^\d*$/.test(db)) {
    throw refused("the URL is not of the form redis://user:password@host:port/db or rediss://…")
  }
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: url.port === "" ? 6379 : Number(url.port),
    db: options.db ?? Number(db),
    ...(url.username === "" ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === "" ? {} : { password: decodeURIComponent(url.password) }),
    ...(url.protocol === "rediss:" ? { tls: {} } : {}),
    ...securityOf(options)
  }
}

interface Origin {
  readonly mode: Mode
  readonly base: RawOptions
  readonly seeds?: ReadonlyArray<string>
  readonly natMap?: NatMap | undefined
}

const clientOrigin = (client: Client | Cluster): Origin => {
  const { keyPrefix, replyMapping, ...base }: IoredisOptions = client instanceof Cluster
    ? { ...client.options.redisOptions, keyPrefix: client.options.keyPrefix ?? "" }
    : client.options
  if (keyPrefix) throw refused("a client with keyPrefix cannot be used: give rotif a prefix of its own")
  if (replyMapping === "resp3") throw refused(`a client with replyMapping "resp3" cannot be used: use "legacy"`)
  if (!(client instanceof Cluster)) return { mode: base.sentinels ? "sentinel" : "standalone", base }
  // Private in its type, and the only place where ioredis keeps what the Cluster was made with.
  const nodes: ReadonlyArray<ClusterNode> = Reflect.get(client, "startupNodes")
  const options = nodes.map((node) =>
    (typeof node === "string" ? new Client(node, { lazyConnect: true }) : new Client({
      ...(typeof node === "number" ? { port: node } : node),
      lazyConnect: true
    })).options
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
    seeds: options.map(({ host, port }) => nameOf({ host: host ?? "127.0.0.1", port: port ?? 6379 })),
    natMap: client.options.natMap
  }
}

const originOf = (options: Options): Origin => {
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
    return { mode: "sentinel", base }
  }
  if ("url" in options) return { mode: "standalone", base: urlOf(options) }
  const { db = 0, host, port = 6379 } = options
  return { mode: "standalone", base: { host, port, db, ...securityOf(options) } }
}

const settingsOf = (options: Options): Settings => {
  const { base, mode, natMap, seeds = [] } = originOf(options)
  if (mode === "cluster" && seeds.length === 0) throw refused("a Cluster needs at least one node")
  if (mode === "sentinel" && !base.sentinels?.length) throw refused("at least one Sentinel is needed")
  for (const tls of [base.tls, base.sentinelTLS]) {
    if (tls?.rejectUnauthorized === false && options.insecure !== true) {
      throw refused("rejectUnauthorized: false accepts any server: it needs the option insecure: true")
    }
  }
  const connectMillis = Duration.toMillis(options.connectTimeout ?? "3 seconds")
  const commandMillis = Duration.toMillis(options.commandTimeout ?? "5 seconds")
  return {
    mode,
    seeds,
    natMap,
    commandMillis,
    connectMillis,
    startMillis: Duration.toMillis(options.startTimeout ?? "10 seconds"),
    maxWaiting: options.maxWaiting ?? 10_000,
    name: options.connectionName ?? "rotif",
    base: {
      ...base,
      lazyConnect: true,
      enableOfflineQueue: false,
      // Ours reads the same INFO, and says why.
      enableReadyCheck: false,
      retryStrategy: () => null,
      maxRetriesPerRequest: null,
      autoResubscribe: false,
      reconnectOnError: null,
      connectTimeout: connectMillis,
      // `destroy` does not wait for the other side.
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
      ...(mode === "sentinel"
        ? {
          role: "master",
          failoverDetector: true,
          sentinelRetryStrategy: () => null,
          sentinelCommandTimeout: sentinelMillis
        }
        : {})
    }
  }
}

/** One Sentinel that does not answer must not use up the time for an attempt. */
const sentinelMillis = 1000

// -----------------------------------------------------------------------------
// Sockets
// -----------------------------------------------------------------------------

const transientCodes = new Set([
  "LOADING",
  "BUSY",
  "TRYAGAIN",
  "CLUSTERDOWN",
  "MASTERDOWN",
  "READONLY",
  "NOREPLICAS",
  "UNBLOCKED",
  "MISCONF",
  "NOSCRIPT",
  "MOVED",
  "ASK"
])

/**
 * Tells what an error of ioredis means for the command that failed with it.
 *
 * @category errors
 * @since 0.1.0
 */
export const classify = (error: unknown): RedisErrorReason => {
  if (!(error instanceof Error)) return "ConnectionLost"
  const { message, name } = error
  if (message.startsWith("Stream isn't writeable")) return "Unavailable"
  // Whatever does not come from the server: the command was sent, and nobody knows what became of it.
  if (name !== "ReplyError") return "ConnectionLost"
  const code = message.split(" ", 1)[0]!
  if (code === "OOM") return "OutOfMemory"
  if (code === "NOGROUP" || /^ERR (no such key|The XGROUP subcommand requires the key)/.test(message)) return "NoGroup"
  return transientCodes.has(code) || message.includes("max number of clients") ? "Transient" : "Refused"
}

/** The only way from a foreign error to ours. The foreign one carries all arguments: it must not become the cause. */
const errorOf = (command: string, error: unknown): RedisError =>
  new RedisError({ reason: classify(error), command, message: messageOf(error) })

/** The same failure, for another command. */
const refusal = (command: string, failure: RedisError): RedisError =>
  new RedisError({ reason: failure.reason, command, message: failure.message })

const unavailable = (command: string, message: string): RedisError =>
  new RedisError({ reason: "Unavailable", command, message })

/** One ioredis client for the life of one socket. */
interface Socket {
  readonly client: Client
  /** Where it leads to. */
  readonly target: string
  readonly id: number
  readonly runId: string
  /** Commands that were written and not answered. */
  pending: number
  isCorked: boolean
}

interface Target {
  readonly name: string
  readonly options: RawOptions
}

const destroy = (client: Client): void => {
  // Also ends the connections to Sentinels; the socket itself would wait for the other side.
  client.disconnect()
  client.stream?.destroy()
}

/**
 * Opens a socket and logs in; fails with `Refused` when trying again makes no sense, else with `Unavailable`.
 *
 * What the lost predecessor wrote may still wait in the buffers of the server. It is killed there before anything else
 * is sent, so that nothing of it can be executed later than what is sent here.
 */
const open = async (
  settings: Settings,
  target: Target,
  predecessor: Socket | undefined,
  signal: AbortSignal
): Promise<Socket> => {
  const client = new Client({ ...target.options, replyMapping: "legacy" })
  let failure: unknown
  client.on("error", (error) => {
    failure ??= error
  })
  // The connectTimeout of ioredis ends with the TCP connection: a frozen server would never answer.
  const limit = settings.connectMillis + sentinelMillis * (target.options.sentinels?.length ?? 0)
  const timer = setTimeout(() => {
    failure ??= new Error(`no answer within ${limit} ms`)
    destroy(client)
  }, limit)
  const abort = () => destroy(client)
  signal.addEventListener("abort", abort)
  try {
    await client.connect()
    const [id, text] = await Promise.all([
      client.call("client", "id"),
      client.call("info").catch((error: unknown) => {
        if (messageOf(error).startsWith("NOPERM")) return ""
        throw error
      })
    ])
    // ioredis reports a refused SELECT as an event and goes on with another database.
    if (failure !== undefined) throw failure
    const info = parseInfo(String(text))
    const problem = problemOf(info, settings.mode)
    if (problem !== undefined) throw problem.isLasting ? refused(problem.message) : new Error(problem.message)
    if (predecessor !== undefined && info.runId !== "" && predecessor.runId === info.runId) {
      await client.call("client", "kill", "id", predecessor.id).catch((error: unknown) => {
        // Not permitted, or gone already.
        if (classify(error) !== "Refused") throw error
      })
    }
    return { client, target: target.name, id: Number(id), runId: info.runId, pending: 0, isCorked: false }
  } catch (error) {
    destroy(client)
    const first = failure ?? error
    if (first instanceof RedisError) throw first
    throw new RedisError({
      reason: classify(first) === "Refused" ? "Refused" : "Unavailable",
      command: "connect",
      message: `${target.name}: ${messageOf(first)}`
    })
  } finally {
    clearTimeout(timer)
    signal.removeEventListener("abort", abort)
  }
}

const utf8 = { replyEncoding: "utf8" } as const

/** Sends commands in one write, together with all others of this moment, and calls back with their replies and errors. */
const write = (
  socket: Socket,
  commands: ReadonlyArray<Command>,
  isAsking: boolean,
  done: (replies: Array<unknown>) => void
): void => {
  const { client } = socket
  if (!socket.isCorked) {
    socket.isCorked = true
    const { stream } = client
    stream.cork()
    process.nextTick(() => {
      socket.isCorked = false
      stream.uncork()
    })
  }
  const replies = new Array<unknown>(commands.length)
  let missing = commands.length
  socket.pending += missing
  const settle = (index: number, reply: unknown) => {
    replies[index] = reply
    socket.pending--
    if (--missing === 0) done(replies)
  }
  for (let index = 0; index < commands.length; index++) {
    const [name, ...args] = commands[index]!
    if (isAsking) client.call("asking").catch(() => {})
    const command = new ClientCommand(name, args, utf8)
    client.sendCommand(command)
    command.promise.then((reply) => settle(index, reply), (error) => settle(index, errorOf(name, error)))
  }
}

// -----------------------------------------------------------------------------
// Links: a socket at a time, made anew when it is needed
// -----------------------------------------------------------------------------

interface Link {
  /** The socket, when it can be used now. */
  readonly ready: () => Socket | undefined
  /**
   * Calls back when it is worth looking again: an attempt to connect has succeeded or failed. With an error when waiting
   * is of no use. Returns how to stop waiting.
   */
  readonly wait: (command: string, resume: (failure?: RedisError) => void) => () => void
  readonly drop: (socket: Socket) => void
  /** Why there is no socket. */
  readonly problem: (command: string) => RedisError
  readonly generation: () => number
  readonly close: () => void
}

const makeLink = (settings: Settings, options: {
  /** Asked before every attempt. */
  readonly target: () => Target | undefined
  /** Done before those who wait look again. */
  readonly onFailure: () => Promise<unknown>
}): Link => {
  const waiting = new Set<() => void>()
  const closing = new AbortController()
  let socket: Socket | undefined
  let lost: Socket | undefined
  let generation = 0
  let failure: RedisError | undefined
  let failures = 0
  let downSince = Date.now()
  let retryAt = 0
  let timer: NodeJS.Timeout | undefined
  let isOpening = false

  const wakeAll = () => {
    const entries = [...waiting]
    waiting.clear()
    for (const entry of entries) entry()
  }

  const drop = (gone: Socket) => {
    destroy(gone.client)
    if (socket !== gone) return
    socket = undefined
    lost = gone
    downSince = Date.now()
  }

  const attempt = async () => {
    isOpening = true
    try {
      const target = options.target()
      if (target === undefined) throw unavailable("connect", "no node of the Cluster is known to serve this key")
      const opened = await open(settings, target, lost, closing.signal)
      opened.client.once("end", () => drop(opened))
      if (closing.signal.aborted) return drop(opened)
      lost = undefined
      failure = undefined
      failures = 0
      generation++
      socket = opened
    } catch (error) {
      failure = error instanceof RedisError ? error : errorOf("connect", error)
      failures++
      retryAt = performance.now() + Math.random() * Math.min(2000, 50 * 2 ** failures)
      await options.onFailure()
    } finally {
      isOpening = false
      wakeAll()
    }
  }

  const connect = () => {
    if (isOpening || timer !== undefined) return
    const pause = retryAt - performance.now()
    if (pause <= 0) return void attempt()
    timer = setTimeout(() => {
      timer = undefined
      if (waiting.size > 0) void attempt()
    }, pause)
  }

  const ready = () => {
    // The promises of a lost socket settle before its events are emitted.
    if (socket !== undefined && socket.client.status !== "ready") drop(socket)
    return socket
  }

  const problem = (command: string) =>
    unavailable(
      command,
      `no connection since ${new Date(downSince).toISOString()}` + (failure === undefined ? "" : ` (${failure.message})`)
    )

  return {
    ready,
    drop,
    problem,
    generation: () => generation,
    wait: (command, resume) => {
      if (closing.signal.aborted) {
        resume(unavailable(command, "the connection is closed"))
      } else if (failure?.reason === "Refused" && retryAt > performance.now()) {
        resume(refusal(command, failure))
      } else if (waiting.size >= settings.maxWaiting) {
        resume(unavailable(command, `${waiting.size} callers wait for a connection already`))
      } else {
        const entry = () => resume(failure?.reason === "Refused" ? refusal(command, failure) : undefined)
        waiting.add(entry)
        connect()
        return () => void waiting.delete(entry)
      }
      return () => {}
    },
    close: () => {
      closing.abort()
      clearTimeout(timer)
      if (socket !== undefined) drop(socket)
      wakeAll()
    }
  }
}

// -----------------------------------------------------------------------------
// Servers: which link serves a slot
// -----------------------------------------------------------------------------

interface Servers {
  /** The shared link of the server that owns the slot; none while nobody is known to. */
  readonly owner: (slot: number) => Link | undefined
  /** The shared link of a server by name. */
  readonly named: (name: string) => Link
  /** The address for a private connection; without a slot, of any server. */
  readonly target: (role: string, socketTimeout: number | undefined, slot: number | undefined) => Target | undefined
  /** Takes note of "MOVED slot host:port"; false when that leads nowhere new. */
  readonly moved: (message: string, socket: Socket) => boolean
  /** The link that "ASK slot host:port" names. */
  readonly asked: (message: string, socket: Socket) => Link
  /** Asks the Cluster who owns what; the failure, if nobody could tell. */
  readonly refresh: () => Promise<RedisError | undefined>
  readonly close: () => void
}

const withRole = (settings: Settings, role: string, socketTimeout: number | undefined): RawOptions => ({
  ...settings.base,
  connectionName: `${settings.name}:${role}`,
  socketTimeout
})

const oneServer = (settings: Settings): Servers => {
  const { host = "localhost", name, path, port = 6379 } = settings.base
  const target = (role: string, socketTimeout: number | undefined): Target => ({
    name: settings.mode === "sentinel" ? `master ${name}` : path ?? `${host}:${port}`,
    options: withRole(settings, role, socketTimeout)
  })
  const link = makeLink(settings, {
    target: () => target("commands", settings.commandMillis),
    onFailure: () => Promise.resolve()
  })
  return {
    owner: () => link,
    named: () => link,
    target,
    moved: () => false,
    asked: () => link,
    refresh: () => Promise.resolve(undefined),
    close: link.close
  }
}

const refreshSpacingMillis = 100
/** How many nodes are asked at the same time: one of them may be frozen. */
const refreshWidth = 3

const clusterServers = (settings: Settings): Servers => {
  const links = new Map<string, Link>()
  const closing = new AbortController()
  let owners: ReadonlyArray<string> = []
  let slots = new Array<string | undefined>(16_384)
  let refreshing: Promise<RedisError | undefined> | undefined
  let refreshedAt = -Infinity

  const target = (nodeName: string, role: string, socketTimeout: number | undefined): Target => ({
    name: nodeName,
    options: { ...withRole(settings, role, socketTimeout), ...addressOf(nodeName) }
  })

  const named = (nodeName: string): Link => {
    let link = links.get(nodeName)
    if (link === undefined) {
      link = makeLink(settings, { target: () => target(nodeName, "commands", settings.commandMillis), onFailure: refresh })
      if (closing.signal.aborted) link.close()
      links.set(nodeName, link)
    }
    return link
  }

  /** A node that has no host name for itself or for another one leaves it empty: then it is that of the node asked. */
  const reachable = (host: string | null, port: number, asked: string): string => {
    const name = nameOf({ host: host || addressOf(asked).host, port })
    const { natMap } = settings
    const mapped = typeof natMap === "function" ? natMap(name) : natMap?.[name]
    return mapped ? nameOf(mapped) : name
  }

  const ask = async (nodeName: string) => {
    const socket = await open(settings, target(nodeName, "topology", settings.commandMillis), undefined, closing.signal)
    try {
      const ranges = await socket.client.call("cluster", "slots") as ReadonlyArray<
        readonly [from: number, to: number, master: readonly [host: string | null, port: number]]
      >
      return ranges.map(([from, to, [host, port]]) => ({ from, to, owner: reachable(host, port, nodeName) }))
    } catch (error) {
      throw errorOf("cluster", error)
    } finally {
      destroy(socket.client)
    }
  }

  const learn = async (): Promise<RedisError | undefined> => {
    const candidates = [...new Set([...owners, ...settings.seeds])].sort(() => Math.random() - 0.5)
    let failure: RedisError | undefined
    while (candidates.length > 0 && !closing.signal.aborted) {
      try {
        const ranges = await Promise.any(candidates.splice(0, refreshWidth).map(ask))
        slots = new Array(16_384)
        for (const { from, owner, to } of ranges) slots.fill(owner, from, to + 1)
        owners = [...new Set(ranges.map((range) => range.owner))]
        for (const [name, link] of links) {
          // Whoever still waits for an answer gets it; the link goes at a later refresh.
          if (owners.includes(name) || (link.ready()?.pending ?? 0) > 0) continue
          links.delete(name)
          link.close()
        }
        return undefined
      } catch (error) {
        const failures: ReadonlyArray<unknown> = error instanceof AggregateError ? error.errors : [error]
        for (const each of failures) {
          if (!(each instanceof RedisError)) throw each
          if (failure === undefined || each.reason === "Refused") failure = each
        }
      }
    }
    return failure
  }

  const refresh = (): Promise<RedisError | undefined> => {
    if (refreshing !== undefined) return refreshing
    if (performance.now() - refreshedAt < refreshSpacingMillis) return Promise.resolve(undefined)
    return refreshing = learn().finally(() => {
      refreshing = undefined
      refreshedAt = performance.now()
    })
  }

  /** "MOVED 3999 127.0.0.1:6381" */
  const redirection = (message: string, socket: Socket) => {
    const [, slot, to = ""] = message.split(" ")
    const { host, port } = addressOf(to)
    return { slot: Number(slot), name: reachable(host, port, socket.target) }
  }

  return {
    owner: (slot) => {
      const name = slots[slot]
      return name === undefined ? undefined : named(name)
    },
    named,
    target: (role, socketTimeout, slot) => {
      const name = slot === undefined ? owners[Math.floor(Math.random() * owners.length)] : slots[slot]
      return name === undefined ? undefined : target(name, role, socketTimeout)
    },
    moved: (message, socket) => {
      const { name, slot } = redirection(message, socket)
      void refresh()
      if (!(slot >= 0 && slot < slots.length)) return false
      slots[slot] = name
      return name !== socket.target
    },
    asked: (message, socket) => named(redirection(message, socket).name),
    refresh,
    close: () => {
      closing.abort()
      for (const link of links.values()) link.close()
    }
  }
}

// -----------------------------------------------------------------------------
// The shared connection
// -----------------------------------------------------------------------------

const pauseMillis = () => 20 + Math.random() * 180

/** So many redirections in a row are followed at once. */
const maxHops = 5

const isRetryable = (reply: unknown, idempotent: boolean): reply is RedisError =>
  reply instanceof RedisError &&
  (reply.reason === "Transient" || reply.reason === "Unavailable" || (idempotent && reply.reason === "ConnectionLost"))

/**
 * Sends commands to the owner of a slot and gives their replies, refusals in their places.
 *
 * The refusals at the end of the replies are repeated until `timeoutMillis` after the beginning: with them everything in
 * front of them keeps its place before them. `instead` is sent when the server does not know the script.
 */
const exchange = (servers: Servers, slot: number, timeoutMillis: number, request: {
  readonly commands: ReadonlyArray<Command>
  readonly idempotent: boolean
  readonly instead?: Command
}): Effect.Effect<ReadonlyArray<unknown>, RedisError> =>
  Effect.callback((resume) => {
    const startedAt = performance.now()
    const [name] = request.commands[0]!
    let commands = request.commands
    let replies: Array<unknown> = []
    let asked: Link | undefined
    let hops = 0
    let expiry: NodeJS.Timeout | undefined
    let pausing: NodeJS.Timeout | undefined
    let stopWaiting = () => {}
    let isOver = false

    const stop = () => {
      isOver = true
      clearTimeout(expiry)
      clearTimeout(pausing)
      stopWaiting()
    }
    const finish = (failure?: RedisError) => {
      stop()
      // What was executed is told, whatever became of the rest.
      if (failure === undefined) resume(Effect.succeed(replies))
      else if (replies.length === 0) resume(Effect.fail(failure))
      else resume(Effect.succeed([...replies, ...commands.map(() => failure)]))
    }
    const pause = (failure: RedisError) => {
      const millis = pauseMillis()
      if (performance.now() + millis - startedAt > timeoutMillis) finish(failure)
      else pausing = setTimeout(run, millis)
    }
    const waitFor = (link: Link) => {
      // Only those who wait have a timer; a sent command ends with its socket at the latest.
      clearTimeout(expiry)
      expiry = setTimeout(() => finish(link.problem(name)), timeoutMillis - (performance.now() - startedAt))
      stopWaiting = link.wait(name, (failure) => failure === undefined ? run() : finish(failure))
    }
    const run = () => {
      if (isOver) return
      const link = asked ?? servers.owner(slot)
      if (link === undefined) {
        void servers.refresh().then((failure) =>
          isOver
            ? undefined
            : failure?.reason === "Refused"
            ? finish(refusal(name, failure))
            : servers.owner(slot) !== undefined
            ? run()
            : pause(unavailable(name, failure?.message ?? `no node of the Cluster serves slot ${slot}`))
        )
        return
      }
      const socket = link.ready()
      if (socket === undefined) return waitFor(link)
      clearTimeout(expiry)
      const isAsking = asked !== undefined
      asked = undefined
      write(socket, commands, isAsking, (answers) => judge(link, socket, answers))
    }
    const judge = (link: Link, socket: Socket, answers: Array<unknown>) => {
      // Interrupted: nobody waits for a repetition.
      if (isOver) return
      let end = answers.length
      while (end > 0 && isRetryable(answers[end - 1], request.idempotent)) end--
      const refused = answers[end]
      if (!(refused instanceof RedisError)) {
        replies = replies.length === 0 ? answers : [...replies, ...answers]
        const [first] = replies
        const allLost = replies.every((reply) => reply instanceof RedisError && reply.reason === "ConnectionLost")
        if (allLost && first instanceof RedisError) resume(Effect.fail(first))
        else finish()
        return
      }
      replies.push(...answers.slice(0, end))
      commands = commands.slice(end)
      const code = refused.message.split(" ", 1)[0]!
      if (code === "NOSCRIPT" && request.instead !== undefined) {
        commands = [request.instead]
        return run()
      }
      if (code === "MOVED" && servers.moved(refused.message, socket) && hops++ < maxHops) return run()
      if (code === "ASK" && hops++ < maxHops) {
        asked = servers.asked(refused.message, socket)
        return run()
      }
      // The server was demoted: the address may lead to its successor.
      if (code === "READONLY") link.drop(socket)
      if (code === "CLUSTERDOWN") void servers.refresh()
      pause(refused)
    }

    run()
    return Effect.sync(stop)
  })

const hashes = new WeakMap<Script, string>()

const hashOf = (script: Script): string => {
  let hash = hashes.get(script)
  if (hash === undefined) {
    hash = createHash("sha1").update(script.lua).digest("hex")
    hashes.set(script, hash)
  }
  return hash
}

const firstReply = (replies: ReadonlyArray<unknown>): Effect.Effect<unknown, RedisError> => {
  const [reply] = replies
  return reply instanceof RedisError ? Effect.fail(reply) : Effect.succeed(reply)
}

const makeConnection = (settings: Settings, servers: Servers, slot: number): Connection => ({
  send: (command, { idempotent }) =>
    Effect.flatMap(exchange(servers, slot, settings.commandMillis, { commands: [command], idempotent }), firstReply),
  pipeline: (commands) =>
    commands.length === 0
      ? Effect.succeed([])
      : exchange(servers, slot, settings.commandMillis, { commands, idempotent: false }),
  evaluate: (script, keys, args, { idempotent }) => {
    const rest = [keys.length, ...keys, ...args]
    return exchange(servers, slot, settings.commandMillis, {
      commands: [["evalsha", hashOf(script), ...rest]],
      instead: ["eval", script.lua, ...rest],
      idempotent
    }).pipe(
      Effect.flatMap(firstReply),
      Effect.mapError((error) => new RedisError({ reason: error.reason, command: script.name, message: error.message }))
    )
  }
})

// -----------------------------------------------------------------------------
// The connection of one reader
// -----------------------------------------------------------------------------

const sleep = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

const unblockSpacingMillis = 5

/** How long closing waits for a blocked command to return. */
const farewellMillis = 1000

const makeBlocking = Effect.fnUntraced(function*(settings: Settings, servers: Servers, slot: number) {
  const link = makeLink(settings, {
    // A socket timeout would have to know how long each command blocks: `send` does.
    target: () => servers.target("reader", undefined, slot),
    onFailure: servers.refresh
  })
  let blocked: { readonly socket: Socket; onEnd: () => void } | undefined

  const send = (command: Command, deadlineMillis: number): Effect.Effect<unknown, RedisError> =>
    Effect.callback((resume) => {
      const [name] = command
      let stopWaiting = () => {}
      const expiry = setTimeout(() => {
        stopWaiting()
        resume(Effect.fail(link.problem(name)))
      }, settings.commandMillis)
      const run = () => {
        const socket = link.ready()
        if (socket === undefined) {
          stopWaiting = link.wait(name, (failure) => {
            if (failure === undefined) return run()
            clearTimeout(expiry)
            resume(Effect.fail(failure))
          })
          return
        }
        clearTimeout(expiry)
        const mine = { socket, onEnd: () => {} }
        blocked = mine
        const watchdog = setTimeout(() => link.drop(socket), deadlineMillis)
        stopWaiting = () => {
          // Nobody takes the answer any more. On a new socket the next command neither queues behind this one nor gets
          // less than it was sent: the change of generation tells that an answer was lost.
          clearTimeout(watchdog)
          link.drop(socket)
        }
        write(socket, [command], false, ([reply]) => {
          clearTimeout(watchdog)
          if (blocked === mine) blocked = undefined
          mine.onEnd()
          if (!(reply instanceof RedisError)) return resume(Effect.succeed(reply))
          if (reply.message.startsWith("MOVED ")) {
            servers.moved(reply.message, socket)
            link.drop(socket)
          } else if (reply.message.startsWith("READONLY ")) {
            link.drop(socket)
          }
          resume(Effect.fail(reply))
        })
      }
      run()
      return Effect.sync(() => {
        clearTimeout(expiry)
        stopWaiting()
      })
    })

  const unblock: Effect.Effect<void> = Effect.suspend(() => {
    const mine = blocked
    if (mine === undefined) return Effect.void
    const shared = servers.named(mine.socket.target)
    const toShared = (command: Command) =>
      exchange({ ...servers, owner: () => shared }, slot, settings.commandMillis, { commands: [command], idempotent: true })
    const again: Effect.Effect<void, RedisError> = Effect.suspend(() => {
      if (blocked !== mine) return Effect.void
      const socket = shared.ready()
      if (socket === undefined) return Effect.andThen(toShared(["ping"]), again)
      // The reader was left at a server that is not the master any more; here its id may be that of somebody else.
      if (socket.runId !== mine.socket.runId) return Effect.sync(() => link.drop(mine.socket))
      return Effect.flatMap(toShared(["client", "unblock", mine.socket.id]), ([reply]) =>
        // 0: its command has not arrived yet, or its answer is on the way.
        reply === 0 ? Effect.andThen(sleep(unblockSpacingMillis), again) : Effect.void)
    })
    // Where nothing can be sent, the time of the command ends it.
    return Effect.catch(again, () => Effect.void)
  })

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      const mine = blocked
      const close = Effect.sync(link.close)
      if (mine === undefined) return close
      // Taken while it still has a reader: what is lost with the socket stays leased for nothing.
      const answered = new Promise<void>((resolve) => {
        mine.onEnd = resolve
      })
      const farewell = Effect.andThen(unblock, Effect.promise(() => answered))
      return Effect.ensuring(Effect.raceFirst(farewell, sleep(farewellMillis)), close)
    })
  )
  return { send, unblock, generation: link.generation }
})

// -----------------------------------------------------------------------------
// Pub/Sub
// -----------------------------------------------------------------------------

interface Listener {
  readonly channels: ReadonlyArray<string>
  readonly handler: Parameters<Redis["Service"]["listen"]>[1]
  /** Not confirmed on the present socket. */
  missing: Set<string>
  isEstablished: boolean
  readonly resume: (exit: Effect.Effect<void, RedisError>) => void
}

const makeSubscriber = (settings: Settings, servers: Servers) => {
  const link = makeLink(settings, {
    target: () => servers.target("subscriber", settings.commandMillis, undefined),
    onFailure: servers.refresh
  })
  const listeners = new Map<string, Set<Listener>>()
  const confirmed = new Set<string>()
  let current: Socket | undefined
  let heartbeat: NodeJS.Timeout | undefined
  let retry: NodeJS.Timeout | undefined
  let stopWaiting: (() => void) | undefined

  const all = () => new Set([...listeners.values()].flatMap((set) => [...set]))

  const confirm = (channel: string) => {
    confirmed.add(channel)
    for (const listener of listeners.get(channel) ?? []) {
      if (!listener.missing.delete(channel) || listener.missing.size > 0) continue
      if (listener.isEstablished) listener.handler.onGap()
      listener.isEstablished = true
      listener.resume(Effect.void)
    }
  }

  const subscribe = (socket: Socket) => {
    for (const channel of listeners.keys()) {
      if (confirmed.has(channel)) continue
      write(socket, [["subscribe", channel]], false, ([reply]) => {
        if (current !== socket) return
        if (!(reply instanceof RedisError)) return confirm(channel)
        for (const listener of listeners.get(channel) ?? []) listener.resume(Effect.fail(reply))
      })
    }
  }

  const detach = () => {
    clearInterval(heartbeat)
    clearTimeout(retry)
    stopWaiting?.()
    stopWaiting = undefined
    confirmed.clear()
    const socket = current
    current = undefined
    if (socket !== undefined) link.drop(socket)
  }

  const attach = () => {
    const socket = link.ready()
    if (socket === undefined) {
      clearTimeout(retry)
      stopWaiting?.()
      stopWaiting = link.wait("subscribe", (failure) => {
        if (failure === undefined) return attach()
        for (const listener of all()) {
          if (!listener.isEstablished) listener.resume(Effect.fail(failure))
        }
        // Whoever listens already goes on trying, also while the server refuses: passwords get changed.
        retry = setTimeout(attach, settings.connectMillis)
      })
      return
    }
    stopWaiting = undefined
    current = socket
    for (const listener of all()) listener.missing = new Set(listener.channels)
    socket.client.on("message", (channel, message) => {
      for (const { handler } of listeners.get(channel) ?? []) handler.onMessage(channel, message)
    })
    socket.client.once("end", () => {
      if (current !== socket) return
      detach()
      attach()
    })
    // A subscriber only hears: without a question it would never notice that the other side is gone.
    heartbeat = setInterval(() => {
      write(socket, [["ping"]], false, () => {})
      subscribe(socket)
    }, settings.commandMillis)
    subscribe(socket)
  }

  const remove = (listener: Listener) => {
    for (const channel of listener.channels) {
      const others = listeners.get(channel)
      if (others === undefined || !others.delete(listener) || others.size > 0) continue
      listeners.delete(channel)
      if (confirmed.delete(channel) && current !== undefined) write(current, [["unsubscribe", channel]], false, () => {})
    }
    if (listeners.size === 0) detach()
  }

  const add = (channels: ReadonlyArray<string>, handler: Listener["handler"]) => {
    let listener: Listener | undefined
    const established = Effect.callback<void, RedisError>((resume) => {
      const timer = setTimeout(() => resume(Effect.fail(link.problem("subscribe"))), settings.commandMillis)
      const added: Listener = {
        channels,
        handler,
        missing: new Set(channels.filter((channel) => !confirmed.has(channel))),
        isEstablished: false,
        resume: (exit) => {
          clearTimeout(timer)
          resume(exit)
        }
      }
      listener = added
      for (const channel of channels) {
        const others = listeners.get(channel)
        if (others === undefined) listeners.set(channel, new Set([added]))
        else others.add(added)
      }
      if (added.missing.size === 0) {
        added.isEstablished = true
        added.resume(Effect.void)
      } else if (current !== undefined) {
        subscribe(current)
      } else if (stopWaiting === undefined) {
        attach()
      }
      return Effect.sync(() => clearTimeout(timer))
    })
    return Effect.acquireRelease(
      established.pipe(Effect.onError(() => Effect.sync(() => listener && remove(listener)))),
      () => Effect.sync(() => listener && remove(listener)),
      { interruptible: true }
    )
  }

  return {
    listen: add,
    close: () => {
      detach()
      listeners.clear()
      link.close()
    }
  }
}

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

const isLoopback = (host: string) => host === "localhost" || host === "::1" || host.startsWith("127.")

/** Warns of what would lose messages or show the password. */
const inspect = Effect.fnUntraced(function*(settings: Settings, servers: Servers) {
  const replies = yield* exchange(servers, 0, settings.startMillis, {
    commands: ["maxmemory-policy", "appendonly", "save"].map((name): Command => ["config", "get", name]),
    idempotent: true
  })
  // Empty where CONFIG is not permitted: then nothing is known, and nothing said.
  const [policy, appendOnly, save] = replies.map((reply) => Array.isArray(reply) ? String(reply[1]) : undefined)
  if (policy !== undefined && policy !== "noeviction") {
    yield* Effect.logWarning(`Redis may evict messages: maxmemory-policy is ${policy}, set it to noeviction`)
  }
  if (appendOnly === "no" && save === "") {
    yield* Effect.logWarning("Redis keeps nothing over a restart: neither appendonly nor save is set")
  }
  const { base, seeds } = settings
  const hosts = [
    ...(settings.mode === "standalone" && !base.path ? [base.host ?? "localhost"] : []),
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
  const settings = yield* Effect.try({
    try: () => settingsOf(options),
    // What ioredis or Node say about options may quote them.
    catch: (error) => error instanceof RedisError ? error : refused("these options are not valid")
  })
  const servers = settings.mode === "cluster" ? clusterServers(settings) : oneServer(settings)
  const subscriber = makeSubscriber(settings, servers)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      subscriber.close()
      servers.close()
    })
  )
  const slotOf = (key: string) => settings.mode === "cluster" ? new ClientCommand("type", [key]).getSlot() ?? 0 : 0
  const connections = new Map<number, Connection>()
  yield* inspect(settings, servers)
  return Redis.of({
    mode: settings.mode,
    connection: (key) => {
      const slot = slotOf(key)
      let connection = connections.get(slot)
      if (connection === undefined) {
        connection = makeConnection(settings, servers, slot)
        connections.set(slot, connection)
      }
      return connection
    },
    blocking: (key) => makeBlocking(settings, servers, slotOf(key)),
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

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> =>
  Config.withDefault(config, undefined)

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
 * | `REDIS_USERNAME`, `REDIS_PASSWORD` | how to log in; they win over the URL |
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
}).pipe(Config.map(({ cluster, name, sentinelPassword, sentinelUsername, sentinels, url, ...common }): Options =>
  cluster !== undefined
    ? { cluster, ...common }
    : sentinels !== undefined
    ? { sentinels, name, sentinelUsername, sentinelPassword, ...common }
    : { url, ...common }
))

/**
 * Provides `Redis` with options from `Config`: those of `config`, or others.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Config<Options> = config
): Layer.Layer<Redis, RedisError | Config.ConfigError> =>
  Layer.effect(Redis, Effect.flatMap(options, make))
