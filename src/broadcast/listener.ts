/** Listeners: what they get, their options, and their handles. */
import type { Effect } from "effect"
import { Schema } from "effect"
import type * as Channel from "../Channel.ts"
import * as Given from "../internal/optionChecks.ts"

/**
 * A message as a listener gets it: for a union one member for each channel, discriminated by `channel`.
 *
 * @category models
 * @since 0.1.0
 */
export type Message<S extends Channel.Source> = Channel.MessageShape<S> extends infer Shape
  ? Shape extends unknown ? Shape & { readonly headers: Readonly<Record<string, string>> } : never
  : never

/**
 * A gap: messages are missing at this place.
 *
 * - `reconnected`: listening was interrupted. The number of messages meanwhile is unknown; it may be 0.
 * - `overflow`: this many messages were dropped, because they came faster than the listener handled them.
 *
 * @category models
 * @since 0.1.0
 */
export type Gap =
  | { readonly reason: "reconnected" }
  | { readonly reason: "overflow"; readonly dropped: number }

/**
 * Options of a stream of Pub/Sub messages: how much it buffers, and what it does when the buffer is full.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamOptions<R> {
  /** At most this many messages wait for a busy listener. Default 4,096. */
  readonly capacity?: number | undefined
  /** Their payloads have at most this many characters together. Default 64 Mi. */
  readonly maxBufferedChars?: number | undefined
  /**
   * What happens to a message when it is full: `"dropping"` drops it, `"sliding"` the oldest one instead, and `"bounded"` (the
   * default) drops it and tells `onGap` how many were dropped, at the place where they are missing.
   */
  readonly overflow?: "bounded" | "dropping" | "sliding" | undefined
  /**
   * Runs where messages are missing: after the message in front of them is taken, before the next one. It is the place to look up
   * anew what the messages would have told. If it takes longer than 30 seconds it is interrupted, which is logged. Default: a warning in the log.
   */
  readonly onGap?: ((gap: Gap) => Effect.Effect<unknown, never, R>) | undefined
  /**
   * Runs for a message that the schema of its channel cannot decode, or that Rotif did not write; the message is skipped. If it takes longer
   * than 5 seconds it is interrupted, which is logged. Default: a warning in the log, less often when there are many.
   */
  readonly onInvalid?: ((error: Channel.InvalidPayload) => Effect.Effect<unknown, never, R>) | undefined
}

/**
 * Options of a listener: those of a stream, and the handler.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListenOptions<S extends Channel.Source, E, R> extends StreamOptions<R> {
  /** Handles one message. A failure is logged, and the next message follows: there is no retry. */
  readonly handler: (message: Message<S>) => Effect.Effect<unknown, E, R>
  /** At most this many handlers run at a time. 1 (the default) keeps the order of each channel. */
  readonly concurrency?: number | undefined
}

/**
 * An option of a listener cannot be used. Nothing was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidListener extends Schema.TaggedError<InvalidListener>()("InvalidListener", Given.problemFields) {}

/**
 * Counts since a listener started.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Messages whose handler has ended, with success or not. */
  readonly handled: number
  readonly failed: number
  /** Messages that could not be decoded. */
  readonly invalid: number
  /** Messages dropped because the listener was too slow. */
  readonly dropped: number
  /** How often listening was interrupted. */
  readonly interruptions: number
  /** Messages that wait for the handler now. */
  readonly buffered: number
}

/**
 * A running listener.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener {
  readonly stats: Effect.Effect<Stats>
  /** Ends the listener and interrupts its running handlers, except for a handler that calls this: it continues. */
  readonly stop: Effect.Effect<void>
}
