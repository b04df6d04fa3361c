/**
 * Messages of the Promise API: a delivery, or a dead letter that is offered.
 */
import { DateTime, Effect, Exit } from "effect"
import * as Batch from "../Batch.ts"
import type * as Channel from "../Channel.ts"
import type { Offered } from "../DeadLetter.ts"
import type * as Message from "../Message.ts"
import * as Retry from "../Retry.ts"
import { showAs, withoutCode } from "../internal/inspected.ts"
import * as Given from "../internal/optionChecks.ts"
import { shown } from "../internal/describe.ts"
import { UnrecoverableError } from "./errors.ts"
import { toPromise } from "./running.ts"

/**
 * Any JSON value: the payload of a channel without a type.
 *
 * @category models
 * @since 0.1.0
 */
// oxlint-disable-next-line typescript/no-explicit-any -- its users read fields of it without a check
export type Payload = any

/**
 * The message of a handler. Its functions can be used without the object.
 *
 * **Details**: the first of `ack`, `retry` and `reject` counts; later ones do nothing. If a handler ends without any of them, the message is
 * acknowledged; if it throws, the message is retried.
 *
 * @category models
 * @since 0.1.0
 */
export interface RotifMessage<P = Payload, Channel extends string = string> {
  readonly id: string
  readonly channel: Channel
  readonly payload: P
  /** When it was first published, by the clock of Redis, in milliseconds since 1970. */
  readonly timestamp: number
  /** From 1. Only failures count. */
  readonly attempt: number
  readonly headers: Readonly<Record<string, string>>
  /** Its ordering key, if it has one. */
  readonly orderingKey: string | undefined
  readonly group: string
  /** Of a dead letter: the last error of the handler. */
  readonly error?: string | undefined
  /** Acknowledges the message; deletes a dead letter. Resolves when that is stored. */
  readonly ack: () => Promise<void>
  /**
   * Retries the message as the next attempt, after `delayMs` or by the retry settings, when the handler has ended; it counts as a failure of the
   * handler. A dead letter is offered again. A delay that cannot be used (NaN, below 0, a Promise) is logged, and the delay is 1 second.
   */
  readonly retry: (delayMs?: number) => Promise<void>
  /** Moves the message to the dead letters, with this reason. Resolves when that is stored. A dead letter stays one. */
  readonly reject: (reason?: string) => Promise<void>
}

/**
 * By its name too: another library's class of this name means the same.
 *
 * @internal
 */
export const isUnrecoverable = (error: unknown): boolean =>
  error instanceof Error && (error instanceof UnrecoverableError || error.name === "UnrecoverableError")

/** What `retry()` makes the attempt fail with: the retry settings decide when. */
class RetryRequested extends Error {
  override readonly name = "RetryRequested"
  override readonly message = "the handler asked for a retry"
}

/**
 * Whether a handler asked to be run again, and did not fail.
 *
 * @internal
 */
export const isWish = (error: unknown): boolean => error instanceof RetryRequested || error instanceof Retry.RetryAfter

type Any = Message.Message<Channel.Source>

/** What a handler asked for by `retry`, once it has ended. */
const wishes = new WeakMap<RotifMessage, RetryRequested | Retry.RetryAfter>()

const functions = new Set(["ack", "retry", "reject"])
const visible = (message: RotifMessage): RotifMessage => showAs(message, () => withoutCode(message, functions))

/** One object for each message, also where the policy and the hooks see it. */
const made = new WeakMap<object, RotifMessage>()

/** @internal */
export const fromMessage = (message: Any): RotifMessage => {
  let mine = made.get(message)
  if (mine === undefined) {
    mine = makeMessage(message)
    made.set(message, mine)
  }
  return mine
}

const makeMessage = (message: Any): RotifMessage => {
  let settlement: Promise<void> | undefined
  const first = (settle: () => Promise<void>): Promise<void> => {
    if (settlement === undefined) {
      settlement = settle()
      // A caller that waits for it gets the failure; a handler that does not wait must not end the process.
      settlement.catch(() => {})
    }
    return settlement
  }
  const mine: RotifMessage = {
    id: message.id,
    channel: message.channel,
    payload: message.payload,
    timestamp: DateTime.toEpochMillis(message.publishedAt),
    attempt: message.attempt,
    headers: message.headers,
    orderingKey: message.orderingKey,
    group: message.group,
    ack: () => first(() => toPromise(message.ack)),
    retry: (delayMs) =>
      first(() => {
        wishes.set(
          mine,
          delayMs === undefined
            ? new RetryRequested()
            : new Retry.RetryAfter({
              delay: delayMs,
              message: `the handler asked for a retry after ${shown(delayMs)} ms`
            })
        )
        return Promise.resolve()
      }),
    reject: (reason = "rejected by the handler") => first(() => toPromise(message.term(reason)))
  }
  return visible(mine)
}

/**
 * Whether code of the user's has done its work by now.
 *
 * @internal
 */
export const done = (what: string, returned: unknown): void => {
  const problem = Given.undoneProblem(what, returned)
  if (problem !== undefined) throw problem
}

/**
 * Runs a handler; what it asked for by `retry` is the outcome, however it ended.
 *
 * @internal
 */
export const handle = (
  handler: (message: RotifMessage) => unknown,
  message: RotifMessage
): Effect.Effect<void, unknown> =>
  Effect.flatMap(
    Effect.exit(
      Effect.tryPromise({ try: async () => done("the handler", await handler(message)), catch: (error) => error })
    ),
    (exit): Effect.Effect<void, unknown> => {
      const wish = wishes.get(message)
      if (wish !== undefined && !Exit.hasInterrupts(exit)) return Effect.fail(wish)
      return Effect.asVoid(exit)
    }
  )

/**
 * Runs the handler of a batch, and returns the outcomes of its messages. What a message asked for by `retry` is its outcome, however the handler
 * ended. All others share the end of the handler.
 *
 * @internal
 */
export const handleBatch = (
  handler: (messages: ReadonlyArray<RotifMessage>) => unknown,
  messages: ReadonlyArray<RotifMessage>
): Effect.Effect<ReadonlyArray<Batch.Outcome<unknown>>> =>
  Effect.map(
    Effect.exit(
      Effect.tryPromise({ try: async () => done("the handler", await handler(messages)), catch: (error) => error })
    ),
    (exit) => {
      const shared = Exit.isSuccess(exit) ? Batch.ack : Batch.together(exit.cause)
      return messages.map((message) => {
        const wish = wishes.get(message)
        return wish === undefined ? shared : Batch.fail(wish)
      })
    }
  )

/**
 * The payload as it is stored; where that is no JSON, its text.
 *
 * @internal
 */
export const payloadOf = (raw: string): Payload =>
  Effect.runSync(Effect.orElseSucceed(Effect.try((): unknown => JSON.parse(raw)), () => raw))

/** @internal */
export const fromLetter = (letter: Offered): RotifMessage =>
  visible({
    id: letter.id,
    channel: letter.channel,
    payload: payloadOf(letter.raw),
    timestamp: DateTime.toEpochMillis(letter.publishedAt),
    attempt: letter.attempt,
    headers: letter.headers,
    orderingKey: letter.orderingKey,
    group: letter.group,
    error: letter.failure.message,
    ack: () => toPromise(letter.ack),
    retry: (delayMs) => toPromise(letter.nack({ delay: delayMs ?? 0 })),
    reject: () => toPromise(letter.keep)
  })
