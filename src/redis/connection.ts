/** The kinds of connections: shared, durable and blocking. */
import type { Effect } from "effect"
import type { Command, RedisError, Script } from "./protocol.ts"

/**
 * A connection that all callers share.
 *
 * It waits for Redis for at most `commandTimeout`. Until then a command that was surely not executed (`Unavailable`, `Transient`, MOVED, ASK)
 * is tried again, and with `idempotent` also a command whose reply was lost (`ConnectionLost`), as is an idempotent script.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection {
  /** A number that changes when the server or the socket is another one than before: what was sent last may be lost, or undone. */
  readonly generation: () => number
  readonly send: (command: Command, options: { readonly idempotent: boolean }) => Effect.Effect<unknown, RedisError>
  /** Sends all commands in one write; replies in order. A refused command has a `RedisError` in its place. Once a part was sent, it is never repeated as a whole. */
  readonly pipeline: (
    commands: ReadonlyArray<Command>,
    options?: { readonly isCurrent?: (() => boolean) | undefined }
  ) => Effect.Effect<ReadonlyArray<unknown>, RedisError>
  /** Runs a script. `isCurrent` is asked each time just before it is sent: a call that is not current any more is `Unavailable`, and not sent. */
  readonly evaluate: (
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>,
    options?: { readonly isCurrent?: (() => boolean) | undefined }
  ) => Effect.Effect<unknown, RedisError>
}

/** What a write has to reach. */
export interface Need {
  readonly replicas: number
  /** Whether it has to be on disk, on the replicas and on the master. */
  readonly onDisk: boolean
  readonly timeoutMillis: number
}

/** What a write has reached in time. `problem`: the reason why not, other than that time ran out. */
export interface Reached {
  readonly isReached: boolean
  readonly replicas: number
  readonly problem?: string | undefined
}

/**
 * The connection of one caller for durable writes. All callers share one connection to each node, which serves nothing else.
 *
 * @category models
 * @since 0.1.0
 */
export interface DurableConnection extends Connection {
  /**
   * Waits until replicas, or disks, have all writes of this caller. Only writes count: after a read Redis waits for nothing.
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
   * Sends one blocking command, and connects first when there is no connection. When no reply has come after `deadlineMillis` the connection is
   * replaced, and the command fails with `ConnectionLost`.
   */
  readonly send: (command: Command, deadlineMillis: number) => Effect.Effect<unknown, RedisError>
  /** The number of sockets used so far, 0 before the first. When it has changed, replies may have been lost. */
  readonly generation: () => number
  /**
   * Makes a blocked command return now, by CLIENT UNBLOCK from the shared connection to the same server. Without the permission it does nothing.
   */
  readonly unblock: Effect.Effect<void>
  /** Whether unblocking is permitted, as far as is known. If not, commands should block for short times only. */
  readonly mayUnblock: () => boolean
}
