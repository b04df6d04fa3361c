/** Groups on Redis: who belongs to them, and their pauses, which are kept in each shard that the pause concerns. */
import { Effect } from "effect"
import { BrokerError } from "../Broker.ts"
import type { GroupMember, GroupState, GroupStore, Selector } from "../Broker.ts"
import { decode } from "../broker/groupSettings.ts"
import { matcherOf } from "../internal/pattern.ts"
import type { Command } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import type { Keys, Registration } from "./keys.ts"
import { registrationsOf } from "./keys.ts"
import { silentLeases } from "./member/presence.ts"
import { encodeRest, pausesAt, pausesIn } from "./pauses.ts"
import { millisOfTime } from "./replies.ts"
import { countLetters } from "./scripts/groups/countLetters.ts"
import { pauseGroup } from "./scripts/groups/pauseGroup.ts"
import { resumeGroup } from "./scripts/groups/resumeGroup.ts"
import { gateConsumer } from "./scripts/parts/gate.ts"
import type { Shards } from "./shards.ts"

/** At most this many pauses in a shard: every member reads them with the registry. */
const mostPauses = 1_000

const groupsAtOnce = 100

/** Without an error in one of them. */
const sound = (replies: ReadonlyArray<unknown>): Effect.Effect<ReadonlyArray<unknown>, RedisError> => {
  const error = replies.find((reply) => reply instanceof RedisError)
  return error === undefined ? Effect.succeed(replies) : Effect.fail(error)
}

/** The members of a group, from its sorted set of heartbeats, the settings of its consumers and what they keep. */
const membersIn = (
  [flat, settings, keeps]: readonly [ReadonlyArray<string>, ReadonlyArray<string>, Readonly<Record<string, string>>],
  nowMillis: number
): ReadonlyArray<GroupMember> => {
  const longest = settings.reduce((most, text) => Math.max(most, decode(text)?.leaseMillis ?? 0), 0)
  const members: Array<GroupMember> = []
  for (let i = 0; i < flat.length; i += 2) {
    const [consumer = "", ...patterns] = flat[i]!.split("\n")
    const idleMillis = Math.max(0, nowMillis - Number(flat[i + 1]))
    members.push({
      consumer,
      patterns,
      idleMillis,
      isAlive: idleMillis <= silentLeases * longest,
      keeps: (keeps[consumer] ?? "").split(" ").filter(Boolean)
    })
  }
  return members
}

export const make = (
  { all, connectionOf, fail, keysOf, shardOf }: Shards,
  shardsOf: (selector: Selector) => ReadonlyArray<number>
) => {
  const patternsIn = (selector: Selector, shard: number) =>
    selector._tag === "Pattern" ? [selector.pattern] : selector.names.filter((name) => shardOf(name) === shard)

  const listIn = Effect.fnUntraced(function*(keys: Keys, only: string | undefined) {
    const connection = connectionOf(keys.shard)
    const [fields, paused, time] = yield* Effect.flatMap(
      connection.pipeline([["hkeys", keys.groups], ["hgetall", keys.paused], ["time"]]),
      sound
    )
    const nowMillis = millisOfTime(time)
    const registered = Map.groupBy(registrationsOf(fields), ({ group }) => group)
    const pauses = Map.groupBy(pausesAt(paused, nowMillis), ({ group }) => group)
    const names = [...new Set([...registered.keys(), ...pauses.keys(), ...only === undefined ? [] : [only]])]
      .filter((name) => only === undefined || name === only).sort()
    const out: Array<GroupState> = []
    for (let i = 0; i < names.length; i += groupsAtOnce) {
      const some = names.slice(i, i + groupsAtOnce)
      const replies = yield* Effect.flatMap(
        connection.pipeline(some.flatMap((name): ReadonlyArray<Command> => [
          ["zrange", keys.members(name), 0, -1, "WITHSCORES"],
          ["zrange", keys.settings(name), 0, -1],
          ["hgetall", keys.resting(name)]
        ])),
        sound
      )
      for (const [j, group] of some.entries()) {
        // Each group has three replies, in the order in which they were asked for.
        const state: GroupState = {
          group,
          shard: keys.shard,
          patterns: (registered.get(group) ?? []).map(({ pattern }: Registration) => pattern).sort(),
          members: membersIn(replies.slice(3 * j, 3 * j + 3) as unknown as Parameters<typeof membersIn>[0], nowMillis),
          pauses: pauses.get(group) ?? []
        }
        if (state.patterns.length + state.members.length + state.pauses.length > 0) out.push(state)
      }
    }
    return out
  })

  const handedOutIn = Effect.fnUntraced(function*(keys: Keys, group: string, matches: (channel: string) => boolean) {
    const connection = connectionOf(keys.shard)
    const [channels, retries] = yield* Effect.flatMap(
      connection.pipeline([["hkeys", keys.channels], ["smembers", keys.retries(group)]]),
      sound
    )
    const streams = [
      ...(channels as ReadonlyArray<string>).filter(matches).map(keys.log),
      ...(retries as ReadonlyArray<string>).filter(matches).map((channel) => keys.retry(group, channel))
    ]
    let count = 0
    for (let i = 0; i < streams.length; i += groupsAtOnce) {
      const replies = yield* connection.pipeline(
        streams.slice(i, i + groupsAtOnce).map((stream): Command => ["xpending", stream, group])
      )
      for (const reply of replies) {
        // Without the group, or its stream, nothing is handed out.
        if (reply instanceof RedisError && reply.reason !== "NoGroup") return yield* reply
        const consumers = (Array.isArray(reply) ? reply[3] : null) as ReadonlyArray<readonly [string, string]> | null
        // What waits behind the head of its ordering key is held by nobody.
        for (const [name, pending] of consumers ?? []) if (name !== gateConsumer) count += Number(pending)
      }
    }
    return count
  })

  const store: GroupStore = {
    list: (group) =>
      Effect.mapError(
        Effect.map(Effect.forEach(all, (keys) => listIn(keys, group), { concurrency: 16 }), (found) => found.flat()),
        fail("groups.list")
      ),

    pause: Effect.fnUntraced(function*({ group, onlyIfNone, selector, untilMillis, ...rest }) {
      const replies = yield* Effect.forEach(shardsOf(selector), (shard) => {
        const keys = keysOf(shard)
        return connectionOf(shard).evaluate(pauseGroup, [keys.paused], [
          group,
          untilMillis === undefined ? "-" : Math.floor(untilMillis),
          encodeRest(rest),
          onlyIfNone === true ? 1 : 0,
          mostPauses,
          keys.events,
          ...patternsIn(selector, shard)
        ])
      }, { concurrency: 16 }).pipe(Effect.mapError(fail("groups.pause")))
      if (replies.includes(-1)) {
        return yield* new BrokerError({
          reason: "Refused",
          operation: "groups.pause",
          message:
            `groups.pause: there are ${mostPauses} pauses already: resume some (Groups.resume), or pause by a pattern`
        })
      }
      return !replies.includes(0)
    }),

    resume: (group, selector) =>
      Effect.forEach(all, (keys) => {
        const patterns = selector === undefined ? [] : patternsIn(selector, keys.shard)
        // The count of dead letters is in one shard, whatever channels they come from.
        const names = selector !== undefined && patterns.length === 0 ? [""] : patterns
        return Effect.map(
          connectionOf(keys.shard).evaluate(
            resumeGroup,
            [keys.paused, keys.storm(group)],
            [group, keys.events, ...names]
          ),
          (reply) => pausesIn(group, reply as ReadonlyArray<string | number>).pauses
        )
      }, { concurrency: 16 }).pipe(
        // A pause by a pattern is in every shard.
        Effect.map((found) => [...new Map(found.flat().map((pause) => [pause.pattern, pause])).values()]),
        Effect.mapError(fail("groups.resume"))
      ),

    handedOut: (group, selector) =>
      Effect.mapError(
        Effect.map(
          Effect.forEach(shardsOf(selector), (shard) => handedOutIn(keysOf(shard), group, matcherOf(selector)), {
            concurrency: 16
          }),
          (counts) => counts.reduce((sum, count) => sum + count, 0)
        ),
        fail("groups.handedOut")
      ),

    countLetters: ({ group, letters, most, withinMillis }) => {
      const keys = keysOf(shardOf(group))
      return Effect.mapError(
        Effect.map(
          connectionOf(keys.shard).evaluate(countLetters, [keys.storm(group)], [
            Math.ceil(withinMillis),
            most,
            ...letters
          ]),
          Number
        ),
        fail("groups.countLetters")
      )
    }
  }
  return {
    ...store,
    /** Ends the pauses of a group that is registered in no shard any more. */
    endIfGone: (group: string) =>
      Effect.flatMap(
        store.list(group),
        (states) => states.some(({ patterns }) => patterns.length > 0) ? Effect.void : store.resume(group, undefined)
      )
  }
}
