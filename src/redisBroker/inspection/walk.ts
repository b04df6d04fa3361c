/**
 * The walk through a namespace on Redis: each server's keys by SCAN, then shard by shard what is registered, handed out, ready again,
 * waiting, recurring, dead. Every step is one bounded page; what looks wrong is judged later, by a script that sees it at one time.
 */
import { Effect, Stream } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import type { InspectionStore, Page, Suspect } from "../../broker/inspection.ts"
import type { ChannelStats } from "../../broker/statistics.ts"
import { millisOf } from "../entry.ts"
import { parse } from "../keys.ts"
import type { Shards } from "../shards.ts"
import * as Grounds from "./check.ts"
import * as Letters from "./deadLetters.ts"
import * as Streams from "./deliveries.ts"
import * as Keyspace from "./keyspace.ts"
import * as Recurring from "./recurring.ts"
import * as Registry from "./registry.ts"
import * as Waiting from "./waiting.ts"

/** Keys that one SCAN looks at, about, and channels in one step. */
const keysPerScan = 1_000
const channelsPerStep = 100

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

export const make = (
  { all, connectionOf, fail, shardOf }: Shards,
  { connectionFor, prefix, promote, relay, stats }: Options
): InspectionStore => {
  const failed = fail("inspection")
  const grounds = all.map((keys) => Grounds.make(keys, connectionOf(keys.shard), failed))

  const scan = (shard: number, cursor: string) =>
    connectionOf(shard).send(["scan", cursor, "MATCH", `{${prefix}:*`, "COUNT", keysPerScan], { idempotent: true })

  const listsKeys = scan(0, "0").pipe(
    Effect.as(true),
    Effect.catchIf((error) => error.message.startsWith("NOPERM"), () => Effect.succeed(false)),
    Effect.mapError(failed)
  )

  /** One shard of each server: shards of one server are found by one scan of it. */
  const servers = Effect.gen(function*() {
    const known = new Map<string, number>()
    for (const { shard } of all) {
      const info = yield* connectionOf(shard).send(["info", "server"], { idempotent: true }).pipe(
        // Then each shard is looked through by itself, and servers more than once.
        Effect.catchIf((error) => error.message.startsWith("NOPERM"), () => Effect.succeed("")),
        Effect.mapError(failed)
      )
      const id = /^run_id:(\w+)/m.exec(String(info))?.[1] ?? String(shard)
      if (!known.has(id)) known.set(id, shard)
    }
    return [...known.values()]
  })

  const strange = (key: string, shard: number): Suspect => ({
    finding: {
      kind: "UnknownKey",
      shard,
      key,
      message:
        `the namespace has ${all.length} shards, and this is of none of them: it can be removed if it is not wanted`
    },
    judge: connectionFor(key).send(["exists", key], { idempotent: true }).pipe(
      Effect.map((there) => there === 1),
      Effect.mapError(failed)
    )
  })

  /** One by one where a key has a wrong type: it takes nobody else's account with it. */
  const statsOf =
    (shard: number) => (names: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<ChannelStats>, BrokerError> =>
      stats(shard, names).pipe(
        Effect.catchIf(Grounds.isElsewhere, () =>
          names.length === 1
            ? Effect.succeed([])
            : Effect.map(Effect.forEach(names, (name) => statsOf(shard)([name])), (some) => some.flat())),
        Effect.mapError((error) => error._tag === "RedisError" ? failed(error) : error)
      )

  /** What only a key tells: for whom something waits, and to which subscriptions dead letters were offered. */
  interface Seen {
    readonly bodies: Array<readonly [shard: number, group: string, channel: string]>
    readonly offered: Array<readonly [shard: number, name: string]>
  }

  const keyspace = (registries: ReadonlyArray<Registry.Registry>, seen: Seen) =>
    Stream.fromIterableEffect(servers).pipe(
      Stream.flatMap((server) =>
        Grounds.paged(
          "0",
          Effect.fnUntraced(function*(cursor) {
            const [next, names] = (yield* Effect.mapError(scan(server, cursor), failed)) as readonly [
              string,
              ReadonlyArray<string>
            ]
            const byShard = all.map((): Array<Keyspace.Key> => [])
            const suspects: Array<Suspect> = []
            let looked = 0
            for (const key of names) {
              const found = parse(prefix, key)
              if (found === undefined) continue
              looked++
              const { kind, parts, shard } = found
              if (shard >= all.length) suspects.push(strange(key, shard))
              else byShard[shard]!.push({ key, found })
              if (kind === "bodies") seen.bodies.push([shard, parts[0]!, parts[1]!])
              if (kind === "offered") seen.offered.push([shard, parts[0]!])
            }
            for (const [shard, some] of byShard.entries()) {
              if (some.length > 0) {
                suspects.push(...yield* Keyspace.keys(grounds[shard]!, registries[shard]!, shardOf, some))
              }
            }
            return [{ looked: { keys: looked }, suspects }, next === "0" ? undefined : next] as const
          })
        )
      )
    )

  /** Everything in one shard that is found without listing keys. */
  const structures = (ground: Grounds.Ground, registry: Registry.Registry, toleranceMillis: number) => {
    const { ask, keys, now } = ground
    const sources: Array<Streams.Source> = []
    const retries: Array<Streams.Source> = []
    const remembered = new Map<string, string>()
    const groups = [...registry.groups]

    const places = Grounds.chunks(
      [...registry.channels.keys()],
      channelsPerStep,
      (some) =>
        Effect.map(Registry.places(ground, registry, some), ([page, found]) => {
          sources.push(...found)
          return page
        })
    )

    const listed = Grounds.chunks(
      groups,
      1,
      ([group = ""]) =>
        Effect.map(ask([["smembers", keys.retries(group)]]), ([channels]) => {
          for (const channel of (channels ?? []) as ReadonlyArray<string>) {
            retries.push({ key: keys.retry(group, channel), group, channel, isRetry: true })
          }
          return { suspects: [] }
        })
    )

    const unrelayed = Effect.map(
      Effect.all([now, ask([["xrange", keys.outbox, "-", "+", "COUNT", 1]])]),
      ([nowMillis, [reply]]) => {
        const position = ((reply ?? []) as ReadonlyArray<readonly [string, unknown]>)[0]?.[0]
        return position !== undefined && millisOf(position) <= nowMillis - toleranceMillis ? position : undefined
      }
    )

    const outbox = Effect.map(unrelayed, (id): Page => ({
      suspects: id === undefined ? [] : [{
        finding: {
          shard: keys.shard,
          kind: "Unrelayed",
          key: keys.outbox,
          id,
          message:
            "messages of transactions have not been brought to the shards of their channels: what does the log say?",
          repair: "brings them there, as every process does"
        },
        judge: Effect.map(unrelayed, (found) => found !== undefined),
        mend: Effect.andThen(relay(keys.shard), Effect.map(unrelayed, (found) => found === undefined))
      }]
    }))

    const ready = Stream.suspend(() => Stream.fromIterable(retries)).pipe(
      Stream.flatMap((source) =>
        Stream.unwrap(Effect.map(ask([["xinfo", "GROUPS", source.key]]), ([reply]) => {
          const found = Grounds.groupsIn(reply).get(source.group)
          const open = Stream.concat(
            Streams.ready(ground, source, found?.at ?? "0-0", remembered),
            Stream.succeed({ suspects: [Streams.settled(ground, source)] })
          )
          return found === undefined || found.pending === 0
            ? open
            : Stream.concat(Streams.ghosts(ground, source, toleranceMillis), open)
        }))
      )
    )

    return Stream.fromEffect(Registry.entries(ground, registry)).pipe(
      Stream.concat(places),
      Stream.concat(
        Grounds.chunks(
          [...registry.channels.keys()],
          channelsPerStep,
          (some) => Registry.accounts(ground, some, statsOf(keys.shard))
        )
      ),
      Stream.concat(
        Stream.suspend(() => Stream.fromIterable(sources)).pipe(
          Stream.flatMap((source) => Streams.ghosts(ground, source, toleranceMillis))
        )
      ),
      Stream.concat(listed),
      Stream.concat(ready),
      Stream.concat(Waiting.waiting(ground, toleranceMillis, promote(keys.shard))),
      Stream.concat(Stream.fromEffect(outbox)),
      Stream.concat(Recurring.ticks(ground, toleranceMillis)),
      Stream.concat(Recurring.definitions(ground)),
      Stream.concat(Letters.letters(ground, remembered))
    )
  }

  /** Where keys cannot be listed: the bodies that a registered channel may have. */
  const expectedBodies = (registries: ReadonlyArray<Registry.Registry>): Seen["bodies"] =>
    registries.flatMap(({ channels, registrations }, shard) =>
      [...channels.keys()].flatMap((channel) => {
        const groups = new Set(registrations.filter(({ matches }) => matches(channel)).map(({ group }) => group))
        return ["", ...groups].map((group) => [shard, group, channel] as const)
      })
    )

  const walk: InspectionStore["walk"] = ({ toleranceMillis }) =>
    Stream.unwrap(Effect.gen(function*() {
      const registries = yield* Effect.forEach(grounds, Registry.read, { concurrency: 8 })
      const isListed = yield* listsKeys
      const seen: Seen = { bodies: isListed ? [] : expectedBodies(registries), offered: [] }
      return (isListed ? keyspace(registries, seen) : Stream.empty).pipe(
        Stream.concat(
          Stream.fromIterable(grounds).pipe(
            Stream.flatMap((ground) => structures(ground, registries[ground.keys.shard]!, toleranceMillis))
          )
        ),
        Stream.concat(
          Stream.suspend(() => Stream.fromIterable(seen.bodies)).pipe(
            Stream.flatMap(([shard, group, channel]) => Waiting.bodies(grounds[shard]!, group, channel))
          )
        ),
        Stream.concat(
          Stream.suspend(() => Stream.fromIterable(seen.offered)).pipe(
            Stream.flatMap(([shard, name]) => Letters.offers(grounds[shard]!, name))
          )
        )
      )
    }))

  return { listsKeys, walk }
}
