/**
 * The keys of a namespace: lists them by SCAN, server by server, and checks each page.
 *
 * Some things are known only by the names of keys: the groups and channels that have bodies, and the subscriptions that letters were
 * offered to. They are collected on the way.
 */
import { Effect, Stream } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Connection } from "../../Redis.ts"
import type { Page, Suspect } from "../../broker/inspection.ts"
import { parse } from "../keys.ts"
import type { Shards } from "../shards.ts"
import type { Checks } from "./check.ts"
import { paged } from "./check.ts"
import * as Keyspace from "./keyspace.ts"
import type { Registry } from "./registry.ts"

/** Keys that one SCAN looks at, about. */
const keysPerScan = 1_000

export interface Seen {
  readonly bodies: Array<readonly [shard: number, group: string, channel: string]>
  readonly offered: Array<readonly [shard: number, name: string]>
}

export const make = (
  { all, connectionOf, fail, shardOf }: Shards,
  prefix: string,
  checks: ReadonlyArray<Checks>,
  connectionFor: (key: string) => Connection
) => {
  const failed = fail("inspection")

  const scan = (shard: number, cursor: string) =>
    connectionOf(shard).send(["scan", cursor, "MATCH", `{${prefix}:*`, "COUNT", keysPerScan], { idempotent: true })

  /** One shard of each server: one scan of a server finds the keys of all its shards. */
  const servers = Effect.gen(function*() {
    const known = new Map<string, number>()
    for (const { shard } of all) {
      const info = yield* connectionOf(shard).send(["info", "server"], { idempotent: true }).pipe(
        // Without permission each shard is scanned by itself, and a server may be scanned more than once.
        Effect.catchIf((error) => error.message.startsWith("NOPERM"), () => Effect.succeed("")),
        Effect.mapError(failed)
      )
      const id = /^run_id:(\w+)/m.exec(String(info))?.[1] ?? String(shard)
      if (!known.has(id)) known.set(id, shard)
    }
    return [...known.values()]
  })

  /** The suspect of a key of a shard that the namespace does not have. */
  const outside = (key: string, shard: number): Suspect => ({
    finding: {
      kind: "UnknownKey",
      shard,
      key,
      message:
        `the namespace has ${all.length} shards, and this is of none of them: it can be removed if it is not wanted`
    },
    confirm: connectionFor(key).send(["exists", key], { idempotent: true }).pipe(
      Effect.map((there) => there === 1),
      Effect.mapError(failed)
    )
  })

  return {
    /** Whether the server permits SCAN. */
    isPermitted: scan(0, "0").pipe(
      Effect.as(true),
      Effect.catchIf((error) => error.message.startsWith("NOPERM"), () => Effect.succeed(false)),
      Effect.mapError(failed)
    ),

    /** Checks all keys, and collects into `seen`. */
    keys: (registries: ReadonlyArray<Registry>, seen: Seen): Stream.Stream<Page, BrokerError> =>
      Stream.fromIterableEffect(servers).pipe(
        Stream.flatMap((server) =>
          paged(
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
                if (shard >= all.length) suspects.push(outside(key, shard))
                else byShard[shard]!.push({ key, found })
                if (kind === "bodies") seen.bodies.push([shard, parts[0]!, parts[1]!])
                if (kind === "offered") seen.offered.push([shard, parts[0]!])
              }
              for (const [shard, some] of byShard.entries()) {
                if (some.length > 0) {
                  suspects.push(...yield* Keyspace.keys(checks[shard]!, registries[shard]!, shardOf, some))
                }
              }
              return [{ looked: { keys: looked }, suspects }, next === "0" ? undefined : next] as const
            })
          )
        )
      )
  }
}
