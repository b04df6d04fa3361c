/**
 * Which members of a group are alive, and what they read: each tells so at intervals, in one sorted set for the group.
 */
import { Effect } from "effect"
import type { Membership } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import { compile } from "../../internal/pattern.ts"
import type { Keys } from "../keys.ts"
import { heartbeat } from "../scripts/member/heartbeat.ts"

export interface Presence {
  /** Tells the other members that this one lives; who has been silent for so long. */
  readonly sayAlive: (silentMillis: number) => Effect.Effect<ReadonlyArray<string>, RedisError>
  /** Forgets members of these names. */
  readonly forget: (names: ReadonlyArray<string>) => Effect.Effect<void, RedisError>
  /** This member is gone, and leaves nothing behind. */
  readonly leave: Effect.Effect<void, RedisError>
  /** Which of these channels somebody else reads, who was heard of lately. */
  readonly shared: (channels: ReadonlySet<string>) => Effect.Effect<ReadonlySet<string>, RedisError>
}

/** Members tell that they live once in a lease. Who was not heard of for so many leases is not counted on. */
export const silentLeases = 1.5

/** A member is its name and what it reads, a line each: neither can contain a line break. */
const nameOf = (member: string) => member.split("\n", 1)[0]!

export const make = ({ connection, keys, membership, patterns }: {
  readonly membership: Membership
  readonly keys: Keys
  readonly connection: Connection
  readonly patterns: ReadonlyArray<string>
}): Presence => {
  const { consumer, group, leaseMillis } = membership
  const members = keys.members(group)
  const me = [consumer, ...patterns].join("\n")
  let silentMembers: ReadonlyArray<string> = []

  const remove = (gone: ReadonlyArray<string>) =>
    gone.length === 0
      ? Effect.void
      : Effect.asVoid(connection.send(["zrem", members, ...gone], { idempotent: true }))

  return {
    sayAlive: (silentMillis) =>
      Effect.map(
        connection.evaluate(heartbeat, [members], [me, silentMillis], { idempotent: true }),
        (reply) => {
          silentMembers = reply as ReadonlyArray<string>
          return silentMembers.map(nameOf)
        }
      ),
    forget: (names) => {
      const gone = new Set(names)
      return remove(silentMembers.filter((member) => gone.has(nameOf(member))))
    },
    leave: remove([me]),
    shared: (channels) =>
      Effect.map(connection.send(["zrange", members, 0, -1, "WITHSCORES"], { idempotent: true }), (reply) => {
        const scores = new Map<string, number>()
        const flat = reply as ReadonlyArray<string>
        for (let i = 0; i < flat.length; i += 2) scores.set(flat[i]!, Number(flat[i + 1]))
        // By the clock of Redis, as of when this member was heard of itself.
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
