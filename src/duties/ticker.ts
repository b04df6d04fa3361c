/**
 * The ticker publishes recurring messages when they are due. It sleeps until the next tick, and wakes when a definition changes. Every process
 * tries; the backend lets one of them publish each tick.
 */
import { DateTime, Effect, Fiber, Result } from "effect"
import type { Broker } from "../Broker.ts"
import { BrokerError } from "../Broker.ts"
import { windowOf } from "../broker/idWindow.ts"
import type { DueTicks } from "../broker/recurring.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import { pause } from "../internal/pause.ts"
import * as Recurrence from "../internal/recurrence.ts"
import { supervise } from "../internal/supervise.ts"

const batch = 100

/** A definition that cannot be published now is skipped for this long. */
const putOffMillis = 60_000

/** While there is such a definition, the time of the next tick is unknown: the ticks are read this often. */
const lookMillis = 500

/** The id of the message of one tick. */
const idOf = (key: string, atMillis: number) => `${key}@${DateTime.formatIso(DateTime.makeUnsafe(atMillis))}`

export const run = (
  broker: Broker["Service"],
  shard: number,
  intervalMillis: number,
  pulse: Heartbeat
): Effect.Effect<never> =>
  Effect.suspend(() => {
    /** Skipped definitions, until when by the clock of the backend. */
    const broken = new Map<string, number>()

    const publish = Effect.fnUntraced(function*(tick: DueTicks["ticks"][number], nowMillis: number) {
      const { channel, key, nextAtMillis: fromMillis, recurrence } = tick
      const plan = yield* Effect.fromResult(
        Result.flatMap(Recurrence.decode(recurrence), (ticks) => Recurrence.plan(ticks, fromMillis, nowMillis))
      ).pipe(Effect.mapError((message) => new BrokerError({ reason: "Refused", operation: "tick", message })))
      yield* broker.recurring.advance(shard, {
        key,
        channel,
        recurrence,
        fromMillis,
        nextAtMillis: plan.next,
        messages: plan.due.map((atMillis) => {
          const id = idOf(key, atMillis)
          return { id, window: windowOf(id) }
        })
      })
    })

    return supervise(
      `publishing recurring messages in shard ${shard}`,
      // The scope is one turn: its listener ends with it, also after a failure.
      Effect.scoped(Effect.gen(function*() {
        // Listening starts before reading: a change in between is not missed.
        const change = yield* Effect.forkScoped(broker.recurring.awaitChange(shard), { startImmediately: true })
        const { nextInMillis, nowMillis, ticks } = yield* broker.recurring.due(shard, batch + broken.size)
        for (const [key, untilMillis] of broken) if (untilMillis <= nowMillis) broken.delete(key)
        let progress = false
        for (const tick of ticks) {
          if (broken.has(tick.key)) continue
          // A definition that cannot be published must not hold up the ticks of others.
          const published = yield* Effect.result(publish(tick, nowMillis))
          if (Result.isSuccess(published)) {
            progress = true
          } else if (published.failure.reason === "Refused") {
            broken.set(tick.key, nowMillis + putOffMillis)
            yield* Effect.logError(
              `rotif: the recurring message "${tick.key}" cannot be published: ${published.failure.message}`
            )
          } else {
            return yield* published.failure
          }
        }
        if (!progress) {
          const wait = ticks.length > 0 ? lookMillis : nextInMillis ?? intervalMillis
          yield* Effect.raceFirst(Fiber.join(change), pause(Math.min(wait, intervalMillis)))
        }
      })),
      pulse
    )
  })
