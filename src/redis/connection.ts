/** What a connection can do. */
import type { Effect } from "effect"
import type { Command, RedisError, Script } from "./protocol.ts"
import type { Need, Reached } from "./replicaWait.ts"

/**
 * A connection that is shared by everybody.
 *
 * It waits for Redis to come back at most `commandTimeout`. What was surely not executed (`Unavailable`, `Transient`,
 * MOVED, ASK) is tried again until then, and what was lost (`ConnectionLost`) too when `idempotent` is true.
 *
 * @category models
 * @since 0.1.0
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
 *
 * @category models
 * @since 0.1.0
 */
export interface DurableConnection extends Connection {
  /**
   * Waits until replicas have, or disks hold, everything that was executed for this caller. It has to be writes: for what was only
   * read, Redis waits for nothing.
   */
  readonly confirm: (need: Need) => Effect.Effect<Reached>
}

/**
 * A connection of one reader, for commands that block. Commands are not repeated.
 *
 * @category models
 * @since 0.1.0
 */
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
