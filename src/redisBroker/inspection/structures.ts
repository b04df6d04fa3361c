/** Everything in one shard that is found without listing keys, from the registry to the dead letters. */
import { Effect, Stream } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Page } from "../../broker/inspection.ts"
import type { ChannelStats } from "../../broker/statistics.ts"
import { millisOf } from "../../broker/position.ts"
import * as Accounts from "./accounts.ts"
import type { Checks } from "./check.ts"
import { groupsIn } from "../replies.ts"
import { chunks } from "./check.ts"
import * as Gates from "./gates.ts"
import * as Letters from "./deadLetters.ts"
import * as Deliveries from "./deliveries.ts"
import * as Recurring from "./recurring.ts"
import * as Registry from "./registry.ts"
import * as Waiting from "./waiting.ts"

/** Channels in one step. */
const channelsPerStep = 100

/** Finds an outbox whose first message was not relayed in time. */
const outbox = (
  { ask, keys, now, report }: Checks,
  toleranceMillis: number,
  relay: Effect.Effect<unknown, BrokerError>
): Effect.Effect<Page, BrokerError> => {
  const unrelayed = Effect.map(
    Effect.all([now, ask([["xrange", keys.outbox, "-", "+", "COUNT", 1]])]),
    ([nowMillis, [reply]]) => {
      const position = ((reply ?? []) as ReadonlyArray<readonly [string, unknown]>)[0]?.[0]
      return position !== undefined && millisOf(position) <= nowMillis - toleranceMillis ? position : undefined
    }
  )
  return Effect.map(unrelayed, (id): Page => ({
    suspects: id === undefined ? [] : [report(
      {
        kind: "Unrelayed",
        key: keys.outbox,
        id,
        message:
          "messages of transactions have not been brought to the shards of their channels: what does the log say?",
        repair: "brings them there, as every process does"
      },
      Effect.map(unrelayed, (found) => found !== undefined),
      Effect.andThen(relay, Effect.map(unrelayed, (found) => found === undefined))
    )]
  }))
}

/** Operations of the broker on this shard that checks and repairs use. */
export interface Operations {
  readonly promote: Effect.Effect<unknown, BrokerError>
  readonly relay: Effect.Effect<unknown, BrokerError>
  readonly stats: (channels: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<ChannelStats>, BrokerError>
}

export const structures = (
  checks: Checks,
  registry: Registry.Registry,
  toleranceMillis: number,
  { promote, relay, stats }: Operations
): Stream.Stream<Page, BrokerError> => {
  const { ask, keys } = checks
  /** The logs that have pending deliveries. */
  const logs: Array<Deliveries.GroupChannel> = []
  const retries: Array<Deliveries.GroupChannel> = []
  /** Messages of retry streams, to be looked for among the dead letters. */
  const remembered = new Map<string, string>()
  const channels = [...registry.channels.keys()]

  const places = chunks(
    channels,
    channelsPerStep,
    (some) =>
      Effect.map(Registry.places(checks, registry, some), ([page, found]) => {
        logs.push(...found)
        return page
      })
  )

  const listed = chunks(
    [...registry.groups],
    1,
    ([group = ""]) =>
      Effect.map(ask([["smembers", keys.retries(group)]]), ([channels]) => {
        for (const channel of (channels ?? []) as ReadonlyArray<string>) {
          retries.push({ key: keys.retry(group, channel), group, channel, isRetry: true })
        }
        return { suspects: [] }
      })
  )

  const ready = Stream.suspend(() => Stream.fromIterable(retries)).pipe(
    Stream.flatMap((stream) =>
      Stream.unwrap(Effect.map(ask([["xinfo", "GROUPS", stream.key]]), ([reply]) => {
        const found = groupsIn(reply).get(stream.group)
        const open = Stream.concat(
          Deliveries.ready(checks, stream, found?.at ?? "0-0", remembered),
          Stream.succeed({ suspects: [Deliveries.settled(checks, stream)] })
        )
        return found === undefined || found.pending === 0
          ? open
          : Stream.concat(Deliveries.ghosts(checks, stream, toleranceMillis), open)
      }))
    )
  )

  return Stream.fromEffect(Registry.entries(checks, registry)).pipe(
    Stream.concat(places),
    Stream.concat(chunks(channels, channelsPerStep, (some) => Accounts.accounts(checks, some, stats))),
    Stream.concat(
      Stream.suspend(() => Stream.fromIterable(logs)).pipe(
        Stream.flatMap((stream) => Deliveries.ghosts(checks, stream, toleranceMillis))
      )
    ),
    Stream.concat(listed),
    Stream.concat(ready),
    Stream.concat(Gates.gates(checks, registry)),
    Stream.concat(Waiting.waiting(checks, toleranceMillis, promote)),
    Stream.concat(Stream.fromEffect(outbox(checks, toleranceMillis, relay))),
    Stream.concat(Recurring.ticks(checks, toleranceMillis)),
    Stream.concat(Recurring.definitions(checks)),
    Stream.concat(Letters.letters(checks, remembered))
  )
}
