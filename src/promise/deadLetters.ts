/**
 * Dead letters as the Promise API shows them.
 */
import { Clock, DateTime, Effect, Option, Stream } from "effect"
import * as Channel from "../Channel.ts"
import type { DeadLetter } from "../DeadLetter.ts"
import * as DeadLetters from "../DeadLetters.ts"
import * as Publisher from "../Publisher.ts"
import { checkDlqQuery } from "./checks.ts"
import type { Payload } from "./message.ts"
import { payloadOf } from "./message.ts"
import type { DlqQuery } from "./options.ts"
import { anything } from "./options.ts"

/**
 * A dead letter, as `getDLQMessages` shows it.
 *
 * @category models
 * @since 0.1.0
 */
export interface DlqMessage {
  /** The id of the dead letter, for `getDLQMessage`, `requeueDLQMessage` and `removeDLQMessage`. */
  readonly letterId: string
  /** The id of the message. */
  readonly id: string
  readonly channel: string
  readonly group: string
  readonly payload: Payload
  readonly headers: Readonly<Record<string, string>>
  /** The ordering key of the message, if it has one. */
  readonly orderingKey?: string
  /** The last error of the handler. */
  readonly error: string
  /** The error with its stack, as text; at most 4 KiB. */
  readonly cause: string | undefined
  /** `exhausted`: no retries left. `term`: the handler refused it for good. `decode`, `crashed`, `expired`. */
  readonly reason: string
  /** The last attempt, from 1. */
  readonly attempt: number
  /** When it was first published, and when it was given up; milliseconds since 1970. */
  readonly timestamp: number
  readonly failedAt: number
  /** Milliseconds since it was given up. */
  readonly age: number
}

/**
 * Counts of dead letters, in all and by channel.
 *
 * @category models
 * @since 0.1.0
 */
export interface DlqStats {
  readonly totalMessages: number
  readonly messagesByChannel: Readonly<Record<string, number>>
  /** When the oldest and the newest dead letter was given up; `undefined` when there is none. */
  readonly oldestMessage: number | undefined
  readonly newestMessage: number | undefined
}

const letterOf = (letter: DeadLetter, now: number): DlqMessage => ({
  letterId: letter.letterId,
  id: letter.id,
  channel: letter.channel,
  group: letter.group,
  payload: payloadOf(letter.raw),
  headers: letter.headers,
  // Left out without a key: the archive stores it as JSON.
  ...(letter.orderingKey === undefined ? {} : { orderingKey: letter.orderingKey }),
  error: letter.failure.message,
  cause: letter.failure.cause,
  reason: letter.failure.reason,
  attempt: letter.attempt,
  timestamp: DateTime.toEpochMillis(letter.publishedAt),
  failedAt: DateTime.toEpochMillis(letter.diedAt),
  age: Math.max(0, now - DateTime.toEpochMillis(letter.diedAt))
})

/** @internal */
export const stats: Effect.Effect<DlqStats, unknown, DeadLetters.DeadLetters> = Effect.gen(function*() {
  const counts = yield* DeadLetters.countBy()
  const edge = (order: "oldest" | "newest") =>
    Effect.map(
      DeadLetters.list({}, { order, limit: 1 }),
      ({ letters: [letter] }) => letter === undefined ? undefined : DateTime.toEpochMillis(letter.diedAt)
    )
  const byChannel = Map.groupBy(counts, ({ channel }) => channel)
  return {
    totalMessages: yield* DeadLetters.count(),
    messagesByChannel: Object.fromEntries(
      Array.from(byChannel, ([channel, rows]) => [channel, rows.reduce((sum, { count }) => sum + count, 0)])
    ),
    oldestMessage: yield* edge("oldest"),
    newestMessage: yield* edge("newest")
  }
})

/** @internal */
export const list = Effect.fnUntraced(function*(query: DlqQuery) {
  const problem = checkDlqQuery(query)
  if (problem !== undefined) return yield* Effect.fail(problem)
  const { channel, errorName, group, limit = 100, maxAge, offset = 0, order, reason } = query
  const now = yield* Clock.currentTimeMillis
  const letters = yield* DeadLetters.all(
    { channel, group, reason, errorTag: errorName, from: maxAge === undefined ? undefined : now - maxAge },
    { order }
  ).pipe(
    Stream.drop(offset),
    Stream.take(limit),
    Stream.runCollect
  )
  return letters.map((letter) => letterOf(letter, now))
})

/** @internal */
export const get = (letterId: string) =>
  Effect.gen(function*() {
    const letter = Option.getOrUndefined(yield* DeadLetters.get(letterId))
    return letter === undefined ? undefined : letterOf(letter, yield* Clock.currentTimeMillis)
  })

/**
 * Publishes letters to the channel of the archive, each under an id of its own, so that a repetition stores nothing.
 *
 * @internal
 */
export const archive = (channel: string, letters: ReadonlyArray<DeadLetter>) =>
  Effect.suspend(() =>
    Publisher.publishAll(
      // Without the default limits: an archive keeps everything.
      Channel.make(channel, anything),
      letters.map((letter): Payload => letterOf(letter, DateTime.toEpochMillis(letter.diedAt))),
      (_, index) => ({ id: letters[index]!.letterId })
    )
  )
