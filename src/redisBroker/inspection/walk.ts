/**
 * The walk through a namespace on Redis: the keys of each server, then the structures of each shard.
 *
 * Every step is one bounded page. A page only gives suspects: each is confirmed later, by a script that sees it at one moment.
 */
import { Effect, Stream } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import type { InspectionStore } from "../../broker/inspection.ts"
import type { ChannelStats } from "../../broker/statistics.ts"
import type { Shards } from "../shards.ts"
import * as Check from "./check.ts"
import * as Letters from "./deadLetters.ts"
import * as Registry from "./registry.ts"
import type { Seen } from "./scan.ts"
import * as Scan from "./scan.ts"
import { structures } from "./structures.ts"
import * as Waiting from "./waiting.ts"

export interface Options {
  readonly prefix: string
  readonly connectionFor: (key: string) => Connection
  readonly promote: (shard: number) => Effect.Effect<unknown, BrokerError>
  readonly relay: (shard: number) => Effect.Effect<unknown, BrokerError>
  readonly stats: (
    shard: number,
    channels: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<ChannelStats>, RedisError>
}

/** Where keys cannot be listed: the bodies that a registered channel may have. */
const expectedBodies = (registries: ReadonlyArray<Registry.Registry>): Seen["bodies"] =>
  registries.flatMap(({ channels, registrations }, shard) =>
    [...channels.keys()].flatMap((channel) => {
      const groups = new Set(registrations.filter(({ reads }) => reads(channel)).map(({ group }) => group))
      return ["", ...groups].map((group) => [shard, group, channel] as const)
    })
  )

export const make = (
  shards: Shards,
  { connectionFor, prefix, promote, relay, stats }: Options
): InspectionStore => {
  const failed = shards.fail("inspection")
  const checks = shards.all.map((keys) => Check.make(keys, shards.connectionOf(keys.shard), failed))
  const scan = Scan.make(shards, prefix, checks, connectionFor)

  /** Where a key has a wrong type, each channel is asked for by itself: the others still have statistics. */
  const statsOf =
    (shard: number) => (names: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<ChannelStats>, BrokerError> =>
      stats(shard, names).pipe(
        Effect.catchIf(Check.isElsewhere, () =>
          names.length === 1
            ? Effect.succeed([])
            : Effect.map(Effect.forEach(names, (name) => statsOf(shard)([name])), (some) => some.flat())),
        Effect.mapError((error) => error._tag === "RedisError" ? failed(error) : error)
      )

  return {
    listsKeys: scan.isPermitted,
    walk: ({ toleranceMillis }) =>
      Stream.unwrap(Effect.gen(function*() {
        const registries = yield* Effect.forEach(checks, Registry.read, { concurrency: 8 })
        const isListed = yield* scan.isPermitted
        const seen: Seen = { bodies: isListed ? [] : expectedBodies(registries), offered: [] }
        return (isListed ? scan.keys(registries, seen) : Stream.empty).pipe(
          Stream.concat(
            Stream.fromIterable(checks).pipe(
              Stream.flatMap((some) => {
                const { shard } = some.keys
                return structures(some, registries[shard]!, toleranceMillis, {
                  promote: promote(shard),
                  relay: relay(shard),
                  stats: statsOf(shard)
                })
              })
            )
          ),
          Stream.concat(
            Stream.suspend(() => Stream.fromIterable(seen.bodies)).pipe(
              Stream.flatMap(([shard, group, channel]) => Waiting.bodies(checks[shard]!, group, channel))
            )
          ),
          Stream.concat(
            Stream.suspend(() => Stream.fromIterable(seen.offered)).pipe(
              Stream.flatMap(([shard, name]) => Letters.offers(checks[shard]!, name))
            )
          )
        )
      }))
  }
}
