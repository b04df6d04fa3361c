/** A subscription to dead letters: its options, its handler, and the outcome of each offer. */
import type { Scope } from "effect"
import { Cause, Duration, Effect } from "effect"
import type { Broker } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import type { Offered } from "../DeadLetter.ts"
import { fromLetter } from "../DeadLetter.ts"
import { givenDelay } from "../Message.ts"
import * as Retry from "../Retry.ts"
import type { LetterStore } from "../broker/deadLetters.ts"
import type { Ending } from "../internal/ending.ts"
import { pretty } from "../internal/failure.ts"
import { showAs, withoutCode } from "../internal/inspected.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Limits from "../internal/optionLimits.ts"
import * as Shape from "../internal/optionShape.ts"
import * as Asking from "../internal/policyCalls.ts"
import * as Reports from "../internal/reports.ts"
import { paceMillis } from "../internal/settlement.ts"
import type { SubscribeOptions } from "./options.ts"
import { read } from "./options.ts"
import * as Query from "./query.ts"
import * as Reader from "./reader.ts"

interface Options<E, R> extends Omit<Reader.Options<R>, "handle" | "shards"> {
  readonly query: Query.Query
  readonly source: Channel.Source | undefined
  readonly retry: Retry.Policy<unknown> | undefined
  /** Its letters have the payload of `source`; the types of this room do not know it. */
  readonly handler: (letter: never) => Effect.Effect<unknown, E, R>
}

/** The default delay before a letter is offered again after its handler failed. */
const defaultRetry = Retry.exponential("1 second", { max: "5 minutes" })

/** Offers a letter again after this long. A delay of 0 is paced, so that it cannot make a busy loop. */
const againIn = (millis: number, offerCount: number): Reader.Outcome => ({
  outcome: "again",
  millis: millis > 0 ? millis : paceMillis(offerCount)
})

/** A release takes the offer back, so it is not counted; a fixed delay paces it. */
const released: Reader.Outcome = { outcome: "release", millis: Given.safeDelayMillis }

const code = new Set(["ack", "keep", "nack", "requeue", "settled"])
const visible = <L extends Offered>(letter: L): L => showAs(letter, () => withoutCode(letter, code))

const offeredOf = (store: LetterStore, leased: Reader.LeasedLetter, name: string): Offered =>
  visible({
    ...fromLetter(leased.shard, leased.offer.letter),
    offerCount: leased.offer.offerCount,
    ack: leased.conclude({ outcome: "remove" }),
    keep: leased.conclude({ outcome: "keep" }),
    nack: (options) =>
      Effect.flatMap(
        givenDelay(options, `of dead letter ${leased.offer.letter.letterId} by "${name}"`),
        (millis) => leased.conclude(againIn(millis, leased.offer.offerCount))
      ),
    // A message that always dies and is always requeued is paced, too; the letter is leased meanwhile.
    requeue: Effect.sleep(paceMillis(leased.offer.letter.history.length + 1)).pipe(
      Effect.andThen(store.requeue(leased.shard, [{ letterId: leased.offer.letter.letterId }])),
      Effect.flatMap((moved) => Effect.as(leased.conclude({ outcome: "keep" }), moved.length > 0))
    ),
    settled: leased.settled
  })

const run = <E, R>(options: Options<E, R>): Effect.Effect<Ending, never, R | Scope.Scope> => {
  const { name, query, source, store } = options
  const decoderFor = source === undefined ? undefined : Channel.decoderFor(source)
  const policy = options.retry ?? defaultRetry
  const handler = options.handler as (letter: unknown) => Effect.Effect<unknown, E, R>

  const answerOf = Asking.make(`"${name}"`)

  /** Logs a letter that is offered again and again, at its offers 1, 2, 4, 8, …. */
  const tell = (letter: Offered, what: string, cause?: Cause.Cause<E>) =>
    Reports.isTold(letter.offerCount)
      ? Effect.logWarning(
        `rotif: "${name}" ${what} dead letter ${letter.letterId} of group "${letter.group}" on "${letter.channel}" (offer ${letter.offerCount})`,
        ...(cause === undefined ? [] : [pretty(cause)])
      )
      : Effect.void

  const again = (letter: Offered, cause: Cause.Cause<E>): Effect.Effect<Reader.Outcome> =>
    Effect.tap(
      answerOf(
        Effect.map(
          Retry.decide(policy, { attempt: letter.offerCount, error: Cause.squash(cause), message: letter }),
          (verdict): Reader.Outcome =>
            verdict?._tag === "Retry"
              ? againIn(Duration.toMillis(verdict.delay), letter.offerCount)
              : verdict?._tag === "Release"
              ? released
              : { outcome: "keep" }
        ),
        // A short delay here could become a busy loop.
        { outcome: "again", millis: 60_000 } satisfies Reader.Outcome
      ),
      () => tell(letter, "failed on", cause)
    )

  return Reader.run({
    ...options,
    shards: query.shards,
    handle: (leased) => {
      const { letter } = leased.offer
      if (!query.matches(letter)) return Effect.succeed<Reader.Outcome>({ outcome: "keep" })
      const offered = offeredOf(store, leased, name)
      const decode = decoderFor?.(letter.channel) as
        | ((text: string) => Effect.Effect<unknown, Channel.InvalidPayload, R>)
        | undefined
      const handled = decode === undefined
        ? Given.effect(`the handler of "${name}"`, () => handler(offered))
        : Effect.flatMap(
          Effect.result(decode(letter.payload)),
          (payload) => Given.effect(`the handler of "${name}"`, () => handler(visible({ ...offered, payload })))
        )
      // The scope of the handler is closed before its letter is concluded.
      return Effect.matchCauseEffect(Effect.scoped(Given.contained(handled)), {
        onFailure: (cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.as(tell(offered, "was interrupted on"), released)
            : again(offered, cause),
        onSuccess: () => Effect.succeed<Reader.Outcome>({ outcome: "keep" })
      })
    }
  })
}

const shape = Shape.shape<SubscribeOptions<never, unknown, unknown>>()({
  name: (option, value = "dead-letters") => Given.name(option, value),
  group: Shape.any,
  startFrom: Shape.choice("earliest", "latest"),
  concurrency: Shape.count({ usual: 1, least: 1, most: 1_000 }),
  slowHandler: Shape.span(Limits.slowHandler),
  lease: Shape.span(Limits.lease),
  checkInterval: Shape.span(Limits.checkInterval),
  drainTimeout: Shape.optional(Shape.span(Limits.drainTimeout)),
  handler: Shape.handler,
  // It may be a name of the policies of the program.
  retry: Shape.any
})

/** Settings of the layer that a subscription falls back to. */
export interface Shared {
  readonly drainMillis: number
  readonly policies: Retry.Retry
}

/** Starts a subscription in the current scope; fails if an option cannot be used. */
export const start = Effect.fnUntraced(function*<E, R>(
  broker: Broker["Service"],
  source: Channel.Source | undefined,
  options: SubscribeOptions<never, E, R>,
  { drainMillis, policies }: Shared
) {
  if (source !== undefined) yield* read(Channel.checkSource("source", source))
  const { group, name, ...given } = yield* read(shape.required("the options", options))
  return yield* run({
    store: broker.letters,
    source,
    name,
    query: yield* Query.make(broker, { channel: source, group }),
    start: given.startFrom,
    concurrency: given.concurrency,
    slowMillis: given.slowHandler,
    leaseMillis: given.lease,
    checkMillis: given.checkInterval,
    drainMillis: given.drainTimeout ?? drainMillis,
    retry: yield* read(Retry.resolve("retry", given.retry, Retry.within(yield* Retry.Retry, policies))),
    handler: options.handler
  })
})
