/** The streams of a shard that are trimmed: each with the groups and limits that decide what is removed from it. */
import { Effect, Result } from "effect"
import type { Limits } from "../Broker.ts"
import { isPositionOrMillis } from "../broker/position.ts"
import type { Command, Connection } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import type { Keys } from "./keys.ts"
import { registrationsOf } from "./keys.ts"

/** A stream, and the groups and limits that decide what is removed from it. */
export interface Subject {
  readonly stream: string
  readonly channel: string
  readonly groups: ReadonlyArray<string>
  readonly limits: Limits
  readonly isRetry: boolean
}

/** Reads the limits of a channel. A value that another program wrote, and that is no limit, counts as none. */
const limitsOf = (text: string): Limits => {
  const parsed = Result.getOrElse(Result.try((): unknown => text === "" ? {} : JSON.parse(text)), () => ({}))
  const { maxAgeMillis, maxLength, minId } = (parsed ?? {}) as { readonly [Name in keyof Limits]: unknown }
  const isCount = (value: unknown): value is number => typeof value === "number" && value >= 0 && value < 2 ** 53
  return {
    maxAgeMillis: isCount(maxAgeMillis) ? Math.ceil(maxAgeMillis) : undefined,
    maxLength: isCount(maxLength) ? Math.trunc(maxLength) : undefined,
    minId: typeof minId === "string" && isPositionOrMillis(minId) ? minId : undefined
  }
}

/** Reads the streams of a shard, and the names of its groups. */
export const subjectsOf = Effect.fnUntraced(function*(keys: Keys, connection: Connection) {
  const [limits, fields] = yield* connection.pipeline([["hgetall", keys.channels], ["hkeys", keys.groups]])
  for (const reply of [limits, fields]) if (reply instanceof RedisError) return yield* reply
  const groups = registrationsOf(fields)
  const names = [...new Set(groups.map(({ group }) => group))]
  const retries = yield* connection.pipeline(names.map((group): Command => ["smembers", keys.retries(group)]))
  const out = new Map<string, Subject>()
  for (const [channel, text] of Object.entries(limits as Record<string, string>)) {
    const stream = keys.log(channel)
    out.set(stream, {
      stream,
      channel,
      groups: [...new Set(groups.filter(({ reads }) => reads(channel)).map(({ group }) => group))],
      limits: limitsOf(text),
      isRetry: false
    })
  }
  for (const [i, group] of names.entries()) {
    const channels = retries[i]
    if (channels instanceof RedisError) return yield* channels
    for (const channel of channels as ReadonlyArray<string>) {
      const stream = keys.retry(group, channel)
      out.set(stream, { stream, channel, groups: [group], limits: {}, isRetry: true })
    }
  }
  return { subjects: out, groups: names }
})
