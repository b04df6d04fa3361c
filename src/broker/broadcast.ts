/**
 * Pub/Sub mode in the port: messages to the listeners of the moment. Nothing is stored, and nothing is sent twice.
 *
 * @since 0.1.0
 */
import type { Effect, Scope } from "effect"
import type { BrokerError } from "./error.ts"
import type { Selector } from "./selector.ts"

/**
 * A message to the listeners of a channel.
 *
 * @category models
 * @since 0.1.0
 */
export interface BroadcastMessage {
  /** The name of the channel, or its template text (`users.:userId.notices`). */
  readonly channel: string
  /** The encoded payload. */
  readonly payload: string
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly params?: Readonly<Record<string, string>> | undefined
}

/**
 * A listener. Its functions must neither block nor fail.
 *
 * @category models
 * @since 0.1.0
 */
export interface BroadcastListener {
  readonly onMessage: (cast: BroadcastMessage) => void
  /** Another program published something that is no message of Rotif. It was skipped. */
  readonly onMalformed: (channel: string) => void
  /** Listening was interrupted and continues: messages may be missing. */
  readonly onGap: () => void
}

/**
 * The operations of a backend for Pub/Sub mode.
 *
 * @category models
 * @since 0.1.0
 */
export interface BroadcastPort {
  /**
   * Sends messages of one channel, in order, to all listeners of the moment. After a failure, the messages from some message on were not sent;
   * after `Uncertain`, one of them may have been.
   */
  readonly publish: (casts: ReadonlyArray<BroadcastMessage>) => Effect.Effect<void, BrokerError>
  /** Listens until the scope closes. The listener gets all messages published after this has succeeded. */
  readonly listen: (selector: Selector, handler: BroadcastListener) => Effect.Effect<void, BrokerError, Scope.Scope>
}
