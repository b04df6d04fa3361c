/**
 * The options of the Promise API, and their meaning for the layers below.
 */
import { Duration, Effect, Schema } from "effect"
import type { ConnectionOptions } from "node:tls"
import type * as DeadLetters from "../DeadLetters.ts"
import type * as RedisBroker from "../RedisBroker.ts"
import type * as Rotif from "../Rotif.ts"
import type * as Subscription from "../Subscription.ts"
import { archive } from "../internal/pattern.ts"
import type { Report } from "../internal/report.ts"
import type { Client, Cluster, IoredisOptions } from "../redis/ioredis.ts"
import type { AnyChannels, ChannelOptions } from "./channels.ts"
import type { Payload, RotifMessage } from "./message.ts"

/**
 * Where log lines go: `console`, pino, winston, or anything with these methods. Each gets one string.
 *
 * @category models
 * @since 0.1.0
 */
export interface Logger {
  debug(message: string): unknown
  info(message: string): unknown
  warn(message: string): unknown
  error(message: string): unknown
}

/**
 * The names of the retry strategies.
 *
 * @category models
 * @since 0.1.0
 */
export type RetryStrategyName = "fixed" | "linear" | "exponential" | "fibonacci" | "custom"

/**
 * A retry strategy; n is the number of the retry, from 1.
 *
 * @category models
 * @since 0.1.0
 */
export interface RetryStrategy {
  /**
   * - `fixed`: `baseDelay`. - `linear`: `baseDelay` · n. - `exponential`: `baseDelay` · `multiplier`^(n − 1).
   * - `fibonacci`: `baseDelay` · 1, 1, 2, 3, 5, … - `custom`: the result of `customDelayFn`. Default `exponential`.
   */
  readonly strategy?: RetryStrategyName | undefined
  /** Milliseconds. Not needed by `custom`. Default 1000. */
  readonly baseDelay?: number | undefined
  /** Of `exponential`. Default 2. */
  readonly multiplier?: number | undefined
  /** The longest delay in milliseconds, before jitter. */
  readonly maxDelay?: number | undefined
  /**
   * Spreads each delay d over 0.8 d to 1.2 d (`true`), a number j from 0 to 1 over (1 - j) d to (1 + j) d; the names are those of
   * `Retry.StrategyOptions`. Default: none.
   */
  readonly jitter?: boolean | "full" | "equal" | "proportional" | number | undefined
  readonly customDelayFn?: ((attempt: number, message: RotifMessage) => number) | undefined
}

/**
 * The retention of dead letters.
 *
 * @category models
 * @since 0.1.0
 */
export interface DlqCleanup {
  /** `false`: dead letters are kept until `cleanupDLQ`, which applies these limits. Default `true`. */
  readonly enabled?: boolean | undefined
  /** Milliseconds after which a dead letter is deleted. Default 90 days. */
  readonly maxAge?: number | undefined
  /** At most this many dead letters are kept; the oldest are deleted first. Default 100,000. */
  readonly maxSize?: number | undefined
  /** How often the limits are applied, in milliseconds. Default 1 minute. */
  readonly cleanupInterval?: number | undefined
  /** Publishes each dead letter to the channel `archivePrefix` before it is deleted. Default `false`. */
  readonly archiveBeforeDelete?: boolean | undefined
  /**
   * The name of the channel of the archive. Default `"dlq-archive"`. No wildcard matches that name and those below it
   * (`"dlq-archive.orders"`); any other name is matched like every channel, and the group of the wildcard gets the archived letters.
   */
  readonly archivePrefix?: string | undefined
}

/**
 * The configuration of a `NotificationManager`. All spans of time are milliseconds, unless a name says otherwise.
 *
 * @category models
 * @since 0.1.0
 */
export interface RotifConfig<Channels extends object = AnyChannels> {
  /** Options of channels by their names, such as a validator for the payloads of each. Other channels have none. */
  readonly channels?: { readonly [Name in keyof Channels]?: ChannelOptions<Channels[Name]> | undefined } | undefined

  /**
   * Where Redis is: a URL, options (`url`, `host` and `port`, `sentinels`, `cluster`, `username`, `password`, `tls`, `db`, …), or `"memory"`
   * for everything in this process, without Redis. Default `"redis://localhost:6379"`. Options of ioredis are taken, too, but for
   * `keyPrefix` (the option `prefix` does that): those of a connection hold for all of Rotif's, those of commands and retries for the
   * client `redis` of the manager.
   */
  readonly redis?: string | RedisOptions | undefined
  /** Retries after the first attempt. Default 5. */
  readonly maxRetries?: number | undefined
  /** How long a failed message waits for its next attempt. Default 1000. */
  readonly retryDelay?: number | ((attempt: number, message: RotifMessage) => number) | undefined
  /** A strategy in place of `retryDelay`. */
  readonly retryStrategy?: RetryStrategy | RetryStrategyName | undefined
  /** Fallback poll interval for waiting messages, in case a notification is lost. Default 1000. */
  readonly checkDelayInterval?: number | undefined
  /**
   * Whether this process delivers messages that were published with `delayMs` or `deliverAt`. At least one process of the namespace must: without
   * one they wait. Retries do not depend on it. Default `true`.
   */
  readonly enableDelayed?: boolean | undefined
  /** The opposite of `enableDelayed`. */
  readonly disableDelayed?: boolean | undefined
  /** How long one read waits at Redis; a message ends the wait at once. Default 5000. */
  readonly blockInterval?: number | undefined
  /** Default: the logger of Effect, which prints to the console. */
  readonly logger?: Logger | undefined
  /** Keeps at most about this many messages of each channel, at least 1. A removed message is lost for groups that have not handled it. */
  readonly maxStreamLength?: number | undefined
  /** Keeps no message below this position, such as `"1700000000000-0"`. */
  readonly minStreamId?: string | undefined
  /** The group of a subscription that names none. Default `grp:` and the pattern. */
  readonly groupNameFn?: ((pattern: string) => string) | undefined
  /** The first part of consumers' names; a random part is added. Default `host:pid`. */
  readonly consumerNameFn?: (() => string) | undefined
  /** Exactly-once publishes and handlings are remembered for this long, in **seconds**. Default 3600. */
  readonly deduplicationTTL?: number | undefined
  /**
   * The key by which two messages are the same for `exactlyOnce`, if the publish has no `dedupKey`. Default: channel and payload for `publish`; for
   * `subscribe` the id of the message.
   */
  readonly generateDedupKey?: ((message: { readonly channel: string; readonly payload: Payload }) => string) | undefined
  /**
   * The ordering key of a message whose publish gives none, or `null` for none: a group handles the messages of one channel with the same key
   * one after the other. Default: none.
   */
  readonly generateOrderingKey?:
    | ((message: { readonly channel: string; readonly payload: Payload }) => string | null)
    | undefined
  /** The subscriptions of one group take turns, one message each, in place of reading ahead. Default `false`. */
  readonly localRoundRobin?: boolean | undefined
  /** At most this many handlers of a subscription run at a time. Default 1, in the order of publishing. */
  readonly concurrency?: number | undefined
  /** Namespace of all keys in Redis. Default `"rotif"`. */
  readonly prefix?: string | undefined
  /** How many slots of a Cluster the channels are spread over; the same for all programs of a namespace. Default 1. */
  readonly shards?: number | undefined
  /** How long a message belongs to a handler without a renewal by its process. Default 60,000. */
  readonly lease?: number | undefined
  /** `stopAll` and `unsubscribe` wait for running handlers for at most this long. Default 30,000. */
  readonly drainTimeout?: number | undefined
  /** Checks the health this often, and logs its changes. Default: never. */
  readonly healthInterval?: number | undefined
  /**
   * The name under which `subscribeToDLQ` remembers which dead letters it has seen: processes with one name share them, each name gets
   * all. Default `"dlq"`.
   */
  readonly dlqKey?: string | undefined
  readonly dlqCleanup?: DlqCleanup | undefined
  /** The largest message, in bytes. Default 1 MiB. */
  readonly maxPayloadBytes?: number | undefined
  /** The durability that a `publish` waits for. Default: the message survives the loss of this process. */
  readonly durability?: Durability | undefined
  /**
   * Where failures of messages are reported (dead letters, defects, messages that are given back again and again): a level of the log, `false`
   * for nowhere, or a function that gets every report. Default `"warn"`: at most 10 lines in 10 seconds for each group, then a count of the rest.
   * A failure that is retried is a line of level `debug`.
   */
  readonly reports?: Reports | undefined
  /** A handler that runs for more than this many milliseconds is reported once, in the log. Default 5 minutes. */
  readonly slowHandler?: number | undefined
  /** Options of `@devgrid/rotif` that are accepted, and have no effect here. */
  readonly scheduledBatchSize?: unknown
  readonly pendingCheckInterval?: unknown
  readonly pendingIdleThreshold?: unknown
  readonly disablePendingMessageRecovery?: unknown
  readonly pipelineBatchSize?: unknown
  readonly enablePipelining?: unknown
  readonly enableFieldPooling?: unknown
  readonly enableBackpressure?: unknown
  readonly backpressureThreshold?: unknown
  readonly enableHealthCheck?: unknown
}

/**
 * The target of reports: a level of the log, nowhere (`false`), or a function. An error of the function is logged.
 *
 * @category models
 * @since 0.1.0
 */
export type Reports = "error" | "warn" | "info" | "debug" | false | ((report: Report) => unknown)

/**
 * Where Redis is, and how to connect: one of `url`, `host`, `sentinels` and `cluster`, or a `client`. Other options of ioredis are taken, too.
 *
 * @category models
 * @since 0.1.0
 */
export interface RedisOptions extends Partial<Omit<IoredisOptions, keyof Place | "keyPrefix">>, Place {}

/** The options of Rotif's own connections. */
interface Place {
  /** `redis://user:password@host:6379/0`, with TLS `rediss://`. */
  readonly url?: string | undefined
  readonly host?: string | undefined
  /** Default 6379. */
  readonly port?: number | undefined
  readonly db?: number | undefined
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** `true`, or options of `node:tls`. */
  readonly tls?: boolean | ConnectionOptions | undefined
  /** Allows `rejectUnauthorized: false`, which is TLS without a verified server. Default `false`. */
  readonly insecure?: boolean | undefined
  /** Addresses of a host name to use: IPv4, IPv6, or both (0, the default). */
  readonly family?: 0 | 4 | 6 | undefined
  /** Sentinels, which name the master. `name` says which master. */
  readonly sentinels?: ReadonlyArray<Address> | undefined
  readonly name?: string | undefined
  readonly sentinelUsername?: string | undefined
  readonly sentinelPassword?: string | undefined
  readonly sentinelTls?: boolean | ConnectionOptions | undefined
  /** Some nodes of a Redis Cluster. */
  readonly cluster?: ReadonlyArray<Address> | undefined
  /** Maps addresses as the servers report them to addresses that can be reached from here. */
  readonly natMap?: Readonly<Record<string, Address>> | ((name: string) => Address | null) | undefined
  /** A client whose options are used. The client itself is neither used nor closed. */
  readonly client?: RedisClient | undefined
  /** The longest wait of a command for a connection, and of a sent command for an answer, in milliseconds. Default 5000. */
  readonly commandTimeout?: number | undefined
  /** The time limit of one attempt to connect, in milliseconds. Default 3000. */
  readonly connectTimeout?: number | undefined
  /** The time limit of the start, in milliseconds. Default 10,000. */
  readonly startTimeout?: number | undefined
  /** At most this many callers wait for a connection that is down; more fail at once. Default 10,000. */
  readonly maxWaiting?: number | undefined
  /** The name that CLIENT LIST shows, followed by the purpose of the connection. Default `"rotif"`. */
  readonly connectionName?: string | undefined
}

/**
 * The address of a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Address {
  readonly host: string
  readonly port: number
}

/**
 * A client of ioredis, of one server or of a Cluster.
 *
 * @category models
 * @since 0.1.0
 */
export type RedisClient = Client | Cluster

/**
 * The durability that a publish waits for. If it is not reached, the publish rejects with `DurabilityNotReached`; the message is stored all the
 * same, and publishing it again with the same `dedupKey` waits again and stores nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface Durability {
  /** At least this many replicas must have the message. Default 1. */
  readonly replicas?: number | undefined
  /** Whether it must be on disk on the master and on as many replicas; needs Redis 7.2. Default `false`. */
  readonly fsync?: boolean | undefined
  /** The publish waits for at most this many milliseconds. Default 1000. */
  readonly timeout?: number | undefined
}

/**
 * Options of `publish`.
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishOptions {
  /** Delivers the message after this many milliseconds, at the earliest. Below 0 is now. */
  readonly delayMs?: number | undefined
  /** Delivers the message at this time, at the earliest: a `Date`, milliseconds since 1970, or an ISO string. */
  readonly deliverAt?: Date | number | string | undefined
  /** Stores the message once: the same message again within `deduplicationTTL` is a duplicate. */
  readonly exactlyOnce?: boolean | undefined
  /** The key by which two messages are the same; it includes `exactlyOnce`. Default: `generateDedupKey`, or channel and payload. */
  readonly dedupKey?: string | undefined
  /** Seconds, at most 7 days or that of the manager, if it is longer. Default: that of the manager. */
  readonly deduplicationTTL?: number | undefined
  /** Strings that travel with the message. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /**
   * The ordering key: 1 to 512 bytes. A group handles the messages of one channel with the same key one after the other, in the order in which
   * they were stored. `null`: none. Default: `generateOrderingKey`.
   */
  readonly orderingKey?: string | null | undefined
  /** The durability that this publish waits for; `false`: only the loss of this process is survived. Default: that of the manager. */
  readonly durability?: Durability | false | undefined
  /** Accepted, and not used: a publish begins with attempt 1. */
  readonly attempt?: unknown
}

/**
 * Options of `subscribe`.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscribeOptions {
  /** The consumer group: every group gets every message, its members share them. Default: `groupNameFn` of the pattern. */
  readonly group?: string | undefined
  /** The same as `group`. */
  readonly groupName?: string | undefined
  /** The first part of the consumer's name; a random part is added. */
  readonly consumerName?: string | undefined
  readonly maxRetries?: number | undefined
  readonly retryDelay?: number | ((attempt: number, message: RotifMessage) => number) | undefined
  readonly retryStrategy?: RetryStrategy | RetryStrategyName | undefined
  /**
   * Each message is handled to completion once by the group: another delivery of it is skipped, and so is a message with the same
   * `generateDedupKey`, unless its publish was by a key (`exactlyOnce`, `dedupKey`) and has accepted it as new.
   */
  readonly exactlyOnce?: boolean | undefined
  /**
   * `"block"` (the default): messages with the same ordering key are handled one after the other, over all processes, and a message that failed
   * keeps its place. `"none"`: the key has no meaning. All subscriptions of a group must have the same.
   */
  readonly ordering?: "block" | "none" | undefined
  /** Seconds. Default: that of the manager. */
  readonly deduplicationTTL?: number | undefined
  /**
   * Where a new group begins on what is stored already: `"earliest"` (or `"0"`, the default), `"latest"` (or `"$"`), after a position, or at
   * a `Date`. A group that exists goes on where it was.
   */
  readonly startFrom?: string | Date | undefined
  readonly concurrency?: number | undefined
  readonly lease?: number | undefined
  readonly localRoundRobin?: boolean | undefined
  /** Pauses the group, in all processes, when it makes this many dead letters within this many milliseconds. Default: it is not paused. */
  readonly pauseWhen?: { readonly dead: number; readonly within: number } | undefined
}

/**
 * Options of `subscribeBatch`. `concurrency` counts batches.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscribeBatchOptions extends SubscribeOptions {
  /** At most this many messages are in a batch, from 1 to 10,000. A batch begins when it is full. */
  readonly size: number
  /** A batch that is not full begins this many milliseconds after its first message came. Default 100, at most 1 hour. */
  readonly within?: number | undefined
}

/**
 * Options of `unsubscribe`.
 *
 * @category models
 * @since 0.1.0
 */
export interface UnsubscribeOptions {
  /** Removes the group, with all messages that it has not handled. Default `false`. */
  readonly removeGroup?: boolean | undefined
}

/**
 * Why a message was given up.
 *
 * - `exhausted`: no retries were left.
 * - `term`: the handler refused it for good.
 * - `decode`: its payload does not fit.
 * - `crashed`: processes died while they handled it.
 * - `expired`: its time to live was over.
 *
 * @category models
 * @since 0.1.0
 */
export type DlqReason = "exhausted" | "term" | "decode" | "crashed" | "expired"

/**
 * Which dead letters to read, and how many.
 *
 * @category models
 * @since 0.1.0
 */
export interface DlqQuery {
  /** A channel's name or a pattern. */
  readonly channel?: string | undefined
  /** Default 100. */
  readonly limit?: number | undefined
  /** Skips this many letters. Default 0. */
  readonly offset?: number | undefined
  /** Only letters that died within this many milliseconds. */
  readonly maxAge?: number | undefined
  /** Only letters of this group. */
  readonly group?: string | undefined
  /** Only letters with this reason, such as `"exhausted"`. */
  readonly reason?: DlqReason | undefined
  /** Only letters whose error has this name (or `_tag`). */
  readonly errorName?: string | undefined
  /** Which come first. Default `"newest"`. */
  readonly order?: "newest" | "oldest" | undefined
}

// -----------------------------------------------------------------------------
// What the options mean
// -----------------------------------------------------------------------------

/**
 * The schema of every channel here.
 *
 * @internal
 */
export const anything = { payload: Schema.Unknown }

/** @internal */
export const defaults = {
  url: "redis://localhost:6379",
  retryDelayMillis: 1000,
  leaseMillis: 60_000,
  deduplicationSeconds: 3600,
  longestSeconds: 7 * 86_400,
  requeued: 10,
  dlqKey: "dlq",
  archive,
  maxAge: Duration.days(90),
  maxSize: 100_000
} as const

const reportLevels = { error: "Error", warn: "Warn", info: "Info", debug: "Debug" } as const

const reportsOf = (reports: RotifConfig["reports"]): Subscription.Reports | undefined =>
  typeof reports === "function"
    ? (report) => Effect.tryPromise(() => Promise.resolve(reports(report)))
    : reports === false
    ? "None"
    : reports && reportLevels[reports]

/**
 * A publish is remembered for at most this long.
 *
 * @internal
 */
export const mostSecondsOf = ({ deduplicationTTL = 0 }: RotifConfig): number =>
  Math.max(deduplicationTTL, defaults.longestSeconds)

/**
 * Translates these options into those of `Rotif.layer`. `archive` gets dead letters before they are deleted.
 *
 * @internal
 */
export const rotifOptions = (
  options: RotifConfig,
  toArchive: NonNullable<DeadLetters.Retention["archive"]>
): Rotif.Options & RedisBroker.Options => {
  const { dlqCleanup: cleanup } = options
  return {
    checkInterval: options.checkDelayInterval ?? 1000,
    delayed: options.enableDelayed !== false && options.disableDelayed !== true,
    blockInterval: options.blockInterval ?? 5000,
    concurrency: options.concurrency,
    lease: options.lease ?? defaults.leaseMillis,
    drainTimeout: options.drainTimeout ?? 30_000,
    maxRetries: options.maxRetries ?? 5,
    maxPayloadBytes: options.maxPayloadBytes,
    durability: options.durability,
    maxWindow: mostSecondsOf(options) * 1000,
    prefix: options.prefix,
    shards: options.shards,
    reports: reportsOf(options.reports),
    health: { slowHandler: options.slowHandler },
    deadLetters: {
      enabled: cleanup?.enabled,
      maxAge: cleanup?.maxAge ?? defaults.maxAge,
      maxCount: cleanup?.maxSize ?? defaults.maxSize,
      interval: cleanup?.cleanupInterval,
      archive: cleanup?.archiveBeforeDelete === true ? toArchive : undefined,
      archiveChannel: cleanup?.archivePrefix
    }
  }
}

/** @internal */
export const startOf = (start: SubscribeOptions["startFrom"]): Subscription.StartFrom | undefined => {
  if (start === undefined) return undefined
  if (typeof start !== "string") return { time: start }
  if (start === "$" || start === "latest") return "latest"
  return start === "0" || start === "earliest" ? "earliest" : { position: start }
}
