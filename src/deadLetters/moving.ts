/** Moves dead letters: requeues them to the group that failed, or deletes them. */
import { Effect, Result, Schema } from "effect"
import type { Broker } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import type { Filter } from "../DeadLetter.ts"
import { InvalidDeadLetterOption } from "../DeadLetter.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Shape from "../internal/optionShape.ts"
import * as Envelope from "../publisher/envelope.ts"
import { PayloadTooLarge } from "../publisher/outcome.ts"
import type { Edit, RequeueAllOptions } from "./options.ts"
import { read } from "./options.ts"
import * as Query from "./query.ts"

/**
 * The letter is of another channel than the edited payload. Nothing was moved.
 *
 * @category errors
 * @since 0.1.0
 */
export class WrongChannel extends Schema.TaggedError<WrongChannel>()("WrongChannel", {
  letterId: Schema.String,
  /** The channel of the letter. */
  channel: Schema.String,
  /** The channel of the edit. */
  given: Schema.String
}) {
  override get message() {
    return `dead letter ${this.letterId} is of channel "${this.channel}", the edited payload of "${this.given}": edit it with its own channel`
  }
}

const requeueAllShape = Shape.shape<RequeueAllOptions>()({
  limit: (option, value = Number.NaN) =>
    Given.count(option, value as number, { usual: 0, least: 1, most: Number.MAX_SAFE_INTEGER }),
  rate: (option, value) =>
    value === undefined || (typeof value === "number" && value > 0)
      ? Result.succeed(value)
      : Given.refuse(option, "a number of letters a second above 0", value),
  dryRun: Shape.flag(false),
  onProgress: Shape.func
})

/** Requires a filter, because a forgotten one must not mean all letters. */
const required = (filter: Filter): Effect.Effect<Filter, InvalidDeadLetterOption> => {
  const problem = Query.filterProblem(filter)
  return problem === undefined
    ? Effect.succeed(filter)
    : Effect.fail(new InvalidDeadLetterOption({ option: "filter", message: problem }))
}

/** `largest` is the limit of an edited payload, in bytes. */
export const make = (broker: Broker["Service"], largest: number) => {
  const store = broker.letters

  const requeue = Effect.fnUntraced(function*<C extends Channel.Any>(letterId: string, edit?: Edit<C>) {
    const place = yield* Query.placeOf(broker, letterId)
    if (place === undefined) return false
    let payload: string | undefined
    if (edit !== undefined) {
      yield* read(Given.record("edit", edit))
      const letter = yield* store.get(place.shard, place.letterId)
      if (letter === undefined) return false
      const { name } = Channel.isChannel(edit.channel)
        ? edit.channel
        : yield* read(Given.refuse("edit.channel", "made by Channel.make", edit.channel))
      if (letter.channel !== name) return yield* new WrongChannel({ letterId, channel: letter.channel, given: name })
      payload = yield* Channel.encode(edit.channel, edit.payload)
      const bytes = Envelope.bytesAbove(largest, { payload })
      if (bytes !== undefined) return yield* new PayloadTooLarge({ channel: name, bytes, limit: largest })
    }
    return (yield* store.requeue(place.shard, [{ letterId: place.letterId, payload }])).length > 0
  })

  const requeueAll = Effect.fnUntraced(function*(filter: Filter, options: RequeueAllOptions) {
    const { dryRun, limit, onProgress, rate } = yield* read(requeueAllShape.required("the options", options))
    // About ten batches a second, so that a rate is kept evenly.
    const batch = rate === undefined || dryRun ? 100 : Math.max(1, Math.min(100, Math.floor(rate / 10)))
    return yield* Query.sweep(
      store,
      yield* Query.make(broker, yield* required(filter)),
      limit,
      batch,
      (shard, letterIds) =>
        dryRun
          ? Effect.succeed(0)
          : Effect.map(store.requeue(shard, letterIds.map((letterId) => ({ letterId }))), (moved) => moved.length),
      (progress, size) =>
        Effect.andThen(
          onProgress === undefined ? Effect.void : Given.effect("onProgress", () => onProgress(progress)),
          rate === undefined || dryRun || progress.matched >= limit
            ? Effect.void
            : Effect.sleep((size / rate) * 1000)
        )
    )
  })

  const remove = Effect.fnUntraced(function*(letterId: string) {
    const place = yield* Query.placeOf(broker, letterId)
    if (place === undefined) return false
    return (yield* store.remove(place.shard, [place.letterId])).length > 0
  })

  const purge = Effect.fnUntraced(function*(filter: Filter) {
    const { moved } = yield* Query.sweep(
      store,
      yield* Query.make(broker, yield* required(filter)),
      Number.MAX_SAFE_INTEGER,
      100,
      (shard, letterIds) => Effect.map(store.remove(shard, letterIds), (removed) => removed.length),
      () => Effect.void
    )
    return moved
  })

  return { requeue, requeueAll, remove, purge }
}
