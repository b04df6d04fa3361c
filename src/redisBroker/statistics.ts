/** Statistics on Redis: one script call reads a channel and its groups at one time; several calls where messages are large. */
import { Effect } from "effect"
import type { BrokerInfo, Pause, Selector } from "../Broker.ts"
import type { Command } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import type { ChannelStats, StatsStore } from "../broker/statistics.ts"
import { balance } from "../broker/statistics.ts"
import { pausedOn } from "../internal/pauses.ts"
import { matcherOf } from "../internal/pattern.ts"
import { reported } from "./counters.ts"
import type { Keys } from "./keys.ts"
import { registrationsOf } from "./keys.ts"
import { lead } from "./leadership.ts"
import { pausesAt } from "./pauses.ts"
import { groupsIn, millisOfTime } from "./replies.ts"
import { statistics as statsScript } from "./scripts/upkeep/statistics.ts"
import type { Shards } from "./shards.ts"

/** At most this many channels in one pipeline, and scripts under way at a time. */
const channelsPerCall = 100
const scriptsAtOnce = 8

/** Number of nodes of a log that Redis samples to estimate its size. */
const samples = 5

type RawConsumer = readonly [name: string, pending: number, idle: number]

type Raw = readonly [
  length: number,
  published: number,
  scheduled: number,
  groups: ReadonlyArray<ReadonlyArray<unknown>>,
  left: number
]

const orUndefined = (value: unknown): number | undefined => typeof value === "number" && value >= 0 ? value : undefined

/** `me` names this process among those that take turns to lead. */
export const make = ({ all, connectionOf, fail, keysOf }: Shards, me: string) => {
  const lookAt = Effect.fnUntraced(function*(
    keys: Keys,
    channel: string,
    groups: ReadonlyArray<string>,
    bytes: number | undefined,
    pauses: ReadonlyArray<Pause>
  ): Effect.fn.Return<ChannelStats, RedisError> {
    const see = (some: ReadonlyArray<string>) =>
      Effect.map(
        connectionOf(keys.shard).evaluate(
          statsScript,
          [
            keys.log(channel),
            keys.counts,
            keys.bodies("", channel),
            ...some.flatMap((group) => [keys.retry(group, channel), keys.bodies(group, channel)])
          ],
          [channel, ...some]
        ),
        (reply) => reply as Raw
      )
    const [length, published, scheduled, first, rest] = yield* see(groups)
    const found = [...first]
    for (let left = rest; left > 0;) {
      const [, , , more, still] = yield* see(groups.slice(groups.length - left))
      if (more.length === 0) break
      found.push(...more)
      left = still
    }
    return {
      channel,
      published,
      length,
      bytes,
      scheduled,
      groups: found.map((raw, i) => {
        const [lag, pending, ready, due, oldest, ...rest] = raw as ReadonlyArray<number>
        const total = (counter: typeof reported[number]) => rest[reported.indexOf(counter)]!
        const letters = rest.slice(reported.length, -1)
        const started: unknown = total("storedBefore")
        return balance(published, length, {
          group: groups[i]!,
          channel,
          lag: orUndefined(lag),
          pending: pending!,
          ready: ready!,
          due: due!,
          dead: letters.reduce((sum, count) => sum + count, 0),
          removed: total("removed"),
          started: typeof started === "number" ? started : undefined,
          oldestMillis: orUndefined(oldest),
          pause: pausedOn(pauses.filter((pause) => pause.group === groups[i]), channel),
          consumers: (raw.at(-1) as ReadonlyArray<RawConsumer>).map(([consumer, pending, idleMillis]) => ({
            consumer,
            pending,
            idleMillis
          })),
          totals: {
            acked: total("acked"),
            duplicates: total("duplicates"),
            failed: total("failed"),
            retried: total("retried"),
            dead: total("buried"),
            crashed: total("crashed")
          }
        })
      })
    }
  })

  const readShard = Effect.fnUntraced(function*(
    keys: Keys,
    matches: (channel: string) => boolean,
    withBytes: boolean
  ): Effect.fn.Return<ReadonlyArray<ChannelStats>, RedisError> {
    const connection = connectionOf(keys.shard)
    const [names, fields, paused, time] = yield* connection.pipeline([
      ["hkeys", keys.channels],
      ["hkeys", keys.groups],
      ["hgetall", keys.paused],
      ["time"]
    ])
    for (const reply of [names, fields, paused, time]) if (reply instanceof RedisError) return yield* reply
    const registered = registrationsOf(fields)
    const pauses = pausesAt(paused, millisOfTime(time))
    const channels = (names as ReadonlyArray<string>).filter(matches).sort()
    const out: Array<ChannelStats> = []
    for (let i = 0; i < channels.length; i += channelsPerCall) {
      const some = channels.slice(i, i + channelsPerCall)
      const groups = yield* connection.pipeline(
        some.map((channel): Command => ["xinfo", "GROUPS", keys.log(channel)])
      )
      // Without the permission for MEMORY the size is not known.
      const sizes = withBytes
        ? yield* connection.pipeline(
          some.map((channel): Command => ["memory", "USAGE", keys.log(channel), "SAMPLES", samples])
        )
        : []
      const looked = yield* Effect.forEach(some, (channel, j) => {
        const names = new Set([
          // A log that is gone has no groups.
          ...groupsIn(groups[j]).keys(),
          ...registered.filter(({ reads }) => reads(channel)).map(({ group }) => group)
        ])
        return lookAt(keys, channel, [...names].sort(), orUndefined(sizes[j]), pauses)
      }, { concurrency: scriptsAtOnce })
      out.push(...looked)
    }
    return out
  })

  const look = (selector: Selector, withBytes: boolean): Effect.Effect<ReadonlyArray<ChannelStats>, RedisError> => {
    const matches = matcherOf(selector)
    return Effect.map(
      Effect.forEach(all, (keys) => readShard(keys, matches, withBytes), { concurrency: 16 }),
      (found) => found.flat()
    )
  }

  const info = Effect.fnUntraced(function*(selector: Selector): Effect.fn.Return<BrokerInfo, RedisError> {
    const channels = yield* look(selector, false)
    const sizes = yield* Effect.forEach(
      all,
      (keys) => connectionOf(keys.shard).pipeline([["zcard", keys.waiting], ["xlen", keys.dead]]),
      { concurrency: 16 }
    )
    const refused = sizes.flat().find((reply) => reply instanceof RedisError)
    if (refused !== undefined) return yield* refused
    const sum = (at: 0 | 1) => sizes.reduce((total, replies) => total + Number(replies[at]), 0)
    return { channels, waiting: sum(0), dead: sum(1) }
  })

  const store: StatsStore = {
    read: (selector) => Effect.mapError(look(selector, true), fail("stats")),
    lead: (leaseMillis) =>
      Effect.mapError(lead(connectionOf(0), keysOf(0).metrics, me, leaseMillis), fail("stats.lead"))
  }

  /** Reads named channels of one shard. */
  const lookIn = (shard: number, names: ReadonlyArray<string>) =>
    readShard(keysOf(shard), matcherOf({ _tag: "Channels", names }), false)

  return { info: (selector: Selector) => Effect.mapError(info(selector), fail("info")), lookIn, store }
}
