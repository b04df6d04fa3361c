/**
 * Statistics for the subscriptions of this program, and for channels and groups across all processes.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"
import { Context, DateTime, Effect, Layer, Schedule, Stream } from "effect"
import type { BrokerError, Pause, Selector } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import * as Subscription from "./Subscription.ts"
import type { ChannelStats, GroupStats } from "./broker/statistics.ts"
import * as GroupMetrics from "./duties/groupMetrics.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Shape from "./internal/optionShape.ts"

export type { ChannelStats, ConsumerStats, GroupStats, Totals } from "./broker/statistics.ts"

/**
 * The counts of one subscription of this program.
 *
 * @category models
 * @since 0.1.0
 */
export interface LocalStats extends Subscription.Stats {
  readonly pattern: string
  readonly group: string
  readonly consumer: string
  readonly isPaused: boolean
}

/**
 * A snapshot: channels, groups and local subscriptions at about one time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  /** By the clock of this process. */
  readonly takenAt: DateTime.Utc
  /** Each channel with its groups, across all processes. */
  readonly channels: ReadonlyArray<ChannelStats>
  /** The subscriptions of this program. */
  readonly subscriptions: ReadonlyArray<LocalStats>
}

/**
 * The sum of a group over several channels.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupSum extends Omit<GroupStats, "channel" | "consumers" | "pause"> {
  /** Messages ever stored on these channels. */
  readonly published: number
  readonly channels: ReadonlyArray<string>
  /** The pauses that keep it from these channels now. */
  readonly pauses: ReadonlyArray<Pause>
}

/**
 * The service behind the functions of this module.
 *
 * @category services
 * @since 0.1.0
 */
export class Stats extends Context.Service<Stats, {
  readonly channels: (source?: Channel.Source) => Effect.Effect<ReadonlyArray<ChannelStats>, BrokerError>
  readonly local: Effect.Effect<ReadonlyArray<LocalStats>>
  readonly snapshot: (source?: Channel.Source) => Effect.Effect<Snapshot, BrokerError>
  readonly reset: Effect.Effect<void>
}>()("rotif/Stats") {}

const everything: Selector = { _tag: "Pattern", pattern: "**" }

/**
 * Provides the service on a broker and the subscriptions of the program. It is part of `Rotif.layer`. Each call makes a layer of its own: two
 * of them are two services, wherever they are provided.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (): Layer.Layer<Stats, never, Broker | Subscription.Subscriptions> =>
  Layer.effect(
    Stats,
    Effect.gen(function*() {
      const broker = yield* Broker
      const { running } = yield* Subscription.Subscriptions

      const channels = (source?: Channel.Source) =>
        broker.stats.read(source === undefined ? everything : Channel.selector(source))

      const local = Effect.suspend(() =>
        Effect.forEach([...running], (subscription) =>
          Effect.gen(function*() {
            const { consumer, group, pattern } = subscription
            return {
              pattern,
              group,
              consumer,
              isPaused: yield* subscription.isPaused,
              ...yield* subscription.stats
            }
          }))
      )

      return {
        channels,
        local,
        snapshot: Effect.fnUntraced(function*(source) {
          const found = yield* channels(source)
          return { takenAt: yield* DateTime.now, channels: found, subscriptions: yield* local }
        }),
        reset: Effect.suspend(() =>
          Effect.forEach([...running], (subscription) => subscription.resetStats, { discard: true })
        )
      }
    })
  )

/**
 * Reads channels and their groups, across all processes; without a source all channels.
 *
 * **Details**: each channel is read with its groups at one time, different channels one after the other. The work is bounded by the number of
 * channels, groups and consumers; it reads no messages and disturbs no delivery. For every group, to the message,
 * `published = skipped + totals.acked + pending + ready + due + dead + removed + lag + lost`; see `docs/stats.md` for each of them.
 *
 * **Errors**: `BrokerError` if the backend does not answer; calling again is safe.
 *
 * **Example** (How far billing is behind)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Channel, Stats } from "rotif"
 *
 * const Orders = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
 *
 * const lag = Effect.map(Stats.channels(Orders), (channels) => Stats.ofGroup(channels, "billing")?.lag)
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const channels = (
  source?: Channel.Source
): Effect.Effect<ReadonlyArray<ChannelStats>, BrokerError, Stats> => Stats.use((stats) => stats.channels(source))

/**
 * Returns the counts of this program's subscriptions since they started, or since the last `reset`.
 *
 * @category operations
 * @since 0.1.0
 */
export const local: Effect.Effect<ReadonlyArray<LocalStats>, never, Stats> = Stats.use((stats) => stats.local)

/**
 * Takes a snapshot of channels, groups and local subscriptions together.
 *
 * **Errors**: `BrokerError` if the backend does not answer; calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const snapshot = (source?: Channel.Source): Effect.Effect<Snapshot, BrokerError, Stats> =>
  Stats.use((stats) => stats.snapshot(source))

/**
 * Sets the counts of this program's subscriptions to 0. Totals of the backend stay: they begin at 0 again when a group is removed.
 *
 * @category operations
 * @since 0.1.0
 */
export const reset: Effect.Effect<void, never, Stats> = Stats.use((stats) => stats.reset)

const streamShape = Shape.shape<NonNullable<Parameters<typeof stream>[0]>>()({
  source: Shape.any,
  interval: Shape.span({ usual: 10_000, least: 10 })
})

/**
 * Streams a snapshot now, and one after each interval (default 10 seconds), for as long as the stream is consumed.
 *
 * **Details**: a late snapshot is not made up for. While the backend does not answer there are none, and a line is logged.
 *
 * **Errors**: `BrokerError` with reason `Refused`, which ends it. It dies if an option cannot be used.
 *
 * @category operations
 * @since 0.1.0
 */
export const stream = (options?: {
  /** Default: all channels. */
  readonly source?: Channel.Source | undefined
  readonly interval?: Duration.Input | undefined
}): Stream.Stream<Snapshot, BrokerError, Stats> =>
  Stream.unwrap(Effect.gen(function*() {
    const { interval, source } = yield* Given.orDie(streamShape.optional("the options", options))
    return Stream.fromEffectSchedule(
      snapshot(source).pipe(
        Effect.map((found): Snapshot | undefined => found),
        Effect.catchIf(
          (error) => error.isRetryable,
          (error) => Effect.as(Effect.logWarning(`rotif: no snapshot of the statistics: ${error.message}`), undefined)
        )
      ),
      Schedule.spaced(interval)
    ).pipe(Stream.filter((found) => found !== undefined))
  }))

/**
 * Reports metrics of every group: lag, pending, ready, due, dead letters, and the age of the oldest message that is not settled; see
 * `Telemetry.MetricName`. They are read at every `interval` (default 15 seconds, at least 100 ms).
 *
 * **Details**: any number of processes of a namespace may have this layer. One of them reports for all; if it is lost, another one takes over
 * within twice the interval and 5 seconds. The values of the other processes, and of removed groups, are 0, so that the sum over processes is
 * right. It dies if an option cannot be used. While the backend does not answer a line is logged, and the values stay.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMetrics = (options?: {
  readonly interval?: Duration.Input | undefined
  /**
   * The value of the attribute `rotif.namespace`. If a program has more than one Rotif, each needs a value of its own: groups with the same
   * name would overwrite each other's gauges. Default: no such attribute.
   */
  readonly namespace?: string | undefined
}): Layer.Layer<never, never, Broker> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const { interval, namespace } = yield* Given.orDie(metricsShape.optional("the options", options))
    yield* Effect.forkScoped(GroupMetrics.run(yield* Broker, interval, namespace))
  }))

const metricsShape = Shape.shape<NonNullable<Parameters<typeof layerMetrics>[0]>>()({
  interval: Shape.span({ usual: 15_000, least: 100 }),
  namespace: Shape.optional(Shape.name)
})

const plus = (a: number | undefined, b: number | undefined) => a === undefined || b === undefined ? undefined : a + b

/**
 * Sums up a group over channels; `undefined` if it reads none of them.
 *
 * @category operations
 * @since 0.1.0
 */
export const ofGroup = (channels: ReadonlyArray<ChannelStats>, group: string): GroupSum | undefined => {
  let sum: GroupSum | undefined
  for (const { channel, groups, published } of channels) {
    const one = groups.find((found) => found.group === group)
    if (one === undefined) continue
    const { channel: _, consumers: __, pause, ...rest } = one
    const pauses = pause === undefined ? [] : [pause]
    if (sum === undefined) {
      sum = { ...rest, published, channels: [channel], pauses }
      continue
    }
    const { totals } = sum
    const known = sum.pauses
    sum = {
      group,
      published: sum.published + published,
      channels: [...sum.channels, channel],
      pauses: [...known, ...pauses.filter(({ pattern }) => known.every((other) => other.pattern !== pattern))],
      lag: plus(sum.lag, one.lag),
      pending: sum.pending + one.pending,
      ready: sum.ready + one.ready,
      due: sum.due + one.due,
      dead: sum.dead + one.dead,
      removed: sum.removed + one.removed,
      skipped: plus(sum.skipped, one.skipped),
      lost: plus(sum.lost, one.lost),
      oldestMillis: one.oldestMillis === undefined || (sum.oldestMillis ?? -1) > one.oldestMillis
        ? sum.oldestMillis
        : one.oldestMillis,
      totals: {
        acked: totals.acked + one.totals.acked,
        duplicates: totals.duplicates + one.totals.duplicates,
        failed: totals.failed + one.totals.failed,
        retried: totals.retried + one.totals.retried,
        dead: totals.dead + one.totals.dead,
        crashed: totals.crashed + one.totals.crashed
      }
    }
  }
  return sum
}
