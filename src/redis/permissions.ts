/**
 * Permissions of the Redis user: the commands that Rotif needs, and the consequences where one is missing. They are checked once, when the layer
 * is built, by the script `missingPermissions`, which executes none of them.
 */
import { Effect } from "effect"

/** Commands that every subscription and publish may need. A command that only some operations need is refused when they are called. */
export const needed: ReadonlyArray<string> = (
  "xadd xread xreadgroup xack xclaim xpending xlen xrange xrevrange xtrim xinfo|groups xinfo|consumers xinfo|stream " +
  "xgroup|create xgroup|delconsumer xgroup|destroy xsetid zadd zrem zrange zrangebyscore zscore hget hmget hset hsetnx " +
  "hgetall hkeys hlen hexists hdel hincrby sadd smembers get set exists pexpire type publish subscribe"
).split(" ")

/** A read that cannot be unblocked waits at most this long at the server. */
export const shortBlockMillis = 250

export const unblock = "client|unblock"

/** Commands without which Rotif works less well: a warning. */
const degrading: Readonly<Record<string, string>> = {
  [unblock]:
    `reads wait at most ${shortBlockMillis} ms at the server in place of blockInterval, so that new channels, pause and the end of a subscription take that ` +
    "long at most; an idle subscription costs Redis four reads a second",
  "client|kill": "what was sent on a connection that was lost may be executed after what is sent on the next one",
  info:
    "that another server answers at the same address is noticed later, and a wrong kind of server only where HELLO tells it"
}

/** Commands without which one function is missing. */
const optional: Readonly<Record<string, string>> = {
  "config|get": "settings that lose messages (maxmemory-policy, appendonly) are not noticed",
  "memory|usage": "statistics have no size of channels",
  scan: "verify finds no keys that nothing names"
}

export const wished: ReadonlyArray<string> = [...Object.keys(degrading), ...Object.keys(optional)]

const grants = (commands: ReadonlyArray<string>) => commands.map((command) => `+${command}`).join(" ")

const line = (refused: ReadonlyArray<string>, why: Readonly<Record<string, string>>): string | undefined => {
  const found = refused.filter((command) => command in why)
  if (found.length === 0) return undefined
  const all = found.map((command) => `without +${command} ${why[command]!}`).join("; ")
  return `rotif: the user of Redis may not do all that Rotif would: permit ${
    grants(found)
  } (see Permissions in docs/operations.md). Meanwhile, ${all}`
}

/** Logs the missing permissions, their consequences, and the rules to grant. */
export const tell = Effect.fnUntraced(function*(refused: ReadonlyArray<string>) {
  const [serious, rest] = [line(refused, degrading), line(refused, optional)]
  if (serious !== undefined) yield* Effect.logWarning(serious)
  if (rest !== undefined) yield* Effect.logInfo(rest)
})

/** Returns the error message for a user that lacks needed permissions. */
export const refusal = (prefix: string, refused: ReadonlyArray<string>): string => {
  const channels = refused.some((command) => command.endsWith("publish") || command.endsWith("subscribe"))
    ? ` &{${prefix}:*`
    : ""
  return `the user of Redis may not do what is needed in the namespace "${prefix}": permit ${
    grants(refused)
  }${channels} (all of it is under Permissions in docs/operations.md)`
}
