/**
 * Publishing on Redis: a plain XADD where it can be, and a script where a message must not be there twice: inside a deduplication
 * window, when it waits for its time, or after an answer was lost.
 */
import { Effect } from "effect"
import type { Appended, Broker, Limits, NewMessage } from "../Broker.ts"
import type { Command } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import * as Entry from "./entry.ts"
import { chunked } from "./redisLease.ts"
import * as RedisScheduled from "./redisScheduled.ts"
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
  /** The janitor is to look at this stream. */
  readonly touch: (shard: number, stream: string) => void
  /** The log of a known channel is gone: most likely everything is. */
  readonly onFlush: Effect.Effect<void>
}

export const make = ({ connectionOf, fail, onFlush, schedule, shardOf, shards, touch }: Setup) => {
  const keysOf = (shard: number) => shards[shard]!

  const known = new Map<string, Known>()
  /** Names the calls that open a window: unique among processes, as short as may be. */
  const process = Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(4))).toString("base64url")
  let calls = 0
  const nextCall = () => `${process}${(calls++).toString(36)}`
  /** Publishes that could not be decided: where to search when the same id is published again. The oldest are forgotten. */
  const undecided = new Map<string, string>()
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
  const appendOnce = Effect.fnUntraced(function*(message: NewMessage, since: string) {
    const keys = keysOf(shardOf(message.channel))
    const { window } = message
    const call = window === undefined ? "" : nextCall()
    let from = since
    let entry = yield* knownFor(message)
    while (true) {
      const [outcome, position] = (yield* connectionOf(keys.shard).evaluate(
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

  /** Leaves open what became of a message; its repetition will find out. */
  const leave = (message: NewMessage, since: string, error: RedisError): Appended => {
    if (undecided.size >= 10_000) undecided.delete(undecided.keys().next().value!)
    undecided.set(undecidedKey(message), since)
    return { _tag: "Uncertain", error: fail("append")(error) }
  }

  /** Stores a scheduled message whose first answer was lost. */
  const scheduleOnce = Effect.fnUntraced(function*(message: NewMessage, since: string) {
    while (true) {
      const appended = yield* schedule([message], since)
      if (appended !== undefined) return appended[0]!
      yield* introduce(message)
    }
  })

  const decide = (message: NewMessage, since: string): Effect.Effect<Appended> =>
    (message.due === undefined ? appendOnce(message, since) : scheduleOnce(message, since)).pipe(
      Effect.tap(() => Effect.sync(() => undecided.delete(undecidedKey(message)))),
      Effect.catch((error) =>
        Effect.sync(() =>
          since === "" && error.reason !== "ConnectionLost" ? failed(error) : leave(message, since, error)
        )
      )
    )

  const appendOne = (message: NewMessage): Effect.Effect<Appended> => {
    const since = undecided.size === 0 ? undefined : undecided.get(undecidedKey(message))
    if (message.due !== undefined) return Effect.map(scheduleChunk([message]), ([outcome]) => outcome!)
    if (message.window !== undefined || since !== undefined) return decide(message, since ?? "")
    const entry = lookUp(message)
    return entry !== undefined ? addTo(entry, message) : Effect.matchEffect(introduce(message), {
      onFailure: (error) => Effect.succeed(failed(error)),
      onSuccess: (entry) => addTo(entry, message)
    })
  }

  const addTo = (entry: Known, message: NewMessage): Effect.Effect<Appended> => {
    const before = entry.position
    return Effect.matchEffect(
      connectionOf(shardOf(message.channel)).send(addCommand(entry, message), { idempotent: false }),
      {
        onSuccess: (position) =>
          position === null
            ? Effect.andThen(gone(message.channel), appendOne(message))
            : Effect.succeed(stored(entry, position as string)),
        onFailure: (error) =>
          error.reason === "ConnectionLost" ? decide(message, before) : Effect.succeed(failed(error))
      }
    )
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
        yield* gone(message.channel)
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

  /** Stores scheduled messages of one channel in one step; when its answer is lost, it decides one by one. */
  const scheduleChunk = Effect.fnUntraced(function*(
    messages: ReadonlyArray<NewMessage>
  ): Effect.fn.Return<ReadonlyArray<Appended>> {
    const first = messages[0]!
    const entry = yield* Effect.result(knownFor(first))
    if (entry._tag === "Failure") return messages.map(() => failed(entry.failure))
    const since = entry.success.position
    if (messages.some((message) => undecided.has(undecidedKey(message)))) {
      return yield* Effect.forEach(
        messages,
        (message) => decide(message, undecided.get(undecidedKey(message)) ?? since)
      )
    }
    const reply = yield* Effect.result(schedule(messages, ""))
    if (reply._tag === "Failure") {
      if (reply.failure.reason !== "ConnectionLost") return messages.map(() => failed(reply.failure))
      const out: Array<Appended> = []
      for (const message of messages) {
        // Where one could not be decided in time, the others need not wait as long each.
        const isAway = out.at(-1)?._tag === "Uncertain"
        out.push(isAway ? leave(message, since, reply.failure) : yield* decide(message, since))
      }
      return out
    }
    if (reply.success !== undefined) return reply.success
    yield* gone(first.channel)
    return yield* scheduleChunk(messages)
  })

  /** The scheduled ones among the messages, in chunks of one channel. */
  const scheduleAll = Effect.fnUntraced(function*(messages: ReadonlyArray<NewMessage>, outcomes: Array<Appended>) {
    const chunks = new Map<string, { indexes: Array<number>; chars: number }>()
    const flush = Effect.fnUntraced(function*(channel: string) {
      const { indexes } = chunks.get(channel)!
      chunks.delete(channel)
      const done = yield* scheduleChunk(indexes.map((index) => messages[index]!))
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

  const appendAll = Effect.fnUntraced(function*(messages: ReadonlyArray<NewMessage>) {
    const outcomes = new Array<Appended>(messages.length)
    yield* scheduleAll(messages, outcomes)
    const byShard = new Map<number, { indexes: Array<number>; entries: Array<Known>; chars: number }>()
    const flush = Effect.fnUntraced(function*(shard: number) {
      const chunk = byShard.get(shard)
      if (chunk === undefined || chunk.indexes.length === 0) return
      byShard.delete(shard)
      const done = yield* appendChunk(shard, chunk.indexes.map((index) => messages[index]!), chunk.entries)
      for (const [i, index] of chunk.indexes.entries()) outcomes[index] = done[i]!
    })
    for (const [index, message] of messages.entries()) {
      if (message.due !== undefined) continue
      const shard = shardOf(message.channel)
      if (message.window !== undefined || (undecided.size > 0 && undecided.has(undecidedKey(message)))) {
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

  const append: Broker["Service"]["append"] = (messages) =>
    messages.length === 1 ? Effect.map(appendOne(messages[0]!), (outcome) => [outcome]) : appendAll(messages)

  return {
    append,
    reassure,
    /** What is known of the channel of a message; it is made known where it is not. */
    target: knownFor,
    forget: (channel: string) => void known.delete(channel),
    /** Makes a channel known. It is not remembered here: a publish knows its limits, and brings them along. */
    introduce: (channel: Pick<NewMessage, "channel" | "limits">) =>
      Effect.tap(introduce(channel), () => Effect.sync(() => known.delete(channel.channel)))
  }
}
