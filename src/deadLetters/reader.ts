/**
 * The engine of a subscription to dead letters: workers that each lease one letter, hand it to a handler, and conclude the offer.
 *
 * Dead letters are few. So a worker asks for one letter at a time, and nothing waits in the process beside what is being handled.
 */
import type { Option, Scope } from "effect"
import { Deferred, Effect, Exit, Fiber, Schedule, Semaphore } from "effect"
import type { BrokerError } from "../Broker.ts"
import { OfferLost } from "../DeadLetter.ts"
import type { Conclusion, LetterStore, Offer } from "../broker/deadLetters.ts"
import type { Ending } from "../internal/ending.ts"
import { tellSlowLetter } from "../internal/reports.ts"
import { supervise } from "../internal/supervise.ts"
import * as Workers from "../internal/workers.ts"

const isLost = (error: Option.Option<unknown>) => error._tag === "Some" && error.value instanceof OfferLost

export type Outcome = Pick<Conclusion, "outcome" | "millis">

/** A letter that is leased to this process, with its offer. */
export interface LeasedLetter {
  readonly shard: number
  readonly offer: Offer
  /** Whether the offer has been concluded. */
  readonly isSettled: () => boolean
  readonly settled: Effect.Effect<void>
  /** Concludes the offer; the first conclusion counts. It waits while the backend is unavailable. */
  readonly conclude: (outcome: Outcome) => Effect.Effect<void, OfferLost | BrokerError>
}

export interface Options<R> {
  readonly store: LetterStore
  readonly shards: ReadonlyArray<number>
  readonly name: string
  readonly start: "earliest" | "latest"
  readonly concurrency: number
  readonly leaseMillis: number
  /** A handler that runs for longer is reported once. */
  readonly slowMillis: number
  /** Fallback poll interval, in case a notification is lost. */
  readonly checkMillis: number
  /** The end waits for running handlers for at most this long, then interrupts them. */
  readonly drainMillis: number
  /** Runs the handler; its result concludes an offer that the handler left open. It is interrupted when the lease is lost. */
  readonly handle: (leased: LeasedLetter) => Effect.Effect<Outcome, never, R>
}

const patient = Schedule.jittered(Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")]))

const leasedLetter = (options: Options<unknown>, shard: number, offer: Offer): LeasedLetter => {
  const { name, store } = options
  const { letterId } = offer.letter
  const settled = Deferred.makeUnsafe<void>()
  let isSettled = false
  // A conclusion was sent and its reply lost: if the next one is refused, the lost one took effect.
  let uncertain = false
  return {
    shard,
    offer,
    isSettled: () => isSettled,
    settled: Deferred.await(settled),
    conclude: (outcome) =>
      Effect.suspend(() => {
        if (isSettled) return Deferred.await(settled)
        isSettled = true
        return store.conclude(shard, name, [{ letterId, token: offer.token, ...outcome }]).pipe(
          Effect.tapError((error) =>
            Effect.sync(() => {
              uncertain = uncertain || error.reason === "Uncertain"
            })
          ),
          Effect.retry({ schedule: patient, while: (error) => error.isRetryable }),
          Effect.flatMap((refused) =>
            refused.length > 0 && !uncertain ? Effect.fail(new OfferLost({ letterId, name })) : Effect.void
          ),
          Effect.onExit((exit) =>
            Effect.suspend(() => {
              uncertain = uncertain || Exit.hasInterrupts(exit)
              // After an error of the backend it is still open.
              isSettled = Exit.isSuccess(exit) || Exit.findErrorOption(exit).pipe(isLost)
              return isSettled ? Deferred.succeed(settled, undefined) : Effect.void
            })
          )
        )
      })
  }
}

/**
 * Starts the workers in the current scope. When it ends they finish the letters they have; a handler that takes too long is interrupted, and
 * its letter is offered again at once.
 */
export const run = Effect.fnUntraced(function*<R>(
  options: Options<R>
): Effect.fn.Return<Ending, never, R | Scope.Scope> {
  const { concurrency, leaseMillis, name, shards, store } = options
  const permits = yield* Semaphore.make(concurrency)

  /** Renews the lease of an offer for as long as it is open; ends when it is lost. */
  const renewed = (leased: LeasedLetter) =>
    Effect.suspend(() => {
      const { letter, token } = leased.offer
      const renewal: Conclusion = { letterId: letter.letterId, token, outcome: "renew", millis: leaseMillis }
      let millis = 0
      let isSlow = false
      const tellSlow = Effect.suspend(() => {
        millis += leaseMillis / 3
        if (isSlow || millis <= options.slowMillis) return Effect.void
        isSlow = true
        return tellSlowLetter(name, letter, millis)
      })
      return Effect.sleep(leaseMillis / 3).pipe(
        Effect.andThen(tellSlow),
        Effect.andThen(Effect.suspend(() =>
          leased.isSettled() ?
            Effect.succeed([]) :
            Effect.catch(
              store.conclude(leased.shard, name, [renewal]),
              (error) =>
                Effect.as(Effect.logWarning(`rotif: the lease of a dead letter was not renewed: ${error.message}`), [])
            )
        )),
        Effect.repeat({
          until: (refused: ReadonlyArray<string>) => refused.length > 0 && !leased.isSettled()
        }),
        Effect.andThen(Effect.logWarning(`rotif: "${name}" lost its lease on dead letter ${letter.letterId}`))
      )
    })

  const finish = (leased: LeasedLetter, outcome: Outcome) =>
    leased.isSettled()
      ? Effect.void
      : Effect.catch(leased.conclude(outcome), (error) =>
        Effect.logWarning(`rotif: an offer of a dead letter was not concluded: ${error.message}`))

  /** Takes one letter and handles it. Returns whether there was one, and when there may be another. */
  const takeOne = (shard: number, work: Workers.Wrappers["work"]) =>
    Effect.acquireUseRelease(
      Effect.map(store.offer(shard, { name, limit: 1, leaseMillis, start: options.start }), (answer) => ({
        ...answer,
        leased: answer.offers.length === 0 ? undefined : leasedLetter(options, shard, answer.offers[0]!)
      })),
      ({ leased, nextInMillis }) =>
        leased === undefined
          ? Effect.succeed({ took: false, nextInMillis })
          : work(Effect.raceFirst(
            Effect.flatMap(options.handle(leased), (outcome) => finish(leased, outcome)),
            renewed(leased)
          )).pipe(Effect.as({ took: true, nextInMillis })),
      ({ leased }, exit) =>
        leased === undefined || Exit.isSuccess(exit)
          ? Effect.void
          : Effect.ignore(Effect.timeoutOption(finish(leased, { outcome: "release" }), 2_000))
    )

  const look = (shard: number, work: Workers.Wrappers["work"]) =>
    Effect.acquireUseRelease(
      // Listening starts before reading: a letter that arrives in between is not missed.
      Effect.forkChild(store.awaitLetter(shard), { startImmediately: true }),
      (arrived) =>
        Effect.flatMap(permits.withPermit(takeOne(shard, work)), ({ nextInMillis, took }) =>
          took
            ? Effect.void
            : Effect.raceFirst(
              Fiber.join(arrived),
              Effect.sleep(Math.min(nextInMillis ?? options.checkMillis, options.checkMillis))
            )),
      Fiber.interrupt
    )

  return yield* Workers.start({
    drainMillis: options.drainMillis,
    loops: ({ turn, work }) =>
      shards.flatMap((shard) =>
        Array.from(
          { length: concurrency },
          () => supervise(`reading dead letters of shard ${shard} for "${name}"`, turn(look(shard, work)))
        )
      )
  })
})
