/**
 * The `Broker` on Redis Streams (Redis 7.0 or newer; standalone, Sentinel or Cluster).
 *
 * `docs/redis-keys.md` shows the data, `redisBroker/keys.ts` names every key, `internal/scripts` holds every script.
 *
 * @since 0.1.0
 */
import { Effect, Layer } from "effect"
import type { BrokerInfo, Selector } from "./Broker.ts"
import { Broker, BrokerError } from "./Broker.ts"
import type { Command, Connection } from "./Redis.ts"
import { Redis, RedisError } from "./Redis.ts"
import { ownKeyProblem, prefixProblem, tagOf } from "./broker/keyNames.ts"
import { patternsOf, reading, readingOf } from "./internal/pattern.ts"
import { shown } from "./internal/shown.ts"
import * as Permissions from "./redis/permissions.ts"
import { tellWait } from "./redis/startWait.ts"
import * as RedisBroadcast from "./redisBroker/broadcast.ts"
import * as Channels from "./redisBroker/channels.ts"
import * as RedisLetters from "./redisBroker/deadLetters.ts"
import * as RedisInspection from "./redisBroker/inspection/walk.ts"
import * as Keys from "./redisBroker/keys.ts"
import { makeName } from "./redisBroker/leadership.ts"
import * as RedisMember from "./redisBroker/member/member.ts"
import { relay } from "./redisBroker/outbox.ts"
import * as RedisAppend from "./redisBroker/publish/append.ts"
import * as RedisScheduled from "./redisBroker/publish/waiting.ts"
import * as RedisRecurring from "./redisBroker/recurring.ts"
import { removeGroup as removeGroupScript } from "./redisBroker/scripts/member/removeGroup.ts"
import { unregisterGroup } from "./redisBroker/scripts/member/unregisterGroup.ts"
import { missingPermissions } from "./redisBroker/scripts/upkeep/missingPermissions.ts"
import * as Shards from "./redisBroker/shards.ts"
import * as RedisStats from "./redisBroker/statistics.ts"
import * as RedisJanitor from "./redisBroker/trimming.ts"

/**
 * Options of `make` and `layer`: the namespace, its shards, and how long acknowledged messages are kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Namespace of all keys: 1 to 64 letters, digits, `.`, `_`, `:` or `-`. Default `"rotif"`. */
  readonly prefix?: string | undefined
  /**
   * How many slots of a Cluster the channels are spread over; 1 to 1024, default 1. It is recorded in Redis by the first
   * client, and a client with another number fails at start.
   */
  readonly shards?: number | undefined
  /**
   * How long a message stays in the log at least, in milliseconds, counted from when it was stored, also when all groups have acknowledged it:
   * a publish whose answer was lost is looked for there. Less than `commandTimeout` twice is told at the start; of the processes of a
   * namespace the longest counts. Default: twice the `commandTimeout` and 5 seconds, and at least 10 seconds.
   */
  readonly graceMillis?: number | undefined
}

/** A consumer that was away for longer than this does not know that its group was removed, and makes it again. */
const removalMillis = 86_400_000

/** A message is kept in the log for so long at least, and for so long after a publish may have ended at the latest. */
const leastGraceMillis = 10_000
const searchingMillis = 5_000

/** What a mend moves in one step. */
const mendBatch = 500

const refuse = (message: string) => new BrokerError({ reason: "Refused", operation: "open", message })

/**
 * The options as they are used, or why they cannot be.
 *
 * @internal
 */
export const checkOptions = Effect.fnUntraced(function*(options?: Options) {
  const { graceMillis, prefix = "rotif", shards = 1 } = options ?? {}
  const problem = typeof prefix === "string" ? prefixProblem(prefix) : "it must be a string"
  if (problem !== undefined) return yield* refuse(`invalid prefix ${shown(prefix)}: ${problem}`)
  if (!Number.isInteger(shards) || shards < 1 || shards > 1024) {
    return yield* refuse(`invalid number of shards ${shown(shards)}: expected a whole number from 1 to 1024`)
  }
  if (graceMillis !== undefined && !(typeof graceMillis === "number" && graceMillis >= 0 && graceMillis < Infinity)) {
    return yield* refuse(`invalid graceMillis ${shown(graceMillis)}: expected a number of milliseconds from 0`)
  }
  return { graceMillis, prefix, shards }
})

/**
 * Makes the broker on the connections of `Redis`.
 *
 * **Errors**: `Refused` for an invalid prefix or number of shards, or when the namespace was created with another number.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options) => tellWait(open(options), () => "the start waits for Redis to answer")

const open = Effect.fnUntraced(function*(options?: Options) {
  const redis = yield* Redis
  const { graceMillis: grace, prefix, shards: count } = yield* checkOptions(options)
  // A publish ends within twice the timeout; if its answer is lost, its message is looked for from then on.
  const endsMillis = 2 * redis.commandMillis
  const graceMillis = grace ?? Math.max(leastGraceMillis, endsMillis + searchingMillis)
  if (graceMillis <= endsMillis) {
    yield* Effect.logWarning(
      `rotif: graceMillis is ${graceMillis} and commandTimeout ${redis.commandMillis} ms: a message may be handled and removed before a publish ` +
        "whose answer was lost has looked for it, which then ends with a PublishUncertain that is never cleared up; make graceMillis " +
        `more than ${endsMillis}, or leave it out`
    )
  }

  const shards = Shards.make(prefix, count, redis)
  const { all, connectionOf, fail, keysOf, shardOf } = shards
  const shardsOf = (selector: Selector): ReadonlyArray<number> =>
    selector._tag === "Pattern"
      ? all.map((keys) => keys.shard)
      : [...new Set(selector.names.map(shardOf))].sort((a, b) => a - b)

  const again = { idempotent: true } as const
  // A flush takes the record with it: it is written again before a client with another number could come in between.
  const recorded = connectionOf(0).send(["hget", keysOf(0).meta, "shards"], again)
  const recordShards = connectionOf(0).send(["hsetnx", keysOf(0).meta, "shards", count], again).pipe(
    Effect.matchEffect({
      onSuccess: () => recorded,
      // It is refused without memory also where nothing is to be written.
      onFailure: (error) =>
        error.reason === "OutOfMemory"
          ? Effect.flatMap(recorded, (found) => found === null ? Effect.fail(error) : Effect.succeed(found))
          : Effect.fail(error)
    }),
    Effect.mapError(fail("open")),
    Effect.flatMap((recorded) =>
      recorded === String(count) ? Effect.void : Effect.fail(refuse(
        `the namespace "${prefix}" has ${String(recorded)} shards and this client is set to ${count}: use shards: ${
          String(recorded)
        }, or another prefix`
      ))
    )
  )
  yield* recordShards
  // Said at the start, not when the first message fails.
  const refused = (yield* connectionOf(0).evaluate(
    missingPermissions,
    [keysOf(0).meta],
    [...Permissions.needed, ...Permissions.wished],
    again
  ).pipe(Effect.mapError(fail("open")))) as ReadonlyArray<string>
  const lacking = refused.filter((command) => Permissions.needed.includes(command))
  if (lacking.length > 0) return yield* refuse(Permissions.refusal(prefix, lacking))
  yield* Permissions.tell(refused)
  const mayUnblock = !refused.includes(Permissions.unblock)

  const janitors = yield* Effect.forEach(
    all,
    (keys) => RedisJanitor.make({ keys, connection: connectionOf(keys.shard), graceMillis }),
    { concurrency: 16 }
  ).pipe(Effect.mapError(fail("open")))

  // Events -----------------------------------------------------------------------------------------------------------

  const members = all.map(() => new Set<RedisMember.RedisMember>())
  const signal = () => {
    const sleepers = all.map(() => new Set<() => void>())
    return {
      wake: (shard: number) => {
        const waiting = [...sleepers[shard]!]
        sleepers[shard]!.clear()
        for (const resume of waiting) resume()
      },
      wait: (shard: number) =>
        Effect.callback<void>((resume) => {
          const wake = () => resume(Effect.void)
          sleepers[shard]!.add(wake)
          return Effect.sync(() => sleepers[shard]!.delete(wake))
        })
    }
  }
  /** Something waits for an earlier time than before; a recurring message has changed; there is a dead letter. */
  const earlier = signal()
  const tickChange = signal()
  const letterChange = signal()
  /** Something was put into the outbox. */
  const outbox = signal()
  const shardByEvents = new Map(all.map((keys) => [keys.events, keys.shard]))
  yield* redis.listen([...shardByEvents.keys()], {
    onMessage: (events, message) => {
      const shard = shardByEvents.get(events)
      if (shard === undefined) return
      const [kind, first = "", second] = message.split("\n")
      if (kind === "due") earlier.wake(shard)
      if (kind === "tick") tickChange.wake(shard)
      if (kind === "letter") letterChange.wake(shard)
      if (kind === "outbox") outbox.wake(shard)
      if (kind === "removed") { for (const member of members[shard]!) member.notifyRemoved(first) }
      if (kind === "channel") { for (const member of members[shard]!) member.notify(first, undefined) }
      if (kind === "retry" && second !== undefined) {
        for (const member of members[shard]!) member.notify(second, first)
      }
    },
    onGap: () => {
      for (const keys of all) {
        for (const member of members[keys.shard]!) member.notifyGap()
        earlier.wake(keys.shard)
        tickChange.wake(keys.shard)
        letterChange.wake(keys.shard)
        outbox.wake(keys.shard)
      }
    }
  }).pipe(Effect.mapError(fail("open")))

  const scheduled = RedisScheduled.make(shards)
  const channels = Channels.make(shards, {
    touch: (shard, stream) => janitors[shard]!.touch(stream),
    onFlush: Effect.ignore(recordShards, { log: "Warn" })
  })
  const { append, checkDurability } = RedisAppend.make(shards, channels, {
    graceMillis,
    durable: (shard) => redis.durable(keysOf(shard).meta)
  })
  const recurring = RedisRecurring.make(shards, channels.introduce, tickChange.wait)

  // Members ----------------------------------------------------------------------------------------------------------

  const join: Broker["Service"]["join"] = (membership) =>
    tellWait(
      joinNow(membership),
      () => `the start of a subscription of group "${membership.group}" waits for Redis to answer`
    )
  const joinNow: Broker["Service"]["join"] = Effect.fnUntraced(function*(membership) {
    const keys = keysOf(membership.shard)
    const { selector } = membership
    const mine = selector._tag === "Pattern"
      ? selector.pattern
      : selector.names.filter((name) => shardOf(name) === membership.shard)
    const reader = yield* Effect.mapError(redis.blocking(keys.meta, { mayUnblock }), fail("join"))
    const member = yield* RedisMember.make(shards, channels, {
      membership,
      reader,
      patterns: typeof mine === "string" ? [mine] : mine,
      names: typeof mine === "string" ? [] : mine,
      matches: readingOf(typeof mine === "string" ? selector : { _tag: "Channels", names: mine }),
      onSettled: janitors[membership.shard]!.touch
    })
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        members[membership.shard]!.add(member)
        // What was announced between its first look and now it has not heard.
        member.notifyGap()
      }),
      () => Effect.andThen(Effect.sync(() => members[membership.shard]!.delete(member)), member.close)
    )
    return member
  })

  const removeGroup = Effect.fnUntraced(function*(group: string, selector: Selector) {
    for (const shard of shardsOf(selector)) {
      const keys = keysOf(shard)
      const connection = connectionOf(shard)
      // First: its consumers are to know why the rest is gone.
      yield* connection.evaluate(
        unregisterGroup,
        [keys.meta, keys.groups, keys.removed(group)],
        [group, removalMillis, keys.events, ...patternsOf(selector)],
        { idempotent: true }
      )
      const [fields, channels] = (yield* connection.pipeline([
        ["hkeys", keys.groups],
        ["hkeys", keys.channels]
      ])) as ReadonlyArray<unknown>
      for (const reply of [fields, channels]) if (reply instanceof RedisError) return yield* reply
      const left = Keys.registrationsOf(fields).filter((one) => one.group === group).map(({ pattern }) =>
        reading(pattern)
      )
      const matches = readingOf(selector)
      const removed = (channels as Array<string>).filter((name) => matches(name) && !left.some((still) => still(name)))
      for (const channel of removed) {
        const dropped = (isFirst: boolean) =>
          connection.evaluate(
            removeGroupScript,
            [
              keys.log(channel),
              keys.retry(group, channel),
              keys.retries(group),
              keys.floors(group),
              keys.meta,
              keys.counts,
              keys.bodies(group, channel),
              keys.trials(group, channel),
              keys.settled
            ],
            [group, channel, isFirst ? 1 : 0],
            { idempotent: true }
          )
        let outcome = yield* dropped(true)
        while (outcome === 0) outcome = yield* dropped(false)
      }
      yield* connection.send(["del", keys.members(group), keys.settings(group)], { idempotent: true })
      const ended = new Set(removed)
      let cursor = "0"
      do {
        const [next, page] = (yield* connection.send(["zscan", keys.waiting, cursor, "COUNT", 500], {
          idempotent: true
        })) as readonly [string, ReadonlyArray<string>]
        cursor = next
        const waiting = page.filter((text, i) => {
          const [owner, channel = ""] = text.split("\n")
          return i % 2 === 0 && owner === group && ended.has(channel)
        })
        if (waiting.length > 0) {
          yield* connection.send(["zrem", keys.waiting, ...waiting], { idempotent: true })
        }
      } while (cursor !== "0")
      if (left.length === 0) {
        yield* connection.send(["unlink", keys.once(group), keys.olderOnce(group)], { idempotent: true })
      }
    }
  })

  // Looking ----------------------------------------------------------------------------------------------------------

  const me = makeName()
  const stats = RedisStats.make(shards, me)

  const infoOf = Effect.fnUntraced(function*(selector: Selector): Effect.fn.Return<BrokerInfo, RedisError> {
    const channels = yield* stats.look(selector, false)
    const sizes = yield* Effect.forEach(
      all,
      (keys) => connectionOf(keys.shard).pipeline([["zcard", keys.waiting], ["xlen", keys.dead]]),
      { concurrency: 16 }
    )
    let waiting = 0
    let dead = 0
    for (const [some, others] of sizes) {
      if (some instanceof RedisError) return yield* some
      if (others instanceof RedisError) return yield* others
      waiting += Number(some)
      dead += Number(others)
    }
    return { channels, waiting, dead }
  })

  const readOwn = Effect.fnUntraced(function*(connection: Connection, key: string) {
    const send = (...command: Command) => connection.send(command, { idempotent: true })
    const type = yield* send("type", key)
    if (type === "none") return undefined
    return type === "hash"
      ? (yield* send("hgetall", key)) as Record<string, string>
      : (yield* send("get", key)) as string
  })

  return Broker.of({
    shards: count,
    isPolled: true,
    rest: Effect.sleep,
    shardsOf,
    append,
    checkDurability,
    join,
    promote: scheduled.promote,
    awaitEarlier: earlier.wait,
    scheduled: scheduled.service,
    recurring,
    relay: (shard, limit) => Effect.mapError(relay(shards, channels, shard, limit), fail("relay")),
    awaitOutbox: (shard) => outbox.wait(shard),
    own: {
      keyFor: (channel, name) => keysOf(shardOf(channel)).own(name),
      problemOf: (channel, key) => ownKeyProblem(tagOf(prefix, shardOf(channel)), key),
      read: (key) => readOwn(redis.connection(key), key).pipe(Effect.mapError(fail("own.read")))
    },
    ping: Effect.forEach(all, ({ shard }) => connectionOf(shard).send(["ping"], { idempotent: true }), {
      concurrency: "unbounded",
      discard: true
    }).pipe(Effect.mapError(fail("ping"))),
    stats: stats.store,
    awaitTrim: (shard) => janitors[shard]!.awaitWork,
    trim: (shard) =>
      Effect.andThen(
        shard === 0 ? recordShards : Effect.void,
        Effect.mapError(Effect.andThen(channels.reassure(shard), janitors[shard]!.trim), fail("trim"))
      ),
    removeGroup: (group, selector) => Effect.mapError(removeGroup(group, selector), fail("removeGroup")),
    info: (selector) => Effect.mapError(infoOf(selector), fail("info")),
    letters: RedisLetters.make(shards, me, letterChange.wait),
    inspection: RedisInspection.make(shards, {
      prefix,
      connectionFor: redis.connection,
      promote: (shard) => scheduled.promote(shard, mendBatch),
      relay: (shard) => Effect.mapError(relay(shards, channels, shard, mendBatch), fail("relay")),
      stats: stats.lookIn
    }),
    broadcast: RedisBroadcast.make(shards, redis)
  })
})

/**
 * The broker as a layer, on the connections of `Redis`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options) => Layer.effect(Broker, make(options))
