/**
 * Publishing on Redis: a plain XADD where possible, and a script where a message must not be stored twice: inside a deduplication window,
 * when it waits for its time, or after a reply was lost.
 */
import { refusedCommand } from "../../redis/protocol.ts"
import { Effect } from "effect"
import type { Appended, NewMessage } from "../../broker/publishing.ts"
import type { Command, DurableConnection } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import type { Channels, KnownChannel } from "../channels.ts"
import * as Entry from "../entry.ts"
import type { Evidence } from "../callOutcome.ts"
import { answer, duplicateOf, inLog, keptMillis, nextCall } from "../callOutcome.ts"
import { append as appendScript } from "../scripts/publish/append.ts"
import type { Shards } from "../shards.ts"
import * as Batch from "./batch.ts"
import * as Durability from "./durability.ts"
import type { Route } from "./route.ts"
import * as Undecided from "./undecided.ts"
import { store } from "./waiting.ts"

const addCommand = (entry: KnownChannel, message: NewMessage): Command => [
  "xadd",
  entry.log,
  "NOMKSTREAM",
  "*",
  ...Entry.logFields(message)
]

/** Reads an answer as that of a stored message: another publish with its id, under the same window, is a duplicate of it. */
const asFirst = ({ id }: NewMessage, evidence: Evidence): Evidence =>
  evidence._tag === "Log" ? evidence : {
    ...evidence,
    read: (value) => {
      const told = evidence.read(value)
      return told?._tag === "Stored" ? { _tag: "Duplicate", id, position: told.position } : told
    }
  }

export const make = (shards: Shards, channels: Channels, { durable, graceMillis }: {
  readonly durable: (shard: number) => DurableConnection
  /** How long a log keeps messages that all groups have acknowledged. */
  readonly graceMillis: number
}) => {
  const { connectionOf, fail, keysOf, shardOf } = shards
  const undecided = Undecided.make(shards, channels, graceMillis)
  const durability = Durability.make(shards, durable)
  const shared: Route = { connectionOf }

  const failed = (error: RedisError): Appended => ({ _tag: "Failed", error: fail("append")(error) })

  /** Leaves undecided what became of a message; its repetition will find out. */
  const leave = (message: NewMessage, evidence: Evidence, error: RedisError, route: Route): Appended => {
    undecided.remember(message, evidence, route.connectionOf(shardOf(message.channel)))
    return { _tag: "Uncertain", error: fail("append")(error) }
  }

  /**
   * Adds a message through the script, unless its window is open. Calling it twice is safe: the second call gets the answer of the first, which
   * the window keeps where it lasts for as long as answers do.
   */
  const addOnce = Effect.fnUntraced(function*(message: NewMessage, route: Route) {
    const keys = keysOf(shardOf(message.channel))
    const window = message.window!
    const call = nextCall()
    const seen = keys.seen(message.channel, window.key)
    const isLong = window.millis >= keptMillis
    const told = keys.answer(call)
    let entry = yield* channels.ensure(message)
    undecided.sent(
      message,
      isLong
        ? answer(seen, (held) => {
          const [position = "", opener] = held.split(" ", 2)
          return opener === call ? { _tag: "Stored", position } : undefined
        }, window.millis)
        : answer(told, (position) => ({ _tag: "Stored", position }))
    )
    while (true) {
      const [outcome, position] = (yield* route.connectionOf(keys.shard).evaluate(
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
        ]
      )) as readonly [string, string]
      if (outcome === "duplicate") {
        route.onFound?.(message)
        return duplicateOf(position)
      }
      if (outcome !== "unknown") return channels.stored(entry, message.channel, position)
      yield* channels.gone(message.channel)
      entry = yield* channels.introduce(message)
    }
  })

  /** Finds out what became of a message whose reply was lost, and stores it where it is not. */
  const decide = (message: NewMessage, evidence: Evidence, route: Route): Effect.Effect<Appended> => {
    const lostOn = undecided.get(message)?.lostOn
    const connection = route.connectionOf(shardOf(message.channel))
    undecided.sent(message, evidence)
    const decided = Effect.matchEffect(undecided.resolve(message, evidence, route), {
      onFailure: (error) => Effect.sync(() => leave(message, undecided.sentWith(message)!, error, route)),
      onSuccess: (appended) => {
        if (appended?._tag === "Uncertain") undecided.remember(message, evidence)
        else undecided.forget(message)
        return appended === undefined ? appendOne(message, route) : Effect.succeed(appended)
      }
    })
    if (lostOn === undefined || lostOn === connection) return decided
    // A command lost on another connection could still be executed after a search on this one: a connection that answers has ended its lost
    // socket.
    return Effect.matchEffect(lostOn.send(["ping"], { idempotent: true }), {
      onSuccess: () => decided,
      onFailure: (error) => Effect.succeed<Appended>({ _tag: "Uncertain", error: fail("append")(error) })
    })
  }

  const appendOne = (message: NewMessage, route: Route): Effect.Effect<Appended> => {
    const known = undecided.get(message)
    if (known !== undefined) return decide(message, known.evidence, route)
    if (message.due !== undefined) return Effect.map(scheduleChunk([message], route), ([outcome]) => outcome!)
    if (message.window !== undefined) {
      return Effect.catch(
        addOnce(message, route),
        (error) =>
          Effect.sync(() =>
            error.reason === "ConnectionLost"
              ? leave(message, undecided.sentWith(message)!, error, route)
              : failed(error)
          )
      )
    }
    const entry = channels.lookUp(message)
    return entry !== undefined ? addTo(entry, message, route) : Effect.matchEffect(channels.introduce(message), {
      onFailure: (error) => Effect.succeed(failed(error)),
      onSuccess: (entry) => addTo(entry, message, route)
    })
  }

  const addTo = (entry: KnownChannel, message: NewMessage, route: Route): Effect.Effect<Appended> => {
    const evidence = inLog(entry.position)
    return Effect.matchEffect(
      route.connectionOf(shardOf(message.channel)).send(addCommand(entry, message), { idempotent: false }),
      {
        onSuccess: (position) =>
          position === null
            ? Effect.andThen(channels.gone(message.channel), appendOne(message, route))
            : Effect.succeed(channels.stored(entry, message.channel, position as string)),
        onFailure: (error) =>
          error.reason === "ConnectionLost" ? decide(message, evidence, route) : Effect.succeed(failed(error))
      }
    )
  }

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

  /** Stores scheduled messages of one channel in one step. */
  const scheduleChunk = Effect.fnUntraced(function*(
    messages: ReadonlyArray<NewMessage>,
    route: Route
  ): Effect.fn.Return<ReadonlyArray<Appended>> {
    const first = messages[0]!
    const entry = yield* Effect.result(channels.ensure(first))
    if (entry._tag === "Failure") return messages.map(() => failed(entry.failure))
    if (messages.some((message) => undecided.get(message) !== undefined)) {
      return yield* Effect.forEach(messages, (message) => appendOne(message, route))
    }
    const reply = yield* Effect.result(store(shards, messages, route, undecided.sent))
    if (reply._tag === "Failure") {
      return messages.map((message) =>
        reply.failure.reason === "ConnectionLost"
          ? leave(message, undecided.sentWith(message)!, reply.failure, route)
          : failed(reply.failure)
      )
    }
    if (reply.success !== undefined) return reply.success
    yield* channels.gone(first.channel)
    return yield* scheduleChunk(messages, route)
  })

  const writes: Batch.Writes = {
    shardOf,
    channels,
    isUndecided: (message) => undecided.get(message) !== undefined,
    failed,
    appendOne,
    appendChunk,
    scheduleChunk
  }

  const appendBy = (messages: ReadonlyArray<NewMessage>, route: Route): Effect.Effect<ReadonlyArray<Appended>> =>
    messages.length === 1
      ? Effect.map(appendOne(messages[0]!, route), (outcome) => [outcome])
      : Batch.appendAll(writes, messages, route)

  /** The evidence for a message that is sent plainly. */
  const evidenceFor = (message: NewMessage): Effect.Effect<Evidence, RedisError> => {
    const evidence = undecided.get(message)?.evidence
    return evidence !== undefined
      ? Effect.succeed(evidence)
      : Effect.map(channels.ensure(message), ({ position }) => inLog(position))
  }

  const appendDurably = Effect.fnUntraced(function*(
    messages: ReadonlyArray<NewMessage>
  ): Effect.fn.Return<ReadonlyArray<Appended>> {
    const probed = yield* Effect.result(durability.probeAll(messages))
    // Nothing is stored: nothing could tell whether it is durable.
    if (probed._tag === "Failure") return messages.map(() => ({ _tag: "Failed", error: probed.failure }))
    // The position from which a repetition searches. A channel that cannot be made known cannot take the message either.
    const evidence = yield* Effect.forEach(messages, (message) => Effect.result(evidenceFor(message)))
    const { confirm, route } = durability.begin()
    const outcomes = yield* appendBy(messages, route)
    const shortfalls = yield* confirm(messages, outcomes)
    return outcomes.map((outcome, i) => {
      const message = messages[i]!
      const shortfall = shortfalls[i]
      if (shortfall === undefined) return outcome
      const before = evidence[i]!
      if (before._tag === "Success") {
        undecided.remember(message, asFirst(message, undecided.sentWith(message) ?? before.success))
      }
      return { ...outcome, shortfall }
    })
  })

  return {
    append: (messages: ReadonlyArray<NewMessage>): Effect.Effect<ReadonlyArray<Appended>> => {
      for (let i = 0; i < messages.length; i++) {
        if (messages[i]!.durability !== undefined) return appendDurably(messages)
      }
      return appendBy(messages, shared)
    },
    checkDurability: durability.check
  }
}
