/**
 * The `Broker` on Redis Streams (Redis 7.0 or newer; standalone, Sentinel or Cluster).
 *
 * `docs/redis-keys.md` describes the data, `redisBroker/keys.ts` names every key, `redisBroker/scripts` has every script.
 *
 * @since 0.1.0
 */
import { Effect, Layer } from "effect"
import type { Selector } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import type { Command, Connection } from "./Redis.ts"
import { Redis } from "./Redis.ts"
import { ownKeyProblem, prefixProblem, tagOf } from "./broker/keyText.ts"
import { readingOf } from "./internal/pattern.ts"
import { shown } from "./internal/describe.ts"
import { uniqueName } from "./internal/uniqueName.ts"
import { tellWait } from "./redis/startWait.ts"
import * as RedisBroadcast from "./redisBroker/broadcast.ts"
import * as Channels from "./redisBroker/channels.ts"
import * as RedisLetters from "./redisBroker/deadLetters.ts"
import * as Events from "./redisBroker/events.ts"
import * as RedisGroups from "./redisBroker/groups.ts"
import * as RedisInspection from "./redisBroker/inspection/walk.ts"
import * as RedisMember from "./redisBroker/member/member.ts"
import * as Namespace from "./redisBroker/namespace.ts"
import { relay } from "./redisBroker/outbox.ts"
import * as RedisAppend from "./redisBroker/publish/append.ts"
import * as Promotion from "./redisBroker/publish/promotion.ts"
import * as RedisScheduled from "./redisBroker/publish/waiting.ts"
import * as RedisRecurring from "./redisBroker/recurring.ts"
import { removeGroup } from "./redisBroker/removeGroup.ts"
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
   * Number of slots of a Cluster over which the channels are spread: 1 to 1024, default 1. The first client records it in Redis, and
   * a client with another number fails at the start.
   */
  readonly shards?: number | undefined
  /**
   * Minimum time that a message stays in the log, in milliseconds since it was stored, even when all groups have acknowledged it: a
   * publish whose reply was lost is searched there. The longest value of all processes of a namespace counts. A value of at most twice the
   * `commandTimeout` causes a warning at the start. Default: twice the `commandTimeout` and 5 seconds, and at least 10 seconds.
   */
  readonly graceMillis?: number | undefined
}

/** By default a message stays in the log for at least this long, and this long after the latest end of its publish. */
const leastGraceMillis = 10_000
const searchingMillis = 5_000

/** At most this many messages are moved by one step of a repair. */
const repairBatch = 500

/**
 * Checks the options, and fills in the defaults.
 *
 * @internal
 */
export const checkOptions = Effect.fnUntraced(function*(options?: Options) {
  const { graceMillis, prefix = "rotif", shards = 1 } = options ?? {}
  const problem = typeof prefix === "string" ? prefixProblem(prefix) : "it must be a string"
  if (problem !== undefined) return yield* Namespace.refuse(`invalid prefix ${shown(prefix)}: ${problem}`)
  if (!Number.isInteger(shards) || shards < 1 || shards > 1024) {
    return yield* Namespace.refuse(`invalid number of shards ${shown(shards)}: expected a whole number from 1 to 1024`)
  }
  if (graceMillis !== undefined && !(typeof graceMillis === "number" && graceMillis >= 0 && graceMillis < Infinity)) {
    return yield* Namespace.refuse(
      `invalid graceMillis ${shown(graceMillis)}: expected a number of milliseconds from 0`
    )
  }
  return { graceMillis, prefix, shards }
})

/**
 * Makes the broker on the connections of `Redis`.
 *
 * **Errors**: `BrokerError` with the reason `Refused` for an invalid option, for a number of shards that is not the recorded one, and for a
 * missing permission; with another reason when Redis cannot be reached. A second call is safe.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options) => tellWait(open(options), () => "the start waits for Redis to answer")

const open = Effect.fnUntraced(function*(options?: Options) {
  const redis = yield* Redis
  const { graceMillis: grace, prefix, shards: count } = yield* checkOptions(options)
  // A publish ends within twice the timeout. If its reply is lost, the search for its message begins then.
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

  // A missing permission fails the start, not the first message.
  const recordShards = Namespace.recordShards(prefix, shards)
  yield* recordShards
  const { mayUnblock } = yield* Namespace.checkPermissions(prefix, shards)

  const janitors = yield* Effect.forEach(
    all,
    (keys) => RedisJanitor.make(keys, connectionOf(keys.shard), graceMillis),
    { concurrency: 16 }
  ).pipe(Effect.mapError(fail("open")))

  const events = yield* Events.listen(shards, redis)

  const promote = Promotion.make(shards)
  const channels = Channels.make(shards, {
    touch: (shard, stream) => janitors[shard]!.touch(stream),
    onFlush: Effect.ignore(recordShards, { log: "Warn" })
  })
  const { append, checkDurability } = RedisAppend.make(shards, channels, {
    graceMillis,
    durable: (shard) => redis.durable(keysOf(shard).meta)
  })
  const recurring = RedisRecurring.make(shards, channels.introduce, (shard) => events.wait("tick", shard))

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
    yield* Effect.acquireRelease(Effect.void, () => member.close)
    // At the end events stop before the member closes.
    yield* events.subscribe(membership.shard, member)
    return member
  })

  // The service ----------------------------------------------------------------------------------------------------------

  const me = uniqueName()
  const stats = RedisStats.make(shards, me)
  const groups = RedisGroups.make(shards, shardsOf)

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
    promote,
    awaitEarlier: (shard) => events.wait("due", shard),
    scheduled: RedisScheduled.make(shards),
    recurring,
    relay: (shard, limit) => Effect.mapError(relay(shards, channels, shard, limit), fail("relay")),
    awaitOutbox: (shard) => events.wait("outbox", shard),
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
    groups,
    removeGroup: (group, selector) =>
      Effect.mapError(
        Effect.forEach(
          shardsOf(selector),
          (shard) => removeGroup(connectionOf(shard), keysOf(shard), group, selector),
          { discard: true }
        ),
        fail("removeGroup")
      ).pipe(Effect.andThen(groups.endIfGone(group))),
    info: stats.info,
    letters: RedisLetters.make(shards, me, (shard) => events.wait("letter", shard)),
    inspection: RedisInspection.make(shards, {
      prefix,
      connectionFor: redis.connection,
      promote: (shard) => promote(shard, repairBatch),
      relay: (shard) => Effect.mapError(relay(shards, channels, shard, repairBatch), fail("relay")),
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
