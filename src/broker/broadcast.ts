/**
 * The part of the port for Pub/Sub mode: messages to whoever listens now. Nothing is stored, and nothing is sent twice.
 *
 * @since 0.1.0
 */
import type { Effect, Scope } from "effect"
import type { BrokerError } from "./error.ts"
import type { Selector } from "./selector.ts"

/**
 * A message on its way to whoever listens.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cast {
  /** The name of the channel, or its template text (`users.:userId.notices`). */
  readonly channel: string
  /** The encoded payload. */
  readonly payload: string
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly params?: Readonly<Record<string, string>> | undefined
}

/**
 * What a listener is told. Neither may block, and neither may fail.
 *
 * @category models
 * @since 0.1.0
 */
export interface CastHandler {
  readonly onMessage: (cast: Cast) => void
  /** Something arrived that is not a message of Rotif, and was skipped. */
  readonly onMalformed: (channel: string) => void
  /** Listening was interrupted and goes on: messages may be missing. */
  readonly onGap: () => void
}

/**
 * What a backend does for Pub/Sub mode.
 *
 * @category models
 * @since 0.1.0
 */
export interface BroadcastPort {
  /**
   * Sends messages of one channel, in order, to all who listen now. After a failure those from some message on were not
   * sent, but for the one of which `Uncertain` says that nobody knows.
   */
  readonly publish: (casts: ReadonlyArray<Cast>) => Effect.Effect<void, BrokerError>
  /** Listens until the scope closes: what is published after it succeeded is heard. */
  readonly listen: (selector: Selector, handler: CastHandler) => Effect.Effect<void, BrokerError, Scope.Scope>
}
