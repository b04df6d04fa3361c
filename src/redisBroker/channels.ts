/**
 * Channels that this process knows: it has created their log, and told the registry their limits.
 *
 * A publish to a known channel is a plain XADD. A publish to any other channel costs one script first.
 */
import { Effect } from "effect"
import * as Definitions from "../broker/limits.ts"
import type { Appended, Limits, NewMessage } from "../broker/publishing.ts"
import { Bounded } from "../internal/boundedMap.ts"
import { RedisError } from "../redis/protocol.ts"
import { chunked } from "./batches.ts"
import { createChannel } from "./scripts/publish/createChannel.ts"
import { trimToLimits } from "./scripts/publish/trimToLimits.ts"
import type { Shards } from "./shards.ts"

/** At most this many channels are known. */
const mostKnown = 10_000

/** At most this many channels are checked in the registry by one command. */
const channelsPerCheck = 2_000

/** A definition of limits counts for this long after its program last confirmed it; a program confirms it this often. */
const definedMillis = 600_000
const confirmMillis = 150_000

/** A program trims a log with limits after this many messages of its own, and removes at most this many entries each time. */
const messagesPerTrim = 100
const entriesPerTrim = 1_000

export interface KnownChannel {
  readonly log: string
  /** The most generous of the limits that this program defines; `undefined`: it defines none. */
  readonly mine: Limits | undefined
  /** The definitions that `mine` includes. */
  readonly seen: WeakSet<Limits>
  /** When the registry was last told, on this process's monotonic clock. */
  readonly confirmedAt: number
  /** Messages since the log was last trimmed. */
  added: number
  /** The last position confirmed to this process: a publish whose reply was lost can only be after it. */
  position: string
}

export type Channels = ReturnType<typeof make>

export const make = (
  { connectionOf, keysOf, shardOf }: Shards,
  { onFlush, touch }: {
    /** Asks the trimming of this shard to visit the stream. */
    readonly touch: (shard: number, stream: string) => void
    /** Runs when the log of a known channel is gone: most likely everything is. */
    readonly onFlush: Effect.Effect<void>
  }
) => {
  const known = new Bounded<string, KnownChannel>(mostKnown)

  /** Channels whose differing definitions were logged. */
  const differing = new Set<string>()

  /** Registers a channel and creates its log. With `isOthers` the limits are another program's: they are recorded, but not confirmed later. */
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
    const confirmedAt = performance.now()
    const [position, limits, count] = (yield* connectionOf(keys.shard).evaluate(
      createChannel,
      [keys.meta, keys.channels, log, ...(definition === undefined ? [] : [keys.definitions])],
      [channel, definition === undefined ? "" : Definitions.record(definition), keys.events, definedMillis]
    ).pipe(
      // Nothing of the message was sent, whether or not the channel was created.
      Effect.mapError((error) =>
        error.reason === "ConnectionLost"
          ? new RedisError({ reason: "Unavailable", command: error.command, message: error.message })
          : error
      )
    )) as readonly [string, string, number]
    const seen = before?.seen ?? new WeakSet<Limits>()
    if (own !== undefined) seen.add(own)
    const entry: KnownChannel = { log, mine, seen, confirmedAt, added: before?.added ?? 0, position }
    known.set(channel, entry)
    // The registry holds one definition of this program: differences within it show only here.
    const isDifferent = count > 1 ||
      (own !== undefined && before?.mine !== undefined && Definitions.record(own) !== Definitions.record(before.mine))
    if (isDifferent && definition !== undefined && !differing.has(channel)) {
      differing.add(channel)
      yield* Effect.logWarning(Definitions.difference(channel, own ?? definition, limits))
    }
    // Messages reach their age without any event, and limits may have become narrower.
    if (limits !== "") touch(keys.shard, log)
    return entry
  })

  /** Returns the channel of a message, or `undefined` when it, or this definition of its limits, is not known yet. */
  const lookUp = ({ channel, limits }: NewMessage): KnownChannel | undefined => {
    const entry = known.get(channel)
    if (entry === undefined || limits === undefined || entry.seen.has(limits)) return entry
    if (entry.mine === undefined || Definitions.record(limits) !== Definitions.record(entry.mine)) return undefined
    entry.seen.add(limits)
    return entry
  }

  /** Returns the channel of a message, and registers it first where it is not known. */
  const ensure = (message: NewMessage): Effect.Effect<KnownChannel, RedisError> => {
    const entry = lookUp(message)
    return entry !== undefined ? Effect.succeed(entry) : introduce(message)
  }

  /**
   * Counts a stored message, and trims the log now and then, by the limits that the registry has then: those of this program alone may be
   * too narrow. No publish waits for it. The janitor removes the rest.
   */
  const count = (channel: string, entry: KnownChannel): void => {
    if (entry.mine?.maxLength === undefined && entry.mine?.minId === undefined) return
    if (++entry.added < messagesPerTrim) return
    entry.added = 0
    const keys = keysOf(shardOf(channel))
    Effect.runFork(Effect.ignore(
      connectionOf(keys.shard).evaluate(trimToLimits, [keys.channels, entry.log], [channel, entriesPerTrim])
    ))
  }

  /** Forgets a channel whose log is gone. Of several publishes that notice at once, one logs it and restores the namespace's record. */
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
   * Registers the known channels of a shard again whose entry in the registry is gone or has lost its limits, and confirms the definitions
   * of this program.
   */
  const reassure = Effect.fnUntraced(function*(shard: number) {
    const keys = keysOf(shard)
    const mine = [...known].filter(([channel]) => shardOf(channel) === shard)
    for (const chunk of chunked(mine, channelsPerCheck)) {
      const names = chunk.map(([channel]) => channel)
      const replies = yield* connectionOf(shard).pipeline([
        ["hmget", keys.channels, ...names],
        ["hmget", keys.definitions, ...names]
      ])
      for (const reply of replies) if (reply instanceof RedisError) return yield* reply
      const [found, defined] = replies as ReadonlyArray<ReadonlyArray<string | null>>
      for (const [i, [channel, { confirmedAt, mine }]] of chunk.entries()) {
        const lines = defined![i]?.split("\n") ?? []
        const isRecorded = mine === undefined || lines.some((line) => line.endsWith(` ${Definitions.record(mine)}`))
        const isGone = found![i] === null ||
          (found![i] === "" && lines.length === 1 && mine !== undefined && Definitions.encode(mine) !== "")
        if (isGone) {
          yield* Effect.logWarning(
            `rotif: the entry of channel "${channel}" in the registry, or its limits there, were gone from Redis and are made again`
          )
        } else if (isRecorded && (mine === undefined || performance.now() - confirmedAt < confirmMillis)) {
          continue
        }
        yield* introduce({ channel })
      }
    }
  })

  return {
    introduce,
    lookUp,
    ensure,
    gone,
    reassure,
    /** Records that a message was stored in the channel at this position, and returns that as its outcome. */
    stored: (entry: KnownChannel, channel: string, position: string): Appended => {
      entry.position = position
      count(channel, entry)
      return { _tag: "Stored", position }
    },
    /** Returns the channel that a transaction writes a message to. With `isRelayed` another program published the message. */
    target: (message: NewMessage, isRelayed: boolean): Effect.Effect<{ readonly log: string }, RedisError> => {
      const entry = isRelayed ? known.get(message.channel) : lookUp(message)
      if (!isRelayed && entry !== undefined) count(message.channel, entry)
      return entry !== undefined ? Effect.succeed(entry) : introduce(message, isRelayed)
    },
    /** Registers the limits of this program for a channel whose messages are relayed. Nothing waits for it. */
    announce: (message: NewMessage): void => {
      if (lookUp(message) === undefined) Effect.runFork(Effect.ignore(introduce(message)))
    },
    forget: (channel: string) => void known.delete(channel)
  }
}
