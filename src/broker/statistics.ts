/**
 * Statistics of the port: counts of each channel, and the progress of each group on it.
 *
 * @since 0.1.0
 */
import type { Effect } from "effect"
import type { BrokerError } from "./error.ts"
import type { Pause } from "./groups.ts"
import type { Selector } from "./selector.ts"

/**
 * A consumer of a group on one channel.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConsumerStats {
  readonly consumer: string
  /** Handed out to it and not settled. */
  readonly pending: number
  /** How long ago it last asked for messages, renewed or claimed any. */
  readonly idleMillis: number
}

/**
 * What a group has done on one channel since it began, in all processes. Totals are changed in the same step as what they count, and
 * survive restarts; they begin anew when the group is removed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Totals {
  /** Deliveries that ended with an acknowledgement, `duplicates` and messages dropped because they had expired among them. */
  readonly acked: number
  /** Acknowledged without being handled, because their key was done before. */
  readonly duplicates: number
  /** Attempts that ended in a retry, or in a dead letter of reason `exhausted` or `term`. */
  readonly failed: number
  /** Attempts that ended in a retry. */
  readonly retried: number
  /** All dead letters so far, of any reason. */
  readonly dead: number
  /** Hand-outs that ended with an expired lease, whether or not a handler had begun; counted when the message is settled. */
  readonly crashed: number
}

/**
 * A group on one channel. At every moment, to the message,
 *
 * `published = skipped + acked + pending + ready + due + dead + removed + lag + lost`
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupStats {
  readonly group: string
  readonly channel: string
  /**
   * Not handed out yet. `undefined` when the backend cannot tell: the group began in the middle of a long log, or at a time to come, and
   * has not reached its end since.
   */
  readonly lag: number | undefined
  /** Handed out and not settled. */
  readonly pending: number
  /** Ready again (after a retry, a release, or from the dead letters), and not handed out yet. */
  readonly ready: number
  /** Waiting for the time of their retry. */
  readonly due: number
  /** Dead letters at present. */
  readonly dead: number
  /** Dead letters that were deleted: by hand, by a subscription to them, or at the end of their retention. */
  readonly removed: number
  /** Published before the group began there; less what it still had then of an earlier life. `undefined` like `lag`. */
  readonly skipped: number | undefined
  /**
   * Removed by a limit of the channel before the group had settled them; 0 without limits. While the group is in the midst of the
   * log, part of it may still be in `lag`. `undefined` like `lag`.
   */
  readonly lost: number | undefined
  /** How long ago the oldest message that is not settled was published, or became ready again; those that wait do not count. */
  readonly oldestMillis: number | undefined
  readonly consumers: ReadonlyArray<ConsumerStats>
  /** The pause that keeps the group from this channel now; `undefined`: none. */
  readonly pause: Pause | undefined
  readonly totals: Totals
}

/**
 * A channel, and the groups on it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChannelStats {
  readonly channel: string
  /** Messages stored in its log so far; a scheduled message counts when it is due. */
  readonly published: number
  /** Messages in its log. */
  readonly length: number
  /** About how much memory its log takes, where the backend can tell. */
  readonly bytes: number | undefined
  /** Messages that wait for their first delivery. */
  readonly scheduled: number
  readonly groups: ReadonlyArray<GroupStats>
}

/**
 * Statistics of a backend: one reading of channels and groups, and the turn to report metrics.
 *
 * @category models
 * @since 0.1.0
 */
export interface StatsStore {
  /**
   * Looks at the channels of the selector. Each channel is seen with its groups at one time. Bounded by the number of channels, groups and
   * consumers, whatever number of messages there are.
   */
  readonly read: (selector: Selector) => Effect.Effect<ReadonlyArray<ChannelStats>, BrokerError>
  /** Takes or keeps the turn to report metrics of groups for this long; true if this program has it. One program of a namespace has it. */
  readonly lead: (leaseMillis: number) => Effect.Effect<boolean, BrokerError>
}

/**
 * The counts of a group that an adapter reads; `balance` derives the rest.
 *
 * @internal
 */
export type Account = Omit<GroupStats, "skipped" | "lost" | "lag"> & {
  /** How many messages were published before the group began; `undefined`: not known. */
  readonly started: number | undefined
  /** `undefined`: the group is in the midst of the log. */
  readonly lag: number | undefined
}

/**
 * Completes the account of a group. If its lag is known, messages that are not accounted for were removed by a limit. If it is not known,
 * they have not been handed out, as far as the log holds that many.
 *
 * @internal
 */
export const balance = (
  published: number,
  length: number,
  { lag: known, started, ...account }: Account
): GroupStats => {
  const { dead, due, pending, ready, removed, totals } = account
  const settled = totals.acked + pending + ready + due + dead + removed
  if (started === undefined && known === undefined) {
    return { ...account, lag: undefined, skipped: undefined, lost: undefined }
  }
  const skipped = started ?? published - settled - known!
  const rest = published - skipped - settled
  const lag = known ?? Math.max(0, Math.min(rest, length))
  return { ...account, lag, skipped, lost: rest - lag }
}

/**
 * Messages on their way and given up, over all shards.
 *
 * @category models
 * @since 0.1.0
 */
export interface BrokerInfo {
  readonly channels: ReadonlyArray<ChannelStats>
  /** Waiting for a time. */
  readonly waiting: number
  readonly dead: number
}
