/** Hands offered letters to the handler of a subscription to dead letters, and decides what becomes of them afterwards. */
import type { Scope } from "effect"
import { Cause, Duration, Effect } from "effect"
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
import * as Asking from "../internal/policyCalls.ts"
import * as Reports from "../internal/reports.ts"
import { paceMillis } from "../internal/settlement.ts"
import type { Query } from "./query.ts"
import * as Reader from "./reader.ts"

export interface Options<E, R> extends Omit<Reader.Options<R>, "handle" | "shards"> {
  readonly query: Query
  readonly source: Channel.Source | undefined
  readonly retry: Retry.Policy<unknown> | undefined
  /** The payload's schema and the handler belong to the same source, which nothing here knows. */
  readonly handler: (letter: never) => Effect.Effect<unknown, E, R>
}

/** The default pause before a letter is offered again whose handler failed. */
const defaultRetry = Retry.exponential("1 second", { max: "5 minutes" })

/** When a letter is offered again: "at once" is paced, so that it cannot make a busy loop. */
const againIn = (millis: number, offerCount: number): Reader.Outcome => ({
  outcome: "again",
  millis: millis > 0 ? millis : paceMillis(offerCount)
})

/** A release takes the offer back, so that no count of offers could pace it. */
const released: Reader.Outcome = { outcome: "release", millis: Given.safeDelayMillis }

const code = new Set(["ack", "keep", "nack", "requeue", "settled"])
const visible = <L extends Offered>(letter: L): L => showAs(letter, () => withoutCode(letter, code))

const offeredOf = (store: LetterStore, desk: Reader.Desk, name: string): Offered =>
  visible({
    ...fromLetter(desk.shard, desk.offer.letter),
    offerCount: desk.offer.offerCount,
    ack: desk.conclude({ outcome: "remove" }),
    keep: desk.conclude({ outcome: "keep" }),
    nack: (options) =>
      Effect.flatMap(
        givenDelay(options, `of dead letter ${desk.offer.letter.letterId} by "${name}"`),
        (millis) => desk.conclude(againIn(millis, desk.offer.offerCount))
      ),
    // A message that always dies and is always sent back is paced, too; the letter is leased meanwhile.
    requeue: Effect.sleep(paceMillis(desk.offer.letter.history.length + 1)).pipe(
      Effect.andThen(store.requeue(desk.shard, [{ letterId: desk.offer.letter.letterId }])),
      Effect.flatMap((moved) => Effect.as(desk.conclude({ outcome: "keep" }), moved.length > 0))
    ),
    settled: desk.settled
  })

/** Runs the subscription in the current scope. */
export const run = <E, R>(options: Options<E, R>): Effect.Effect<Ending, never, R | Scope.Scope> => {
  const { name, query, source, store } = options
  const decoderFor = source === undefined ? undefined : Channel.decoderFor(source)
  const policy = options.retry ?? defaultRetry
  const handler = options.handler as (letter: unknown) => Effect.Effect<unknown, E, R>

  const answerOf = Asking.make(`"${name}"`)

  /** A letter is offered again and again: told at its offers 1, 2, 4, 8, …. */
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
        // It must not become a busy loop.
        { outcome: "again", millis: 60_000 } satisfies Reader.Outcome
      ),
      () => tell(letter, "failed on", cause)
    )

  return Reader.run({
    ...options,
    shards: query.shards,
    handle: (desk) => {
      const { letter } = desk.offer
      if (!query.matches(letter)) return Effect.succeed<Reader.Outcome>({ outcome: "keep" })
      const offered = offeredOf(store, desk, name)
      const decode = decoderFor?.(letter.channel) as
        | ((text: string) => Effect.Effect<unknown, Channel.InvalidPayload, R>)
        | undefined
      const handled = decode === undefined
        ? Given.effect(`the handler of "${name}"`, () => handler(offered))
        : Effect.flatMap(
          Effect.result(decode(letter.payload)),
          (payload) => Given.effect(`the handler of "${name}"`, () => handler(visible({ ...offered, payload })))
        )
      // What the handler has opened is closed before its letter is concluded.
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
