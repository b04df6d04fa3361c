/**
 * Publishes whose reply was lost: what tells whether they were stored, and the search for it.
 *
 * A publish that cannot be decided now is remembered, so that its repetition asks first. A plain publish is searched in the log, any other
 * asks for the answer that its script has left.
 */
import { Effect } from "effect"
import { BrokerError } from "../../broker/error.ts"
import type { Appended, NewMessage } from "../../broker/publishing.ts"
import { Bounded } from "../../internal/boundedMap.ts"
import type { Connection } from "../../redis/connection.ts"
import { RedisError } from "../../redis/protocol.ts"
import type { Channels } from "../channels.ts"
import * as Entry from "../entry.ts"
import type { Evidence } from "../callOutcome.ts"
import { duplicateOf, nextCall } from "../callOutcome.ts"
import { append as appendScript } from "../scripts/publish/append.ts"
import type { Shards } from "../shards.ts"
import type { Route } from "./route.ts"
import * as Search from "./search.ts"

/** At most this many undecided publishes are remembered. The oldest are forgotten. */
const mostRemembered = 10_000

/** After this long a search ends undecided; the repetition of the publish continues it. */
const searchMillis = 5_000

/** Added to the age of a message: what is said of it has to hold when the server reads it. */
const slackMillis = 2_000

/** A statement of a message's age is not sent after this long. */
const freshMillis = 1_000

interface Undecided {
  readonly evidence: Evidence
  /** The connection that lost the reply. */
  readonly lostOn: Connection | undefined
}

const keyOf = (message: NewMessage) => `${message.channel}\n${message.id}`

/** The outcome of a publish that nothing can decide any more. */
const lasting = (why: string): Appended => ({
  _tag: "Uncertain",
  isLasting: true,
  error: new BrokerError({
    reason: "Uncertain",
    operation: "append",
    message: `append: ${why}: this is not found out any more`
  })
})

const gaveUp = () =>
  new RedisError({
    reason: "ConnectionLost",
    command: "append",
    message: "the search for the message takes longer"
  })

/** `graceMillis` is how long a log keeps messages that all groups have acknowledged. */
export const make = ({ keysOf, shardOf }: Shards, channels: Channels, graceMillis: number) => {
  const search = Search.make()
  const remembered = new Bounded<string, Undecided>(mostRemembered)

  /** The evidence of the call that a message was last sent with. */
  const sends = new WeakMap<NewMessage, Evidence>()

  /**
   * Finds a message in its log, or adds it. The connection has ended the lost socket before this is sent, so a message that is not in the log
   * by now never will be. The outcome is uncertain where the message may have been stored and removed since.
   */
  const findOrAdd = Effect.fnUntraced(function*(
    message: NewMessage,
    evidence: Extract<Evidence, { readonly _tag: "Log" }>,
    route: Route
  ) {
    const keys = keysOf(shardOf(message.channel))
    const connection = route.connectionOf(keys.shard)
    const { limits, window } = message
    const { sentAt, since } = evidence
    let reached: Search.Reached = evidence
    const note = (next: Search.Reached) => {
      reached = next
      sends.set(message, { ...evidence, ...next })
    }
    const call = nextCall()
    let entry = yield* channels.ensure(message)
    const deadline = performance.now() + searchMillis
    while (performance.now() < deadline) {
      const position = yield* search(entry.log, connection, message.id, reached, note).pipe(
        Effect.timeoutOrElse({
          duration: Math.max(1, deadline - performance.now()),
          orElse: () => Effect.fail(gaveUp())
        })
      )
      if (position !== undefined) {
        route.onFound?.(message)
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
        return channels.stored(entry, message.channel, position)
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
        { isCurrent: () => performance.now() - askedAt < freshMillis }
      )) as readonly [string, string]
      if (outcome === "found" || outcome === "duplicate") route.onFound?.(message)
      if (outcome === "duplicate") return duplicateOf(value)
      if (outcome === "added" || outcome === "found") return channels.stored(entry, message.channel, value)
      if (outcome === "more") {
        note({ ...reached, from: value })
      } else if (outcome === "gone") {
        return lasting("it may have been stored, and removed since")
      } else {
        yield* channels.gone(message.channel)
        entry = yield* channels.introduce(message)
      }
    }
    return yield* gaveUp()
  })

  /** Returns the kept answer of a call; `undefined`: it was not executed, and never will be. */
  const ask = Effect.fnUntraced(function*(
    message: NewMessage,
    { key, read, until }: Extract<Evidence, { readonly _tag: "Answer" }>,
    route: Route
  ): Effect.fn.Return<Appended | undefined, RedisError> {
    const value = (yield* route.connectionOf(shardOf(message.channel)).send(["get", key], { idempotent: true })) as
      | string
      | null
    const told = value === null ? undefined : read(value)
    if (told !== undefined) route.onFound?.(message)
    return told ?? (performance.now() > until ? lasting("what it was told is not kept any more") : undefined)
  })

  return {
    get: (message: NewMessage): Undecided | undefined =>
      remembered.size === 0 ? undefined : remembered.get(keyOf(message)),
    remember: (message: NewMessage, evidence: Evidence, lostOn?: Connection): void => {
      remembered.set(keyOf(message), { evidence, lostOn })
    },
    forget: (message: NewMessage): void => void remembered.delete(keyOf(message)),
    /** Records what the message is sent with, and what will tell of it. */
    sent: (message: NewMessage, evidence: Evidence): void => void sends.set(message, evidence),
    sentWith: (message: NewMessage): Evidence | undefined => sends.get(message),
    /** Finds out what became of a message. A plain one is stored where it is not; `undefined`: any other was not stored. */
    resolve: (
      message: NewMessage,
      evidence: Evidence,
      route: Route
    ): Effect.Effect<Appended | undefined, RedisError> =>
      evidence._tag === "Log" ? findOrAdd(message, evidence, route) : ask(message, evidence, route)
  }
}

export type UndecidedMessages = ReturnType<typeof make>
