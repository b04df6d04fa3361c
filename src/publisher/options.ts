/** The options of a publish. */
import type { DateTime, Duration } from "effect"
import type * as Channel from "../Channel.ts"

/**
 * The durability that a publish waits for: the losses that its message survives, beyond the loss of its publisher.
 *
 * **Details**: Redis copies a write to its replicas a moment later; if the master is lost in that moment, the write is lost although it was
 * acknowledged. With this option a publish waits until replicas have the message. In memory there is nothing to wait for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Durability {
  /** At least this many replicas must have the message. Default 1. 0 is only useful with `fsync`. */
  readonly replicas?: number | undefined
  /**
   * Whether it must be on disk, too: on the master and on as many replicas. It needs Redis 7.2 or newer (WAITAOF) and `appendonly yes`.
   * Default `false`.
   */
  readonly fsync?: boolean | undefined
  /** The publish waits for at most this long after the message is stored. Default 1 second. */
  readonly timeout?: Duration.Input | undefined
}

/**
 * Options of one publish.
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishOptions {
  /** Strings that travel with the message. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /**
   * The message id: 1 to 512 bytes. Publishing the same id to the same channel again within an hour (of its due time, if it is
   * scheduled) stores nothing. Default: the `idempotencyKey` of the channel, or an id of its own.
   */
  readonly id?: string | undefined
  /** The id is remembered for this long, instead of an hour; at most `maxWindow` of the publisher. */
  readonly deduplicate?: { readonly window: Duration.Input } | undefined
  /** The first message with this key within the window wins; the others are duplicates of it, whatever their ids. */
  readonly throttle?: { readonly key: string; readonly window: Duration.Input } | undefined
  /**
   * The last message with this key wins: it replaces the one that waits, and is delivered when no other follows for this long. It has no other
   * id; its receipt is `Scheduled`.
   */
  readonly debounce?: { readonly key: string; readonly delay: Duration.Input } | undefined
  /**
   * The ordering key: 1 to 512 bytes. A group handles the messages of one channel with the same key one after the other, in the order in which
   * they were stored (`ordering` of a subscription). `null`: none. Default: the `orderingKey` of the channel. See `docs/ordering.md`.
   */
  readonly orderingKey?: string | null | undefined
  /** Delivers the message after this span, at the earliest. 0 is now. */
  readonly delay?: Duration.Input | undefined
  /** Delivers the message at this time, at the earliest. A time in the past is now. */
  readonly at?: DateTime.DateTime.Input | undefined
  /**
   * The message is delivered for at most this long, from its publish or, if it is scheduled, from its due time. Later it is not handed out any
   * more; see the option `expired` of a subscription.
   */
  readonly expiresIn?: Duration.Input | undefined
  /** The durability that this publish waits for; `false` waits for nothing. Default: that of the publisher. */
  readonly durability?: Durability | false | undefined
}

/**
 * The options of a publish to this channel: a template channel requires its params.
 *
 * @category models
 * @since 0.1.0
 */
export type OptionsFor<C extends Channel.Any> = Channel.WithParams<C, PublishOptions>

/**
 * The options of a publish to any channel, as middleware sees them.
 *
 * @category models
 * @since 0.1.0
 */
export type AnyOptions = PublishOptions & { readonly params?: Readonly<Record<string, string>> | undefined }
