/** The options of a subscription in batches, and their checks. */
import type { Duration } from "effect"
import { Effect } from "effect"
import type * as Batch from "../Batch.ts"
import type * as Channel from "../Channel.ts"
import type * as Message from "../Message.ts"
import type * as Retry from "../Retry.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Limits from "../internal/optionLimits.ts"
import type * as Middleware from "../middleware/definition.ts"
import type { BatchSizes } from "./batchQueue.ts"
import { prefetchOf } from "./capacity.ts"
import type { AttemptOptions } from "./options.ts"
import * as Settings from "./settings.ts"

/**
 * Options of a subscription in batches: those of a subscription, but that its handler gets many messages, and `concurrency` counts batches. `E` are
 * the errors of the handler, `F` those of its outcomes.
 *
 * @category models
 * @since 0.1.0
 */
export interface BatchOptions<
  S extends Channel.Source,
  E,
  R,
  Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false,
  F = E
> extends AttemptOptions<S, E | F, Ms, Transactional> {
  /** At most this many messages are in a batch, from 1 to 10,000. A batch begins when it is full. */
  readonly size: number
  /** A batch that is not full begins this long after its first message came, and at once with 0. Default 100 ms, at most 1 hour. */
  readonly within?: Duration.Input | undefined
  /**
   * Handles a batch: one message or more, in the order of arrival. If it succeeds with nothing, all are acknowledged. With a Map of messages to
   * outcomes (`Batch.ack`, `nack`, `later`, `term`, `fail`), each gets its own, and what is missing is acknowledged. If it fails or dies, the
   * attempt counts for each message, and all come again in smaller batches.
   */
  readonly handler: (
    messages: ReadonlyArray<Message.Message<S>>
  ) => Effect.Effect<Batch.Outcomes<S, F> | void, E, R>
  /** How many batches run at a time. Default 1. At most `size × concurrency + prefetch` messages are held. */
  readonly concurrency?: number | undefined
  /** How long the handler of one batch may take; then it fails with `TimeoutError`. Default: no limit. */
  readonly timeout?: Duration.Input | undefined
}

/** At most this many messages of a transactional batch are acknowledged by one script, so that it does not hold up others for long. */
const mostTogether = 200
/** A transactional batch takes at most this many characters of payloads, or one payload. */
const charactersTogether = 4 * 2 ** 20

export type BatchSettings<E, M extends Retry.MessageInfo> = Effect.Success<ReturnType<typeof make<E, M>>>

/** The options without those that only a subscription in batches has. */
type Given<E, M extends Retry.MessageInfo> =
  & Parameters<typeof Settings.make<E, M>>[1]
  & Pick<BatchOptions<Channel.Any, never, never>, "size" | "within">

/** Checks the options of a subscription in batches: nothing is started with one that cannot be used. */
export const make = Effect.fnUntraced(function*<E, M extends Retry.MessageInfo>(
  source: Channel.Source,
  options: Given<E, M>,
  defaults: Settings.ProgramDefaults,
  policies: Retry.Retry
) {
  yield* Settings.option(Given.record("the options", options))
  const { size: givenSize, within, ...rest } = options
  if (rest.ackMode !== undefined) {
    return yield* Settings.invalid(
      "ackMode",
      "a batch has no ackMode: what its handler gives no outcome is acknowledged when it succeeds"
    )
  }
  const settings = yield* Settings.make(source, rest, defaults, policies)
  const size = yield* Settings.option(Given.count("size", givenSize ?? Number.NaN, Limits.batchSize))
  const withinMillis = yield* Settings.option(Given.span("within", within, Limits.batchWithin))
  const { isTransactional, maxRetries } = settings
  if (isTransactional && size > mostTogether) {
    return yield* Settings.invalid(
      "size",
      `a transactional batch is settled by one script: its size is at most ${mostTogether}, not ${size}`
    )
  }
  const { concurrency } = settings.consumer
  const sizes: BatchSizes = {
    size,
    withinNanos: BigInt(Math.ceil(withinMillis * 1e6)),
    maxRetries,
    mostCharacters: isTransactional ? charactersTogether : Infinity,
    isPerShard: isTransactional
  }
  return {
    ...settings,
    sizes,
    consumer: { ...settings.consumer, prefetch: prefetchOf(options.prefetch, concurrency * size, false) }
  }
})
