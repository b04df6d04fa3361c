/**
 * Connections to Redis; the only module that knows ioredis.
 *
 * One ioredis client is used for the life of one socket. It never reconnects, never queues while offline and never sends
 * a command a second time; when its socket is gone it is thrown away and a new one is made. That makes every failure
 * definite: a command was not sent, was answered, or was sent and its answer lost.
 *
 * @since 0.1.0
 */
import type { Effect, Scope } from "effect"
import { Context, Data } from "effect"

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
