/**
 * Publishing on Redis: a plain XADD where it can be, and a script where a message must not be there twice: inside a deduplication
 * window, when it waits for its time, or after an answer was lost.
 */
import { Effect } from "effect"
import type { Appended, Limits, NewMessage } from "../Broker.ts"
import { BrokerError } from "../Broker.ts"
import type { Command, Connection, DurableConnection } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import * as Entry from "./entry.ts"
import * as RedisDurability from "./redisDurability.ts"
import { chunked } from "./redisLease.ts"
import * as RedisScheduled from "./redisScheduled.ts"
import type { Way } from "./redisScheduled.ts"
import { append as appendScript } from "./scripts/append.ts"
import { channel as channelScript } from "./scripts/channel.ts"

/** Messages in one pipeline, and their bytes. */
const messagesPerWrite = 500
const charsPerWrite = 1024 * 1024

/** Channels whose registration is looked at in one command. */
const channelsPerLook = 500

/** How many entries one search for a lost publish looks at. */
const searchPage = 1000

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

export interface Setup extends RedisScheduled.Setup {
  /** Stores scheduled messages of one channel; see `redisScheduled`. */
  readonly schedule: ReturnType<typeof RedisScheduled.make>["store"]
  /** For what is to be durable. */
  readonly durable: (shard: number) => DurableConnection
  /** The janitor is to look at this stream. */
  readonly touch: (shard: number, stream: string) => void
  /** The log of a known channel is gone: most likely everything is. */
  readonly onFlush: Effect.Effect<void>
}

export const make = ({ connectionOf, durable, fail, onFlush, schedule, shardOf, shards, touch }: Setup) => {
  const keysOf = (shard: number) => shards[shard]!

  const known = new Map<string, Known>()
  /** Names the calls that open a window: unique among processes, as short as may be. */
  const process = Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(4))).toString("base64url")
  let calls = 0
  const nextCall = () => `${process}${(calls++).toString(36)}`
  /**
   * Publishes that could not be decided: where to search when the same id is published again, and on which connection they were lost.
   * The oldest are forgotten.
   */
  const undecided = new Map<string, { readonly since: string; readonly lostOn: Connection | undefined }>()
  const undecidedKey = (message: NewMessage) => `${message.channel}\n${message.id}`

  const introduce = Effect.fnUntraced(function*(message: Pick<NewMessage, "channel" | "limits">) {
    const keys = keysOf(shardOf(message.channel))
    const limits = message.limits === undefined ? "" : JSON.stringify(message.limits)
    const log = keys.log(message.channel)
    const position = yield* connectionOf(keys.shard).evaluate(
      channelScript,
      [keys.meta, keys.channels, log],
      [message.channel, limits, keys.events],
      { idempotent: true }
    ).pipe(
      // Whatever became of the channel: nothing of the message was sent.
      Effect.mapError((error) =>
        error.reason === "ConnectionLost"
          ? new RedisError({ reason: "Unavailable", command: error.command, message: error.message })
          : error
      )
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
    if (message.limits?.maxAgeMillis !== undefined) touch(keys.shard, log)
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

  /** The log is gone: the channel has to be made known again. One of many that find it so together says it, and records what else is gone. */
  const gone = (channel: string): Effect.Effect<void> =>
    Effect.suspend(() =>
      known.delete(channel)
        ? Effect.andThen(
          Effect.logWarning(
            `rotif: the log of channel "${channel}" was gone from Redis, and is made again: what was in it and not handled is lost`
          ),
          onFlush
        )
        : Effect.void
    )

  /**
   * Adds a message through the script: found in the window, or in the log after `since`, or added. The connection has ended
   * the lost socket before this is sent, so what is not in the log by now will never be.
   */
  const appendOnce = Effect.fnUntraced(function*(message: NewMessage, since: string, way: Way) {
    const keys = keysOf(shardOf(message.channel))
    const { window } = message
    const call = window === undefined ? "" : nextCall()
    let from = since
    let entry = yield* knownFor(message)
    while (true) {
      const [outcome, position] = (yield* way.connectionOf(keys.shard).evaluate(
        appendScript,
        [entry.log, window === undefined ? entry.log : keys.seen(message.channel, window.key)],
        [
          message.id,
          call,
          window?.millis ?? 0,
          from,
          searchPage,
          entry.trims.length,
          ...entry.trims,
          ...Entry.logFields(message)
        ],
        // With a window or a place to search from, doing it twice finds the first.
        { idempotent: window !== undefined || since !== "" }
      )) as readonly [string, string]
      if (outcome === "duplicate" || outcome === "found") way.onFound?.(message)
      if (outcome === "duplicate") return RedisScheduled.duplicateOf(position)
      if (outcome === "added" || outcome === "found") return stored(entry, position)
      if (outcome === "more") {
        from = position
      } else {
        yield* gone(message.channel)
        entry = yield* introduce(message)
      }
    }
  })

  /** The repetition of this message is to search for it. */
  const remember = (message: NewMessage, since: string, lostOn?: Connection): void => {
    if (undecided.size >= 10_000) undecided.delete(undecided.keys().next().value!)
    undecided.set(undecidedKey(message), { since, lostOn })
  }

  /** Leaves open what became of a message; its repetition will find out. */
  const leave = (message: NewMessage, since: string, error: RedisError, way: Way): Appended => {
    remember(message, since, way.connectionOf(shardOf(message.channel)))
    return { _tag: "Uncertain", error: fail("append")(error) }
  }

  /** Stores a scheduled message whose first answer was lost. */
  const scheduleOnce = Effect.fnUntraced(function*(message: NewMessage, since: string, way: Way) {
    while (true) {
      const appended = yield* schedule([message], since, way)
      if (appended !== undefined) return appended[0]!
      yield* introduce(message)
    }
  })

  const store = (message: NewMessage, since: string, way: Way): Effect.Effect<Appended> =>
    (message.due === undefined ? appendOnce(message, since, way) : scheduleOnce(message, since, way)).pipe(
      Effect.tap(() => Effect.sync(() => undecided.delete(undecidedKey(message)))),
      Effect.catch((error) =>
        Effect.sync(() =>
          since === "" && error.reason !== "ConnectionLost" ? failed(error) : leave(message, since, error, way)
        )
      )
    )

  /**
   * What was lost on another connection than the one it is looked for on could be executed later than that: a connection that answers
   * has ended its lost socket.
   */
  const decide = (message: NewMessage, since: string, way: Way): Effect.Effect<Appended> => {
    const lostOn = undecided.size === 0 ? undefined : undecided.get(undecidedKey(message))?.lostOn
    if (lostOn === undefined || lostOn === way.connectionOf(shardOf(message.channel))) return store(message, since, way)
    return Effect.matchEffect(lostOn.send(["ping"], { idempotent: true }), {
      onSuccess: () => store(message, since, way),
      onFailure: (error) => Effect.succeed<Appended>({ _tag: "Uncertain", error: fail("append")(error) })
    })
  }

  const appendOne = (message: NewMessage, way: Way): Effect.Effect<Appended> => {
    const since = undecided.size === 0 ? undefined : undecided.get(undecidedKey(message))?.since
    if (message.due !== undefined) return Effect.map(scheduleChunk([message], way), ([outcome]) => outcome!)
    if (message.window !== undefined || since !== undefined) return decide(message, since ?? "", way)
    const entry = lookUp(message)
    return entry !== undefined ? addTo(entry, message, way) : Effect.matchEffect(introduce(message), {
      onFailure: (error) => Effect.succeed(failed(error)),
      onSuccess: (entry) => addTo(entry, message, way)
    })
  }

  const addTo = (entry: Known, message: NewMessage, way: Way): Effect.Effect<Appended> => {
    const before = entry.position
    return Effect.matchEffect(
      way.connectionOf(shardOf(message.channel)).send(addCommand(entry, message), { idempotent: false }),
      {
        onSuccess: (position) =>
          position === null
            ? Effect.andThen(gone(message.channel), appendOne(message, way))
            : Effect.succeed(stored(entry, position as string)),
        onFailure: (error) =>
          error.reason === "ConnectionLost" ? decide(message, before, way) : Effect.succeed(failed(error))
      }
    )
  }

  /** Writes messages of one shard in one go, then decides one by one what was not answered. */
  const appendChunk = Effect.fnUntraced(function*(
    shard: number,
    messages: ReadonlyArray<NewMessage>,
    entries: ReadonlyArray<Known>,
    way: Way
  ) {
    // How far this very call has come in each log: what others add meanwhile may be after what was lost.
    const reached = new Map(entries.map((entry) => [entry, entry.position]))
    const replies = yield* way.connectionOf(shard).pipeline(
      messages.map((message, i) => addCommand(entries[i]!, message))
    ).pipe(
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
        const outcome: Appended = isAway
          ? leave(message, since, reply, way)
          : yield* decide(message, since, way)
        isAway = outcome._tag === "Uncertain"
        if (outcome._tag === "Stored") reached.set(entry, outcome.position)
        out.push(outcome)
      } else if (reply === null) {
        yield* gone(message.channel)
        out.push(yield* appendOne(message, way))
      } else if (reply instanceof RedisError && reply.reason === "Transient") {
        out.push(yield* appendOne(message, way))
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

  /** Stores scheduled messages of one channel in one step; when its answer is lost, it decides one by one. */
  const scheduleChunk = Effect.fnUntraced(function*(
    messages: ReadonlyArray<NewMessage>,
    way: Way
  ): Effect.fn.Return<ReadonlyArray<Appended>> {
    const first = messages[0]!
    const entry = yield* Effect.result(knownFor(first))
    if (entry._tag === "Failure") return messages.map(() => failed(entry.failure))
    const since = entry.success.position
    if (messages.some((message) => undecided.has(undecidedKey(message)))) {
      return yield* Effect.forEach(
        messages,
        (message) => decide(message, undecided.get(undecidedKey(message))?.since ?? since, way)
      )
    }
    const reply = yield* Effect.result(schedule(messages, "", way))
    if (reply._tag === "Failure") {
      if (reply.failure.reason !== "ConnectionLost") return messages.map(() => failed(reply.failure))
      const out: Array<Appended> = []
      for (const message of messages) {
        // Where one could not be decided in time, the others need not wait as long each.
        const isAway = out.at(-1)?._tag === "Uncertain"
        out.push(isAway ? leave(message, since, reply.failure, way) : yield* decide(message, since, way))
      }
      return out
    }
    if (reply.success !== undefined) return reply.success
    yield* gone(first.channel)
    return yield* scheduleChunk(messages, way)
  })

  /** The scheduled ones among the messages, in chunks of one channel. */
  const scheduleAll = Effect.fnUntraced(function*(
    messages: ReadonlyArray<NewMessage>,
    outcomes: Array<Appended>,
    way: Way
  ) {
    const chunks = new Map<string, { indexes: Array<number>; chars: number }>()
    const flush = Effect.fnUntraced(function*(channel: string) {
      const { indexes } = chunks.get(channel)!
      chunks.delete(channel)
      const done = yield* scheduleChunk(indexes.map((index) => messages[index]!), way)
      for (const [i, index] of indexes.entries()) outcomes[index] = done[i]!
    })
    for (const [index, message] of messages.entries()) {
      if (message.due === undefined) continue
      let chunk = chunks.get(message.channel)
      if (chunk === undefined) {
        chunk = { indexes: [], chars: 0 }
        chunks.set(message.channel, chunk)
      }
      chunk.indexes.push(index)
      chunk.chars += message.payload.length
      if (chunk.indexes.length >= messagesPerWrite || chunk.chars >= charsPerWrite) yield* flush(message.channel)
    }
    yield* Effect.forEach([...chunks.keys()], flush, { discard: true })
  })

  const appendAll = Effect.fnUntraced(function*(messages: ReadonlyArray<NewMessage>, way: Way) {
    const outcomes = new Array<Appended>(messages.length)
    yield* scheduleAll(messages, outcomes, way)
    const byShard = new Map<number, { indexes: Array<number>; entries: Array<Known>; chars: number }>()
    const flush = Effect.fnUntraced(function*(shard: number) {
      const chunk = byShard.get(shard)
      if (chunk === undefined || chunk.indexes.length === 0) return
      byShard.delete(shard)
      const done = yield* appendChunk(shard, chunk.indexes.map((index) => messages[index]!), chunk.entries, way)
      for (const [i, index] of chunk.indexes.entries()) outcomes[index] = done[i]!
    })
    // Where one got no answer in time, those behind it are not sent: they need not wait as long each, and do not overtake it when it
    // is published again.
    const away = new Map<number, BrokerError>()
    const note = (shard: number, outcome: Appended) => {
      const isAway = outcome._tag === "Uncertain" ||
        (outcome._tag === "Failed" && outcome.error.reason === "Unavailable")
      if (isAway) {
        away.set(shard, new BrokerError({ reason: "Unavailable", operation: "append", message: outcome.error.message }))
      }
      return outcome
    }
    for (const [index, message] of messages.entries()) {
      if (message.due !== undefined) continue
      const shard = shardOf(message.channel)
      const isUndecided = undecided.size > 0 && undecided.has(undecidedKey(message))
      const error = away.get(shard)
      if (error !== undefined) {
        outcomes[index] = { _tag: isUndecided ? "Uncertain" : "Failed", error }
        continue
      }
      if (message.window !== undefined || isUndecided) {
        yield* flush(shard)
        outcomes[index] = note(shard, yield* appendOne(message, way))
        continue
      }
      let entry = lookUp(message)
      if (entry === undefined) {
        const introduced = yield* Effect.result(introduce(message))
        if (introduced._tag === "Failure") {
          outcomes[index] = note(shard, failed(introduced.failure))
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

  /** Makes the channels of a shard known again whose entry in the registry is gone, or has lost the limits they have here. */
  const reassure = Effect.fnUntraced(function*(shard: number) {
    const keys = keysOf(shard)
    const mine = [...known].filter(([channel]) => shardOf(channel) === shard)
    for (const chunk of chunked(mine, channelsPerLook)) {
      const found = (yield* connectionOf(shard).send(
        ["hmget", keys.channels, ...chunk.map(([channel]) => channel)],
        { idempotent: true }
      )) as ReadonlyArray<string | null>
      for (const [i, [channel, entry]] of chunk.entries()) {
        if (found[i] !== null && (found[i] !== "" || entry.limits === "")) continue
        yield* Effect.logWarning(
          `rotif: the entry of channel "${channel}" in the registry, or its limits there, were gone from Redis and are made again`
        )
        yield* introduce({ channel, limits: entry.definition })
      }
    }
  })

  /** After this position the message is, if it is anywhere. */
  const sinceFor = (message: NewMessage): Effect.Effect<string, RedisError> => {
    const since = undecided.get(undecidedKey(message))?.since
    return since !== undefined ? Effect.succeed(since) : Effect.map(knownFor(message), ({ position }) => position)
  }

  const appendBy = (messages: ReadonlyArray<NewMessage>, way: Way): Effect.Effect<ReadonlyArray<Appended>> =>
    messages.length === 1 ? Effect.map(appendOne(messages[0]!, way), (outcome) => [outcome]) : appendAll(messages, way)
  const append = RedisDurability.make({ shards, shardOf, connectionOf, durable, fail, appendBy, remember, sinceFor })

  return {
    append: append.append,
    checkDurability: append.check,
    reassure,
    /** What is known of the channel of a message; it is made known where it is not. */
    target: knownFor,
    forget: (channel: string) => void known.delete(channel),
    /** Makes a channel known. It is not remembered here: a publish knows its limits, and brings them along. */
    introduce: (channel: Pick<NewMessage, "channel" | "limits">) =>
      Effect.tap(introduce(channel), () => Effect.sync(() => known.delete(channel.channel)))
  }
}
