/**
 * The `Broker` on Redis Streams (Redis 7.0 or newer; standalone, Sentinel or Cluster).
 *
 * `docs/redis-keys.md` shows the data, `internal/keys.ts` names every key, `internal/scripts` holds every script.
 *
 * @since 0.1.0
 */
import { Effect, Layer } from "effect"
import type { Appended, BrokerErrorReason, ChannelInfo, Limits, NewMessage, Selector } from "./Broker.ts"
import { Broker, BrokerError } from "./Broker.ts"
import * as Entry from "./internal/entry.ts"
import * as Keys from "./internal/keys.ts"
import { compile, matcherOf, patternsOf } from "./internal/pattern.ts"
import * as RedisJanitor from "./internal/redisJanitor.ts"
import * as RedisBroadcast from "./internal/redisBroadcast.ts"
import * as RedisLetters from "./internal/redisLetters.ts"
import * as RedisMember from "./internal/redisMember.ts"
import { append } from "./internal/scripts/append.ts"
import { channel as channelScript } from "./internal/scripts/channel.ts"
import { due } from "./internal/scripts/due.ts"
import { promote } from "./internal/scripts/promote.ts"
import type { Command, Connection, RedisErrorReason } from "./Redis.ts"
import { Redis, RedisError } from "./Redis.ts"

/**
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
   * How long a message that all groups have acknowledged stays in the log at least, in milliseconds, so that a publish
   * whose answer was lost can be found there. Longer than twice the command timeout. Default 10 seconds.
   */
  readonly graceMillis?: number | undefined
}

/** Messages in one pipeline, and their bytes. */
const messagesPerWrite = 500
const charsPerWrite = 1024 * 1024

/** How many entries one search for a lost publish looks at. */
const searchPage = 1000

const reasons: Record<RedisErrorReason, BrokerErrorReason> = {
  Unavailable: "Unavailable",
  ConnectionLost: "Uncertain",
  Transient: "Unavailable",
  OutOfMemory: "Overloaded",
  NoGroup: "Unavailable",
  Refused: "Refused"
}

const fail = (operation: string) => (error: RedisError) =>
  new BrokerError({ reason: reasons[error.reason], operation, message: `${operation}: ${error.message}` })

const trimArguments = (limits: Limits | undefined): ReadonlyArray<string | number> =>
  limits?.maxLength !== undefined
    ? ["MAXLEN", "~", limits.maxLength]
    : limits?.minId !== undefined
    ? ["MINID", "~", limits.minId]
    : []

/** A channel this process has published to. */
interface Known {
  readonly log: string
  readonly limits: string
  /** The definition they were taken from last. */
  definition: Limits | undefined
  readonly trims: ReadonlyArray<string | number>
  /** The last position confirmed to this process: a lost publish can only be after it. */
  position: string
}

/**
 * Makes the broker on the connections of `Redis`.
 *
 * **Errors**: `Refused` for an invalid prefix or number of shards, or when the namespace was created with another number.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options?: Options) {
  const redis = yield* Redis
  const prefix = options?.prefix ?? "rotif"
  const shards = options?.shards ?? 1
  const graceMillis = options?.graceMillis ?? 10_000
  const refuse = (message: string) => new BrokerError({ reason: "Refused", operation: "open", message })
  const problem = Keys.prefixProblem(prefix)
  if (problem !== undefined) return yield* refuse(`invalid prefix ${JSON.stringify(prefix)}: ${problem}`)
  if (!Number.isInteger(shards) || shards < 1 || shards > 1024) {
    return yield* refuse(`invalid number of shards ${shards}: expected a whole number from 1 to 1024`)
  }

  const allKeys = Array.from({ length: shards }, (_, shard) => Keys.make(prefix, shard))
  const connections = allKeys.map((keys) => redis.connection(keys.meta))
  const keysOf = (shard: number): Keys.Keys => allKeys[shard]!
  const connectionOf = (shard: number): Connection => connections[shard]!
  const shardOf = (channel: string) => shards === 1 ? 0 : Keys.shardOf(channel, shards)
  const shardsOf = (selector: Selector): ReadonlyArray<number> =>
    selector._tag === "Pattern"
      ? allKeys.map((keys) => keys.shard)
      : [...new Set(selector.names.map(shardOf))].sort((a, b) => a - b)

  const [, recorded] = yield* connectionOf(0).pipeline([
    ["hsetnx", keysOf(0).meta, "shards", shards],
    ["hget", keysOf(0).meta, "shards"]
  ]).pipe(Effect.mapError(fail("open")))
  if (recorded instanceof RedisError) return yield* fail("open")(recorded)
  if (recorded !== String(shards)) {
    return yield* refuse(
      `the namespace "${prefix}" has ${String(recorded)} shards and this client is set to ${shards}: use shards: ${
        String(recorded)
      }, or another prefix`
    )
  }

  const janitors = yield* Effect.forEach(
    allKeys,
    (keys) => RedisJanitor.make({ keys, connection: connectionOf(keys.shard), graceMillis })
  )

  // Events -----------------------------------------------------------------------------------------------------------

  const members = allKeys.map(() => new Set<RedisMember.RedisMember>())
  type Sleepers = ReadonlyArray<Set<() => void>>
  const sleepers: Sleepers = allKeys.map(() => new Set())
  const letterSleepers: Sleepers = allKeys.map(() => new Set())
  const wake = (all: Sleepers, shard: number) => {
    const waiting = [...all[shard]!]
    all[shard]!.clear()
    for (const resume of waiting) resume()
  }
  const awaitWake = (all: Sleepers) => (shard: number) =>
    Effect.callback<void>((resume) => {
      const awake = () => resume(Effect.void)
      all[shard]!.add(awake)
      return Effect.sync(() => all[shard]!.delete(awake))
    })
  const shardByEvents = new Map(allKeys.map((keys) => [keys.events, keys.shard]))
  yield* redis.listen([...shardByEvents.keys()], {
    onMessage: (events, message) => {
      const shard = shardByEvents.get(events)
      if (shard === undefined) return
      const [kind, first = "", second] = message.split("\n")
      if (kind === "due") wake(sleepers, shard)
      if (kind === "letter") wake(letterSleepers, shard)
      if (kind === "channel") { for (const member of members[shard]!) member.notify(first, undefined) }
      if (kind === "retry" && second !== undefined) {
        for (const member of members[shard]!) member.notify(second, first)
      }
    },
    onGap: () => {
      for (const keys of allKeys) {
        for (const member of members[keys.shard]!) member.notifyGap()
        wake(sleepers, keys.shard)
        wake(letterSleepers, keys.shard)
      }
    }
  }).pipe(Effect.mapError(fail("open")))

  // Append -----------------------------------------------------------------------------------------------------------

  const known = new Map<string, Known>()
  /** Names the calls that open a window: unique among processes, as short as may be. */
  const process = Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(4))).toString("base64url")
  let calls = 0
  const nextCall = () => `${process}${(calls++).toString(36)}`
  /** Publishes that could not be decided: where to search when the same id is published again. The oldest are forgotten. */
  const undecided = new Map<string, string>()
  const undecidedKey = (message: NewMessage) => `${message.channel}\n${message.id}`

  const introduce = Effect.fnUntraced(function*(message: NewMessage) {
    const keys = keysOf(shardOf(message.channel))
    const limits = message.limits === undefined ? "" : JSON.stringify(message.limits)
    const log = keys.log(message.channel)
    const position = yield* connectionOf(keys.shard).evaluate(
      channelScript,
      [keys.meta, keys.channels, log],
      [message.channel, limits, keys.events],
      { idempotent: true }
    )
    const entry: Known = {
      log,
      limits,
      definition: message.limits,
      trims: trimArguments(message.limits),
      position: position as string
    }
    known.set(message.channel, entry)
    // Age passes by itself: somebody has to come and look.
    if (message.limits?.maxAgeMillis !== undefined) janitors[keys.shard]!.touch(log)
    return entry
  })

  /** What is known of the channel of a message, unless its limits have changed. */
  const lookUp = (message: NewMessage): Known | undefined => {
    const entry = known.get(message.channel)
    if (entry === undefined || message.limits === undefined || message.limits === entry.definition) return entry
    if (JSON.stringify(message.limits) !== entry.limits) return undefined
    entry.definition = message.limits
    return entry
  }

  const knownFor = (message: NewMessage): Effect.Effect<Known, RedisError> => {
    const entry = lookUp(message)
    return entry !== undefined ? Effect.succeed(entry) : introduce(message)
  }

  const addCommand = (entry: Known, message: NewMessage): Command => [
    "xadd",
    entry.log,
    "NOMKSTREAM",
    ...entry.trims,
    "*",
    ...Entry.logFields(message)
  ]

  const stored = (entry: Known, position: string): Appended => {
    entry.position = position
    return { _tag: "Stored", position }
  }

  const failed = (error: RedisError): Appended => ({ _tag: "Failed", error: fail("append")(error) })

  /**
   * Adds a message through the script: found in the window, or in the log after `since`, or added. The connection has ended
   * the lost socket before this is sent, so what is not in the log by now will never be.
   */
  const appendOnce = Effect.fnUntraced(function*(message: NewMessage, since: string) {
    const keys = keysOf(shardOf(message.channel))
    const window = message.windowMillis ?? 0
    const call = window > 0 ? nextCall() : ""
    let from = since
    let entry = yield* knownFor(message)
    while (true) {
      const [outcome, position] = (yield* connectionOf(keys.shard).evaluate(
        append,
        [entry.log, window > 0 ? keys.seen(message.channel, message.id) : entry.log],
        [message.id, call, window, from, searchPage, entry.trims.length, ...entry.trims, ...Entry.logFields(message)],
        // With a window or a place to search from, doing it twice finds the first.
        { idempotent: window > 0 || since !== "" }
      )) as readonly [string, string]
      if (outcome === "duplicate") return { _tag: "Duplicate", position } satisfies Appended
      if (outcome === "added" || outcome === "found") return stored(entry, position)
      if (outcome === "more") from = position
      else entry = yield* introduce(message)
    }
  })

  /** Leaves open what became of a message; its repetition will find out. */
  const leave = (message: NewMessage, since: string, error: RedisError): Appended => {
    if (undecided.size >= 10_000) undecided.delete(undecided.keys().next().value!)
    undecided.set(undecidedKey(message), since)
    return { _tag: "Uncertain", error: fail("append")(error) }
  }

  const decide = (message: NewMessage, since: string): Effect.Effect<Appended> =>
    appendOnce(message, since).pipe(
      Effect.tap(() => Effect.sync(() => undecided.delete(undecidedKey(message)))),
      Effect.catch((error) =>
        Effect.sync(() =>
          since === "" && error.reason !== "ConnectionLost" ? failed(error) : leave(message, since, error)
        )
      )
    )

  const appendOne = (message: NewMessage): Effect.Effect<Appended> => {
    const since = undecided.size === 0 ? undefined : undecided.get(undecidedKey(message))
    if (message.windowMillis !== undefined || since !== undefined) return decide(message, since ?? "")
    return Effect.matchEffect(knownFor(message), {
      onFailure: (error) => Effect.succeed(failed(error)),
      onSuccess: (entry) => {
        const before = entry.position
        return Effect.matchEffect(
          connectionOf(shardOf(message.channel)).send(addCommand(entry, message), { idempotent: false }),
          {
            onSuccess: (position) =>
              position === null
                // The log is gone (a flush): the channel has to be made known again.
                ? Effect.andThen(Effect.sync(() => known.delete(message.channel)), appendOne(message))
                : Effect.succeed(stored(entry, position as string)),
            onFailure: (error) =>
              error.reason === "ConnectionLost" ? decide(message, before) : Effect.succeed(failed(error))
          }
        )
      }
    })
  }

  /** Writes messages of one shard in one go, then decides one by one what was not answered. */
  const appendChunk = Effect.fnUntraced(function*(
    shard: number,
    messages: ReadonlyArray<NewMessage>,
    entries: ReadonlyArray<Known>
  ) {
    // How far this very call has come in each log: what others add meanwhile may be after what was lost.
    const reached = new Map(entries.map((entry) => [entry, entry.position]))
    const replies = yield* connectionOf(shard).pipeline(messages.map((message, i) => addCommand(entries[i]!, message)))
      .pipe(
        Effect.catch((error) => Effect.succeed(messages.map((): unknown => error)))
      )
    const out: Array<Appended> = []
    let isAway = false
    for (const [i, message] of messages.entries()) {
      const reply = replies[i]
      const entry = entries[i]!
      if (typeof reply === "string") {
        reached.set(entry, reply)
        out.push(stored(entry, reply))
      } else if (reply instanceof RedisError && reply.reason === "ConnectionLost") {
        // In order, each searched for after the one before it: what a lost write did is a prefix of it.
        const since = reached.get(entry)!
        // Where one could not be decided in time, the others need not wait as long each.
        const outcome: Appended = isAway ? leave(message, since, reply) : yield* decide(message, since)
        isAway = outcome._tag === "Uncertain"
        if (outcome._tag === "Stored") reached.set(entry, outcome.position)
        out.push(outcome)
      } else if (reply === null) {
        known.delete(message.channel)
        out.push(yield* appendOne(message))
      } else if (reply instanceof RedisError && reply.reason === "Transient") {
        out.push(yield* appendOne(message))
      } else {
        out.push(
          failed(
            reply instanceof RedisError
              ? reply
              : new RedisError({ reason: "Refused", command: "xadd", message: "XADD gave an unexpected reply" })
          )
        )
      }
    }
    return out
  })

  const appendAll = Effect.fnUntraced(function*(messages: ReadonlyArray<NewMessage>) {
    const outcomes = new Array<Appended>(messages.length)
    const byShard = new Map<number, { indexes: Array<number>; entries: Array<Known>; chars: number }>()
    const flush = Effect.fnUntraced(function*(shard: number) {
      const chunk = byShard.get(shard)
      if (chunk === undefined || chunk.indexes.length === 0) return
      byShard.delete(shard)
      const done = yield* appendChunk(shard, chunk.indexes.map((index) => messages[index]!), chunk.entries)
      for (const [i, index] of chunk.indexes.entries()) outcomes[index] = done[i]!
    })
    for (const [index, message] of messages.entries()) {
      const shard = shardOf(message.channel)
      if (message.windowMillis !== undefined || (undecided.size > 0 && undecided.has(undecidedKey(message)))) {
        yield* flush(shard)
        outcomes[index] = yield* appendOne(message)
        continue
      }
      let entry = lookUp(message)
      if (entry === undefined) {
        const introduced = yield* Effect.result(introduce(message))
        if (introduced._tag === "Failure") {
          outcomes[index] = failed(introduced.failure)
          continue
        }
        entry = introduced.success
      }
      let chunk = byShard.get(shard)
      if (chunk === undefined) {
        chunk = { indexes: [], entries: [], chars: 0 }
        byShard.set(shard, chunk)
      }
      chunk.indexes.push(index)
      chunk.entries.push(entry)
      chunk.chars += message.payload.length
      if (chunk.indexes.length >= messagesPerWrite || chunk.chars >= charsPerWrite) yield* flush(shard)
    }
    yield* Effect.forEach([...byShard.keys()], flush, { concurrency: "unbounded", discard: true })
    return outcomes
  })

  // Members ----------------------------------------------------------------------------------------------------------

  const join: Broker["Service"]["join"] = Effect.fnUntraced(function*(membership) {
    const keys = keysOf(membership.shard)
    const { selector } = membership
    const mine = selector._tag === "Pattern"
      ? selector.pattern
      : selector.names.filter((name) => shardOf(name) === membership.shard)
    const reader = yield* Effect.mapError(redis.blocking(keys.meta), fail("join"))
    const member = yield* RedisMember.make({
      membership,
      keys,
      connection: connectionOf(membership.shard),
      reader,
      patterns: typeof mine === "string" ? [mine] : mine,
      names: typeof mine === "string" ? [] : mine,
      matches: matcherOf(typeof mine === "string" ? selector : { _tag: "Channels", names: mine }),
      onSettled: janitors[membership.shard]!.touch,
      fail
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

  // Time -------------------------------------------------------------------------------------------------------------

  const promoteShard = Effect.fnUntraced(function*(shard: number, limit: number) {
    const keys = keysOf(shard)
    const connection = connectionOf(shard)
    const [names, nextInMillis] =
      (yield* connection.evaluate(due, [keys.waiting], [limit], { idempotent: true })) as readonly [
        ReadonlyArray<string>,
        number
      ]
    if (names.length === 0) return { moved: 0, nextInMillis: nextInMillis < 0 ? undefined : nextInMillis }
    const targets = new Map<string, number>()
    const args: Array<string | number> = []
    for (const member of names) {
      const [group = "", channel = ""] = member.split("\n")
      const target = keys.retry(group, channel)
      if (!targets.has(target)) targets.set(target, targets.size + 3)
      args.push(member, targets.get(target)!)
    }
    const [moved, broken] = (yield* connection.evaluate(
      promote,
      [keys.waiting, keys.bodies, ...targets.keys()],
      args,
      { idempotent: true }
    )) as readonly [number, number]
    if (broken > 0) {
      yield* Effect.logError(
        `rotif: ${broken} waiting messages had no readable body in ${keys.bodies} and were removed`
      )
    }
    return { moved, nextInMillis: 0 }
  })

  // Housekeeping -----------------------------------------------------------------------------------------------------

  /** Each of these has to pass; what is gone already is as good as removed. */
  const removeAll = Effect.fnUntraced(function*(connection: Connection, commands: ReadonlyArray<Command>) {
    for (const reply of yield* connection.pipeline(commands)) {
      if (reply instanceof RedisError && reply.reason !== "NoGroup") return yield* reply
    }
  })

  const removeGroup = Effect.fnUntraced(function*(group: string, selector: Selector) {
    for (const shard of shardsOf(selector)) {
      const keys = keysOf(shard)
      const connection = connectionOf(shard)
      const gone = patternsOf(selector).map((pattern) => `${group}\n${pattern}`)
      yield* connection.send(["hdel", keys.groups, ...gone], { idempotent: true })
      const [fields, channels] = (yield* connection.pipeline([
        ["hkeys", keys.groups],
        ["hkeys", keys.channels]
      ])) as ReadonlyArray<unknown>
      for (const reply of [fields, channels]) if (reply instanceof RedisError) return yield* reply
      const left = (fields as Array<string>).filter((field) => field.startsWith(`${group}\n`))
        .map((field) => compile(field.slice(group.length + 1)))
      const matches = matcherOf(selector)
      const removed = (channels as Array<string>).filter((name) => matches(name) && !left.some((still) => still(name)))
      for (const channel of removed) {
        yield* removeAll(connection, [
          ["xgroup", "DESTROY", keys.log(channel), group],
          ["del", keys.retry(group, channel)],
          ["srem", keys.retries(group), channel],
          ["hdel", keys.floors(group), channel],
          ["hincrby", keys.meta, "v", 1]
        ])
      }
      yield* connection.send(["del", keys.members(group)], { idempotent: true })
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
          yield* removeAll(connection, [["zrem", keys.waiting, ...waiting], ["hdel", keys.bodies, ...waiting]])
        }
      } while (cursor !== "0")
    }
  })

  // Looking ----------------------------------------------------------------------------------------------------------

  const number = (value: unknown): number => typeof value === "number" ? value : 0
  const record = (flat: ReadonlyArray<unknown>): Record<string, unknown> => {
    const out: Record<string, unknown> = Object.create(null)
    for (let i = 0; i + 1 < flat.length; i += 2) out[String(flat[i])] = flat[i + 1]
    return out
  }

  const infoOf = Effect.fnUntraced(function*(shard: number, matches: (name: string) => boolean) {
    const keys = keysOf(shard)
    const connection = connectionOf(shard)
    const [names, waiting, dead] = yield* connection.pipeline([
      ["hkeys", keys.channels],
      ["zcard", keys.waiting],
      ["xlen", keys.dead]
    ])
    for (const reply of [names, waiting, dead]) if (reply instanceof RedisError) return yield* reply
    const channels: Array<ChannelInfo> = []
    for (const channel of (names as Array<string>).filter(matches).sort()) {
      const [length, groups] = yield* connection.pipeline([
        ["xlen", keys.log(channel)],
        ["xinfo", "GROUPS", keys.log(channel)]
      ])
      const list = Array.isArray(groups) ? (groups as Array<ReadonlyArray<unknown>>).map(record) : []
      const retries = yield* connection.pipeline(
        list.map((group): Command => ["xinfo", "GROUPS", keys.retry(String(group["name"]), channel)])
      )
      channels.push({
        channel,
        length: number(length),
        groups: list.map((group, i) => {
          const name = String(group["name"])
          const reply = retries[i]
          const retry = Array.isArray(reply)
            ? (reply as Array<ReadonlyArray<unknown>>).map(record).find((info) => info["name"] === name)
            : undefined
          return {
            group: name,
            channel,
            lag: typeof group["lag"] === "number" ? group["lag"] : undefined,
            pending: number(group["pending"]) + number(retry?.["pending"]),
            ready: number(retry?.["lag"])
          }
        })
      })
    }
    return { channels, waiting: number(waiting), dead: number(dead) }
  })

  return Broker.of({
    shards,
    shardsOf,
    append: (messages) =>
      messages.length === 1 ? Effect.map(appendOne(messages[0]!), (outcome) => [outcome]) : appendAll(messages),
    join,
    promote: (shard, limit) => Effect.mapError(promoteShard(shard, limit), fail("promote")),
    awaitEarlier: awaitWake(sleepers),
    trim: (shard) => Effect.mapError(janitors[shard]!.trim, fail("trim")),
    removeGroup: (group, selector) => Effect.mapError(removeGroup(group, selector), fail("removeGroup")),
    info: (selector) => {
      const matches = matcherOf(selector)
      return Effect.forEach(allKeys, (keys) => infoOf(keys.shard, matches), { concurrency: "unbounded" }).pipe(
        Effect.map((all) => ({
          channels: all.flatMap((info) => info.channels),
          waiting: all.reduce((sum, info) => sum + info.waiting, 0),
          dead: all.reduce((sum, info) => sum + info.dead, 0)
        })),
        Effect.mapError(fail("info"))
      )
    },
    letters: RedisLetters.make({
      me: Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(6))).toString("base64url"),
      keysOf,
      connectionOf,
      fail,
      awaitLetter: awaitWake(letterSleepers)
    }),
    broadcast: RedisBroadcast.make({ redis, connectionOf, keysOf, shardOf, shards, fail: fail("broadcast") })
  })
})

/**
 * The broker as a layer, on the connections of `Redis`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options) => Layer.effect(Broker, make(options))
