/**
 * Publishing on Redis: a plain XADD where it can be, and a script where a message must not be there twice: inside a deduplication
 * window, when it waits for its time, or after an answer was lost.
 */
import { Effect } from "effect"
import type { Appended, Limits, NewMessage } from "../../Broker.ts"
import { BrokerError } from "../../Broker.ts"
import type { Command, Connection, DurableConnection } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import * as Definitions from "../../broker/limits.ts"
import { Bounded } from "../../internal/boundedMap.ts"
import { chunked } from "../batches.ts"
import * as Entry from "../entry.ts"
import type { Evidence } from "../evidence.ts"
import { answer, inLog, keptMillis, nextCall } from "../evidence.ts"
import { append as appendScript } from "../scripts/publish/append.ts"
import { createChannel as channelScript } from "../scripts/publish/createChannel.ts"
import { setLimits as limitScript } from "../scripts/publish/setLimits.ts"
import type { Shards } from "../shards.ts"
import * as RedisDurability from "./durability.ts"
import * as RedisSearch from "./search.ts"
import type { Way } from "./waiting.ts"
import * as RedisScheduled from "./waiting.ts"

/** Messages in one pipeline, and their bytes. */
const messagesPerWrite = 500
const charsPerWrite = 1024 * 1024

const isFull = ({ chars, indexes }: { readonly indexes: ReadonlyArray<number>; readonly chars: number }) =>
  indexes.length >= messagesPerWrite || chars >= charsPerWrite

/** Channels whose registration is looked at in one command. */
const channelsPerLook = 2_000

/** A search that takes longer is given up for now; the repetition of the publish goes on where it was. */
const searchMillis = 5_000

/** So much longer than it seems a message may have been on its way: what is said of its age has to hold when the server hears it. */
const slackMillis = 2_000

/** For so long what was said of the age of a message may wait for being sent. */
const freshMillis = 1_000

/** For so long a definition of limits counts after its program was heard of, and so often a program says that it lives. */
const definedMillis = 600_000
const sayMillis = 150_000

/** After so many messages of its own a program has a log with limits looked at; and so many entries go in one look. */
const messagesPerLook = 100
const entriesPerLook = 1_000

/** A channel this process has published to. */
interface Known {
  readonly log: string
  /** What the definitions of this program allow together; `undefined`: it has none. */
  readonly mine: Limits | undefined
  /** What was taken into it. */
  readonly seen: WeakSet<Limits>
  /** When the others were told of it, on this process's monotonic clock. */
  readonly saidAt: number
  /** Messages since the log was looked at. */
  added: number
  /** The last position confirmed to this process: a lost publish can only be after it. */
  position: string
}

/** So many channels, and publishes that could not be decided, are remembered. A channel that is forgotten costs its next publish one script. */
const mostKnown = 10_000

export interface Options {
  /** Stores scheduled messages of one channel; see `redisScheduled`. */
  readonly schedule: ReturnType<typeof RedisScheduled.make>["store"]
  /** How long what all groups have acknowledged stays in a log. */
  readonly graceMillis: number
  /** For what is to be durable. */
  readonly durable: (shard: number) => DurableConnection
  /** The janitor is to look at this stream. */
  readonly touch: (shard: number, stream: string) => void
  /** The log of a known channel is gone: most likely everything is. */
  readonly onFlush: Effect.Effect<void>
}

export const make = (shards: Shards, { durable, graceMillis, onFlush, schedule, touch }: Options) => {
  const { connectionOf, fail, keysOf, shardOf } = shards
  const known = new Bounded<string, Known>(mostKnown)
  const find = RedisSearch.make()
  /**
   * Publishes that could not be decided: what will tell when the same id is published again, and on which connection they were lost.
   * The oldest are forgotten.
   */
  const undecided = new Bounded<string, { readonly evidence: Evidence; readonly lostOn: Connection | undefined }>(
    mostKnown
  )
  const undecidedKey = (message: NewMessage) => `${message.channel}\n${message.id}`

  /** The channels of which it was told that definitions differ. */
  const differing = new Set<string>()

  /** With `isOthers` the definition is another program's: it is recorded once, and this one does not speak for it. */
  const introduce = Effect.fnUntraced(function*(
    { channel, limits: given }: Pick<NewMessage, "channel" | "limits">,
    isOthers = false
  ) {
    const keys = keysOf(shardOf(channel))
    const before = known.get(channel)
    const own = isOthers ? undefined : given
    const mine = own === undefined || before?.mine === undefined
      ? own ?? before?.mine
      : Definitions.generous(before.mine, own)
    const definition = mine ?? given
    const log = keys.log(channel)
    const saidAt = performance.now()
    const [position, limits, count] = (yield* connectionOf(keys.shard).evaluate(
      channelScript,
      [keys.meta, keys.channels, log, ...(definition === undefined ? [] : [keys.definitions])],
      [channel, definition === undefined ? "" : Definitions.record(definition), keys.events, definedMillis],
      { idempotent: true }
    ).pipe(
      // Whatever became of the channel: nothing of the message was sent.
      Effect.mapError((error) =>
        error.reason === "ConnectionLost"
          ? new RedisError({ reason: "Unavailable", command: error.command, message: error.message })
          : error
      )
    )) as readonly [string, string, number]
    const seen = before?.seen ?? new WeakSet<Limits>()
    if (own !== undefined) seen.add(own)
    const entry: Known = { log, mine, seen, saidAt, added: before?.added ?? 0, position }
    known.set(channel, entry)
    // In this program alone they are one record.
    const isDifferent = count > 1 ||
      (own !== undefined && before?.mine !== undefined && Definitions.record(own) !== Definitions.record(before.mine))
    if (isDifferent && definition !== undefined && !differing.has(channel)) {
      differing.add(channel)
      yield* Effect.logWarning(Definitions.difference(channel, own ?? definition, limits))
    }
    // Somebody has to come and look: age passes by itself, and limits may have become narrower.
    if (limits !== "") touch(keys.shard, log)
    return entry
  })

  /** What is known of the channel of a message, unless its definition was not told yet. */
  const lookUp = ({ channel, limits }: NewMessage): Known | undefined => {
    const entry = known.get(channel)
    if (entry === undefined || limits === undefined || entry.seen.has(limits)) return entry
    if (entry.mine === undefined || Definitions.record(limits) !== Definitions.record(entry.mine)) return undefined
    entry.seen.add(limits)
    return entry
  }

  const knownFor = (message: NewMessage): Effect.Effect<Known, RedisError> => {
    const entry = lookUp(message)
    return entry !== undefined ? Effect.succeed(entry) : introduce(message)
  }

  /**
   * A message was stored. Not its publish trims the log, for it knows the limits of its own program only: now and then the log is looked
   * at, by what the registry says then, and nobody waits for it. What is left the janitor removes.
   */
  const count = (channel: string, entry: Known): void => {
    if (entry.mine?.maxLength === undefined && entry.mine?.minId === undefined) return
    if (++entry.added < messagesPerLook) return
    entry.added = 0
    const keys = keysOf(shardOf(channel))
    Effect.runFork(Effect.ignore(
      connectionOf(keys.shard).evaluate(limitScript, [keys.channels, entry.log], [channel, entriesPerLook], {
        idempotent: true
      })
    ))
  }

  const addCommand = (entry: Known, message: NewMessage): Command => [
    "xadd",
    entry.log,
    "NOMKSTREAM",
    "*",
    ...Entry.logFields(message)
  ]

  const stored = (entry: Known, { channel }: NewMessage, position: string): Appended => {
    entry.position = position
    count(channel, entry)
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

  const gaveUp = (message: string) => new RedisError({ reason: "ConnectionLost", command: "append", message })

  /** What tells what became of a message, and what it is sent with. */
  const sends = new WeakMap<NewMessage, Evidence>()

  /**
   * Adds a message through the script, unless its window is open. Doing it twice is safe: it is told what it was told before, by its window
   * where that lasts as long as such an answer.
   */
  const addOnce = Effect.fnUntraced(function*(message: NewMessage, way: Way) {
    const keys = keysOf(shardOf(message.channel))
    const window = message.window!
    const call = nextCall()
    const seen = keys.seen(message.channel, window.key)
    const isLong = window.millis >= keptMillis
    const told = keys.answer(call)
    let entry = yield* knownFor(message)
    sends.set(
      message,
      isLong
        ? answer(seen, (held) => {
          const [position = "", opener] = held.split(" ", 2)
          return opener === call ? { _tag: "Stored", position } : undefined
        }, window.millis)
        : answer(told, (position) => ({ _tag: "Stored", position }))
    )
    while (true) {
      const [outcome, position] = (yield* way.connectionOf(keys.shard).evaluate(
        appendScript,
        [entry.log, seen, isLong ? entry.log : told],
        [
          message.id,
          call,
          window.millis,
          keptMillis,
          "",
          "",
          0,
          0,
          0,
          -1,
          0,
          "",
          ...Entry.logFields(message)
        ],
        { idempotent: true }
      )) as readonly [string, string]
      if (outcome === "duplicate") {
        way.onFound?.(message)
        return RedisScheduled.duplicateOf(position)
      }
      if (outcome !== "unknown") return stored(entry, message, position)
      yield* gone(message.channel)
      entry = yield* introduce(message)
    }
  })

  /**
   * Finds a message in its log, or adds it. The connection has ended the lost socket before this is sent, so what is not in the log by now
   * will never be. It ends as uncertain where the message may have been stored and removed since.
   */
  const findOrAdd = Effect.fnUntraced(function*(
    message: NewMessage,
    evidence: Extract<Evidence, { readonly _tag: "Log" }>,
    way: Way
  ) {
    const keys = keysOf(shardOf(message.channel))
    const connection = way.connectionOf(keys.shard)
    const { limits, window } = message
    const { sentAt, since } = evidence
    let reached: RedisSearch.Reached = evidence
    const note = (next: RedisSearch.Reached) => {
      reached = next
      sends.set(message, { ...evidence, ...next })
    }
    const call = nextCall()
    let entry = yield* knownFor(message)
    const deadline = performance.now() + searchMillis
    while (performance.now() < deadline) {
      const position = yield* find(entry.log, connection, message.id, reached, note).pipe(
        Effect.timeoutOrElse({
          duration: Math.max(1, deadline - performance.now()),
          orElse: () => Effect.fail(gaveUp("the search for the message takes longer"))
        })
      )
      if (position !== undefined) {
        way.onFound?.(message)
        if (window !== undefined) {
          yield* connection.send(
            [
              "set",
              keys.seen(message.channel, window.key),
              `${position} ${call} ${message.id}`,
              "PX",
              window.millis,
              "NX"
            ],
            { idempotent: true }
          )
        }
        return stored(entry, message, position)
      }
      const askedAt = performance.now()
      const [outcome, value] = (yield* connection.evaluate(
        appendScript,
        [entry.log, window === undefined ? entry.log : keys.seen(message.channel, window.key), entry.log],
        [
          message.id,
          call,
          window?.millis ?? 0,
          0,
          reached.from,
          since,
          reached.isGone === false ? 0 : 1,
          Math.ceil(askedAt - sentAt) + slackMillis,
          graceMillis,
          limits?.maxLength ?? -1,
          limits?.maxAgeMillis ?? 0,
          limits?.minId ?? "",
          ...Entry.logFields(message)
        ],
        { idempotent: true, isCurrent: () => performance.now() - askedAt < freshMillis }
      )) as readonly [string, string]
      if (outcome === "found" || outcome === "duplicate") way.onFound?.(message)
      if (outcome === "duplicate") return RedisScheduled.duplicateOf(value)
      if (outcome === "added" || outcome === "found") return stored(entry, message, value)
      if (outcome === "more") {
        note({ ...reached, from: value })
      } else if (outcome === "gone") {
        return lasting("it may have been stored, and removed since")
      } else {
        yield* gone(message.channel)
        entry = yield* introduce(message)
      }
    }
    return yield* gaveUp("the search for the message takes longer")
  })

  /** Nothing will tell any more what became of a message. */
  const lasting = (why: string): Appended => ({
    _tag: "Uncertain",
    isLasting: true,
    error: new BrokerError({
      reason: "Uncertain",
      operation: "append",
      message: `append: ${why}: this is not found out any more`
    })
  })

  /** The repetition of this message is to ask for it. */
  const remember = (message: NewMessage, evidence: Evidence, lostOn?: Connection): void => {
    undecided.set(undecidedKey(message), { evidence, lostOn })
  }

  /** Leaves open what became of a message; its repetition will find out. */
  const leave = (message: NewMessage, evidence: Evidence, error: RedisError, way: Way): Appended => {
    remember(message, evidence, way.connectionOf(shardOf(message.channel)))
    return { _tag: "Uncertain", error: fail("append")(error) }
  }

  /** What a call was told, where it is known; `undefined`: it was not executed, and will not be. */
  const ask = Effect.fnUntraced(function*(
    message: NewMessage,
    { key, read, until }: Extract<Evidence, { readonly _tag: "Answer" }>,
    way: Way
  ): Effect.fn.Return<Appended | undefined, RedisError> {
    const value = (yield* way.connectionOf(shardOf(message.channel)).send(["get", key], { idempotent: true })) as
      | string
      | null
    const told = value === null ? undefined : read(value)
    if (told !== undefined) way.onFound?.(message)
    return told ?? (performance.now() > until ? lasting("what it was told is not kept any more") : undefined)
  })

  /** Finds out what became of a message whose answer was lost, and stores it where it is not. */
  const decide = (message: NewMessage, evidence: Evidence, way: Way): Effect.Effect<Appended> => {
    const lostOn = undecided.size === 0 ? undefined : undecided.get(undecidedKey(message))?.lostOn
    const connection = way.connectionOf(shardOf(message.channel))
    sends.set(message, evidence)
    const found: Effect.Effect<Appended | undefined, RedisError> = evidence._tag === "Log"
      ? findOrAdd(message, evidence, way)
      : ask(message, evidence, way)
    const decided = Effect.matchEffect(found, {
      onFailure: (error) => Effect.sync(() => leave(message, sends.get(message)!, error, way)),
      onSuccess: (appended) => {
        if (appended?._tag === "Uncertain") remember(message, evidence)
        else undecided.delete(undecidedKey(message))
        return appended === undefined ? appendOne(message, way) : Effect.succeed(appended)
      }
    })
    if (lostOn === undefined || lostOn === connection) return decided
    // What was lost on another connection than the one it is looked for on could be executed later than that: a connection that answers
    // has ended its lost socket.
    return Effect.matchEffect(lostOn.send(["ping"], { idempotent: true }), {
      onSuccess: () => decided,
      onFailure: (error) => Effect.succeed<Appended>({ _tag: "Uncertain", error: fail("append")(error) })
    })
  }

  const appendOne = (message: NewMessage, way: Way): Effect.Effect<Appended> => {
    const known = undecided.size === 0 ? undefined : undecided.get(undecidedKey(message))
    if (known !== undefined) return decide(message, known.evidence, way)
    if (message.due !== undefined) return Effect.map(scheduleChunk([message], way), ([outcome]) => outcome!)
    if (message.window !== undefined) {
      return Effect.catch(
        addOnce(message, way),
        (error) =>
          Effect.sync(() =>
            error.reason === "ConnectionLost" ? leave(message, sends.get(message)!, error, way) : failed(error)
          )
      )
    }
    const entry = lookUp(message)
    return entry !== undefined ? addTo(entry, message, way) : Effect.matchEffect(introduce(message), {
      onFailure: (error) => Effect.succeed(failed(error)),
      onSuccess: (entry) => addTo(entry, message, way)
    })
  }

  const addTo = (entry: Known, message: NewMessage, way: Way): Effect.Effect<Appended> => {
    const evidence = inLog(entry.position)
    return Effect.matchEffect(
      way.connectionOf(shardOf(message.channel)).send(addCommand(entry, message), { idempotent: false }),
      {
        onSuccess: (position) =>
          position === null
            ? Effect.andThen(gone(message.channel), appendOne(message, way))
            : Effect.succeed(stored(entry, message, position as string)),
        onFailure: (error) =>
          error.reason === "ConnectionLost" ? decide(message, evidence, way) : Effect.succeed(failed(error))
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
    const sentAt = performance.now()
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
        out.push(stored(entry, message, reply))
      } else if (reply instanceof RedisError && reply.reason === "ConnectionLost") {
        // In order, each searched for after the one before it: what a lost write did is a prefix of it.
        const evidence = inLog(reached.get(entry)!, sentAt)
        // Where one could not be decided in time, the others need not wait as long each.
        const outcome: Appended = isAway
          ? leave(message, evidence, reply, way)
          : yield* decide(message, evidence, way)
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

  /** Stores scheduled messages of one channel in one step. */
  const scheduleChunk = Effect.fnUntraced(function*(
    messages: ReadonlyArray<NewMessage>,
    way: Way
  ): Effect.fn.Return<ReadonlyArray<Appended>> {
    const first = messages[0]!
    const entry = yield* Effect.result(knownFor(first))
    if (entry._tag === "Failure") return messages.map(() => failed(entry.failure))
    if (messages.some((message) => undecided.has(undecidedKey(message)))) {
      return yield* Effect.forEach(messages, (message) => appendOne(message, way))
    }
    const reply = yield* Effect.result(schedule(messages, way, (message, evidence) => sends.set(message, evidence)))
    if (reply._tag === "Failure") {
      return messages.map((message) =>
        reply.failure.reason === "ConnectionLost"
          ? leave(message, sends.get(message)!, reply.failure, way)
          : failed(reply.failure)
      )
    }
    if (reply.success !== undefined) return reply.success
    yield* gone(first.channel)
    return yield* scheduleChunk(messages, way)
  })

  /**
   * Stores the messages of one call in its order: plain ones of a shard in pipelines, scheduled ones of a channel in scripts, and those
   * that one may keep out, one by one. What could stand before another only through its own delay waits for nobody.
   */
  const appendAll = Effect.fnUntraced(function*(messages: ReadonlyArray<NewMessage>, way: Way) {
    const outcomes = new Array<Appended>(messages.length)
    // Where one got no answer in time, those behind it are not sent: they need not wait as long each, and do not overtake it when it
    // is published again.
    const away = new Map<number, BrokerError>()
    const note = (shard: number, index: number, outcome: Appended) => {
      outcomes[index] = outcome
      const isAway = outcome._tag === "Uncertain" ||
        (outcome._tag === "Failed" && outcome.error.reason === "Unavailable")
      if (isAway) {
        away.set(shard, new BrokerError({ reason: "Unavailable", operation: "append", message: outcome.error.message }))
      }
    }
    const isUndecided = (message: NewMessage) => undecided.size > 0 && undecided.has(undecidedKey(message))
    /** Whether the message is not to be sent any more. */
    const isGivenUp = (shard: number, index: number) => {
      const error = away.get(shard)
      if (error === undefined) return false
      outcomes[index] = { _tag: isUndecided(messages[index]!) ? "Uncertain" : "Failed", error }
      return true
    }

    const plain = new Map<number, { indexes: Array<number>; entries: Array<Known>; chars: number }>()
    const scheduled = new Map<string, { indexes: Array<number>; chars: number; hasPlace: boolean }>()
    const flushPlain = Effect.fnUntraced(function*(shard: number) {
      const chunk = plain.get(shard)
      if (chunk === undefined) return
      plain.delete(shard)
      if (away.has(shard)) return chunk.indexes.forEach((index) => isGivenUp(shard, index))
      const done = yield* appendChunk(shard, chunk.indexes.map((index) => messages[index]!), chunk.entries, way)
      for (const [i, index] of chunk.indexes.entries()) note(shard, index, done[i]!)
    })
    const flushScheduled = Effect.fnUntraced(function*(channel: string) {
      const chunk = scheduled.get(channel)
      if (chunk === undefined) return
      scheduled.delete(channel)
      const shard = shardOf(channel)
      yield* flushPlain(shard)
      if (away.has(shard)) return chunk.indexes.forEach((index) => isGivenUp(shard, index))
      const done = yield* scheduleChunk(chunk.indexes.map((index) => messages[index]!), way)
      for (const [i, index] of chunk.indexes.entries()) note(shard, index, done[i]!)
    })

    for (const [index, message] of messages.entries()) {
      const { channel, due } = message
      const shard = shardOf(channel)
      if (isGivenUp(shard, index)) continue
      if (due !== undefined) {
        // One whose time has passed is stored at once.
        const hasPlace = "atMillis" in due || due.delayMillis <= 0
        if (hasPlace) yield* flushPlain(shard)
        const chunk = scheduled.get(channel) ?? { indexes: [], chars: 0, hasPlace: false }
        scheduled.set(channel, chunk)
        chunk.indexes.push(index)
        chunk.chars += message.payload.length
        chunk.hasPlace ||= hasPlace
        if (isFull(chunk)) yield* flushScheduled(channel)
        continue
      }
      if (message.window !== undefined || isUndecided(message)) {
        yield* flushScheduled(channel)
        yield* flushPlain(shard)
        if (!isGivenUp(shard, index)) note(shard, index, yield* appendOne(message, way))
        continue
      }
      if (scheduled.get(channel)?.hasPlace === true) {
        yield* flushScheduled(channel)
        if (isGivenUp(shard, index)) continue
      }
      let entry = lookUp(message)
      if (entry === undefined) {
        const introduced = yield* Effect.result(introduce(message))
        if (introduced._tag === "Failure") {
          note(shard, index, failed(introduced.failure))
          continue
        }
        entry = introduced.success
      }
      const chunk = plain.get(shard) ?? { indexes: [], entries: [], chars: 0 }
      plain.set(shard, chunk)
      chunk.indexes.push(index)
      chunk.entries.push(entry)
      chunk.chars += message.payload.length
      if (isFull(chunk)) yield* flushPlain(shard)
    }
    yield* Effect.forEach([...plain.keys()], flushPlain, { concurrency: "unbounded", discard: true })
    yield* Effect.forEach([...scheduled.keys()], flushScheduled, { discard: true })
    return outcomes
  })

  /**
   * Makes the channels of a shard known again whose entry in the registry is gone, or has lost the limits they have here; and says of what
   * this program defines that it still does.
   */
  const reassure = Effect.fnUntraced(function*(shard: number) {
    const keys = keysOf(shard)
    const mine = [...known].filter(([channel]) => shardOf(channel) === shard)
    for (const chunk of chunked(mine, channelsPerLook)) {
      const names = chunk.map(([channel]) => channel)
      const replies = yield* connectionOf(shard).pipeline([
        ["hmget", keys.channels, ...names],
        ["hmget", keys.definitions, ...names]
      ])
      for (const reply of replies) if (reply instanceof RedisError) return yield* reply
      const [found, defined] = replies as ReadonlyArray<ReadonlyArray<string | null>>
      for (const [i, [channel, { mine, saidAt }]] of chunk.entries()) {
        const lines = defined![i]?.split("\n") ?? []
        const isRecorded = mine === undefined || lines.some((line) => line.endsWith(` ${Definitions.record(mine)}`))
        const isGone = found![i] === null ||
          (found![i] === "" && lines.length === 1 && mine !== undefined && Definitions.encode(mine) !== "")
        if (isGone) {
          yield* Effect.logWarning(
            `rotif: the entry of channel "${channel}" in the registry, or its limits there, were gone from Redis and are made again`
          )
        } else if (isRecorded && (mine === undefined || performance.now() - saidAt < sayMillis)) {
          continue
        }
        yield* introduce({ channel })
      }
    }
  })

  /** What will tell of the message, if it is sent plainly. */
  const evidenceFor = (message: NewMessage): Effect.Effect<Evidence, RedisError> => {
    const evidence = undecided.get(undecidedKey(message))?.evidence
    return evidence !== undefined
      ? Effect.succeed(evidence)
      : Effect.map(knownFor(message), ({ position }) => inLog(position))
  }

  /** The message is known to be stored: where it has a window, another publish with its id is a duplicate of it. */
  const asFirst = ({ id }: NewMessage, evidence: Evidence): Evidence =>
    evidence._tag === "Log" ? evidence : {
      ...evidence,
      read: (value) => {
        const told = evidence.read(value)
        return told?._tag === "Stored" ? { _tag: "Duplicate", id, position: told.position } : told
      }
    }

  const appendBy = (messages: ReadonlyArray<NewMessage>, way: Way): Effect.Effect<ReadonlyArray<Appended>> =>
    messages.length === 1 ? Effect.map(appendOne(messages[0]!, way), (outcome) => [outcome]) : appendAll(messages, way)
  const append = RedisDurability.make(shards, {
    durable,
    appendBy,
    evidenceFor,
    remember: (message, evidence) => remember(message, asFirst(message, sends.get(message) ?? evidence))
  })

  return {
    append: append.append,
    checkDurability: append.check,
    reassure,
    /** What is known of the channel of a message; it is made known where it is not. One that is relayed is another program's. */
    target: (message: NewMessage, isRelayed: boolean): Effect.Effect<{ readonly log: string }, RedisError> => {
      const entry = isRelayed ? known.get(message.channel) : lookUp(message)
      if (!isRelayed && entry !== undefined) count(message.channel, entry)
      return entry !== undefined ? Effect.succeed(entry) : introduce(message, isRelayed)
    },
    /** The channel of a message that will be relayed: that this program defines it, is told without waiting for it. */
    announce: (message: NewMessage): void => {
      if (lookUp(message) === undefined) Effect.runFork(Effect.ignore(introduce(message)))
    },
    forget: (channel: string) => void known.delete(channel),
    introduce
  }
}
