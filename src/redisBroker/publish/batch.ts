/**
 * A publish of several messages, in the order of the call: plain ones of a shard in pipelines, scheduled ones of a channel in scripts, and
 * those that may be duplicates one by one.
 *
 * A scheduled message with a delay keeps no other message waiting: it cannot be handed out before them.
 */
import { Effect } from "effect"
import { BrokerError } from "../../broker/error.ts"
import type { Appended, NewMessage } from "../../broker/publishing.ts"
import { RedisError, refusedCommand } from "../../redis/protocol.ts"
import { inLog } from "../callOutcome.ts"
import { charactersPerCall, messagesPerWrite } from "../batches.ts"
import type { Channels, KnownChannel } from "../channels.ts"
import type { Shards } from "../shards.ts"
import type { Route } from "./route.ts"
import type { Single } from "./single.ts"
import { addCommand } from "./single.ts"
import type { UndecidedMessages } from "./undecided.ts"

const isFull = ({ chars, indexes }: { readonly indexes: ReadonlyArray<number>; readonly chars: number }) =>
  indexes.length >= messagesPerWrite || chars >= charactersPerCall

export const make = (
  { shardOf }: Shards,
  channels: Channels,
  undecided: UndecidedMessages,
  { appendOne, decide, failed, leave, scheduleChunk }: Single
) => {
  const isUndecided = (message: NewMessage) => undecided.get(message) !== undefined

  /** Writes messages of one shard in one pipeline, then decides those without a reply one by one. */
  const appendChunk = Effect.fnUntraced(function*(
    shard: number,
    messages: ReadonlyArray<NewMessage>,
    entries: ReadonlyArray<KnownChannel>,
    route: Route
  ) {
    // The last position of this very call in each log: messages that others add meanwhile may come after a lost one.
    const reached = new Map(entries.map((entry) => [entry, entry.position]))
    const sentAt = performance.now()
    const replies = yield* route.connectionOf(shard).pipeline(
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
        out.push(channels.stored(entry, message.channel, reply))
      } else if (reply instanceof RedisError && reply.reason === "ConnectionLost") {
        // In order, each searched after the one before it: a lost write has stored a prefix of its messages.
        const evidence = inLog(reached.get(entry)!, sentAt)
        // Where one could not be decided in time, the others need not wait as long each.
        const outcome: Appended = isAway
          ? leave(message, evidence, reply, route)
          : yield* decide(message, evidence, route)
        isAway = outcome._tag === "Uncertain"
        if (outcome._tag === "Stored") reached.set(entry, outcome.position)
        out.push(outcome)
      } else if (reply === null) {
        yield* channels.gone(message.channel)
        out.push(yield* appendOne(message, route))
      } else if (reply instanceof RedisError && reply.reason === "Transient") {
        out.push(yield* appendOne(message, route))
      } else {
        out.push(
          failed(
            reply instanceof RedisError
              ? reply
              : refusedCommand("xadd", "XADD gave an unexpected reply")
          )
        )
      }
    }
    return out
  })

  return Effect.fnUntraced(function*(messages: ReadonlyArray<NewMessage>, route: Route) {
    const outcomes = new Array<Appended>(messages.length)
    // Behind a message of a shard that got no reply in time no other is sent: none waits for as long again, and none overtakes it when it is
    // published again.
    const away = new Map<number, BrokerError>()
    const note = (shard: number, index: number, outcome: Appended) => {
      outcomes[index] = outcome
      const isAway = outcome._tag === "Uncertain" ||
        (outcome._tag === "Failed" && outcome.error.reason === "Unavailable")
      if (isAway) {
        away.set(shard, new BrokerError({ reason: "Unavailable", operation: "append", message: outcome.error.message }))
      }
    }
    /** Gives a message its outcome without sending it, where its shard is away. */
    const isGivenUp = (shard: number, index: number) => {
      const error = away.get(shard)
      if (error === undefined) return false
      outcomes[index] = { _tag: isUndecided(messages[index]!) ? "Uncertain" : "Failed", error }
      return true
    }

    const plain = new Map<number, { indexes: Array<number>; entries: Array<KnownChannel>; chars: number }>()
    const scheduled = new Map<string, { indexes: Array<number>; chars: number; hasPlace: boolean }>()
    const flushPlain = Effect.fnUntraced(function*(shard: number) {
      const chunk = plain.get(shard)
      if (chunk === undefined) return
      plain.delete(shard)
      if (away.has(shard)) return chunk.indexes.forEach((index) => isGivenUp(shard, index))
      const done = yield* appendChunk(shard, chunk.indexes.map((index) => messages[index]!), chunk.entries, route)
      for (const [i, index] of chunk.indexes.entries()) note(shard, index, done[i]!)
    })
    const flushScheduled = Effect.fnUntraced(function*(channel: string) {
      const chunk = scheduled.get(channel)
      if (chunk === undefined) return
      scheduled.delete(channel)
      const shard = shardOf(channel)
      yield* flushPlain(shard)
      if (away.has(shard)) return chunk.indexes.forEach((index) => isGivenUp(shard, index))
      const done = yield* scheduleChunk(chunk.indexes.map((index) => messages[index]!), route)
      for (const [i, index] of chunk.indexes.entries()) note(shard, index, done[i]!)
    })

    for (const [index, message] of messages.entries()) {
      const { channel, due } = message
      const shard = shardOf(channel)
      if (isGivenUp(shard, index)) continue
      if (due !== undefined) {
        // A message whose time has passed is stored at once, so its place in the order counts.
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
        if (!isGivenUp(shard, index)) note(shard, index, yield* appendOne(message, route))
        continue
      }
      if (scheduled.get(channel)?.hasPlace === true) {
        yield* flushScheduled(channel)
        if (isGivenUp(shard, index)) continue
      }
      let entry = channels.lookUp(message)
      if (entry === undefined) {
        const introduced = yield* Effect.result(channels.introduce(message))
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
}
