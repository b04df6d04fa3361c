/**
 * Which members of a group are alive, and which channels they read. Each member writes this at intervals into one sorted set of the group.
 */
import { Effect } from "effect"
import type { RedisError } from "../../Redis.ts"
import { compile } from "../../internal/pattern.ts"
import { heartbeat } from "../scripts/member/heartbeat.ts"
import type { MemberContext } from "./context.ts"

/** A member writes once in a lease that it is alive. After this many leases of silence it is not counted on any more. */
export const silentLeases = 1.5

/** A member is its name and its patterns, a line each: neither can contain a line break. */
const nameOf = (member: string) => member.split("\n", 1)[0]!

export const make = (
  { connection, keys, membership: { consumer, group, leaseMillis } }: MemberContext,
  patterns: ReadonlyArray<string>
) => {
  const members = keys.members(group)
  const me = [consumer, ...patterns].join("\n")
  let silentMembers: ReadonlyArray<string> = []

  const remove = (gone: ReadonlyArray<string>) =>
    gone.length === 0
      ? Effect.void
      : Effect.andThen(
        connection.send(["zrem", members, ...gone], { idempotent: true }),
        Effect.asVoid(connection.send(["hdel", keys.resting(group), ...gone.map(nameOf)], { idempotent: true }))
      )

  return {
    /** Writes that this member is alive; returns the members that have been silent for `silentMillis`. */
    sayAlive: (silentMillis: number): Effect.Effect<ReadonlyArray<string>, RedisError> =>
      Effect.map(
        connection.evaluate(heartbeat, [members], [me, silentMillis]),
        (reply) => {
          silentMembers = reply as ReadonlyArray<string>
          return silentMembers.map(nameOf)
        }
      ),

    /** Removes the members of these names. */
    forget: (names: ReadonlyArray<string>) => {
      const gone = new Set(names)
      return remove(silentMembers.filter((member) => gone.has(nameOf(member))))
    },

    /** Removes this member, which leaves no delivery behind. */
    leave: remove([me]),

    /** Which of these channels another member reads that was heard of lately. */
    shared: (channels: ReadonlySet<string>): Effect.Effect<ReadonlySet<string>, RedisError> =>
      Effect.map(connection.send(["zrange", members, 0, -1, "WITHSCORES"], { idempotent: true }), (reply) => {
        const scores = new Map<string, number>()
        const flat = reply as ReadonlyArray<string>
        for (let i = 0; i < flat.length; i += 2) scores.set(flat[i]!, Number(flat[i + 1]))
        // By the clock of Redis, counted from the last heartbeat of this member.
        const since = (scores.get(me) ?? Infinity) - silentLeases * leaseMillis
        const out = new Set<string>()
        for (const [member, score] of scores) {
          if (member === me || !(score > since)) continue
          for (const pattern of member.split("\n").slice(1)) {
            const matches = compile(pattern)
            for (const channel of channels) if (matches(channel)) out.add(channel)
          }
        }
        return out
      })
  }
}

export type Presence = ReturnType<typeof make>
