/**
 * The publish of one message: a plain XADD where possible, and a script where a message must not be stored twice: inside a deduplication
 * window, when it waits for its time, or after a reply was lost.
 */
import { Effect } from "effect"
import type { Appended, NewMessage } from "../../broker/publishing.ts"
import type { Command, RedisError } from "../../Redis.ts"
import type { Evidence } from "../callOutcome.ts"
import { answer, duplicateOf, inLog, keptMillis, nextCall } from "../callOutcome.ts"
import type { Channels, KnownChannel } from "../channels.ts"
import * as Entry from "../entry.ts"
import { append as appendScript } from "../scripts/publish/append.ts"
import type { Shards } from "../shards.ts"
import type { Route } from "./route.ts"
import type { UndecidedMessages } from "./undecided.ts"
import { store } from "./waiting.ts"

export const addCommand = (entry: KnownChannel, message: NewMessage): Command => [
  "xadd",
  entry.log,
  "NOMKSTREAM",
  "*",
  ...Entry.logFields(message)
]

export const make = (shards: Shards, channels: Channels, undecided: UndecidedMessages) => {
  const { fail, keysOf, shardOf } = shards

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

  return { failed, leave, decide, appendOne, scheduleChunk }
}

export type Single = ReturnType<typeof make>
