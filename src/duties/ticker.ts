/**
 * The ticker publishes recurring messages when they are due. It sleeps until the next tick, and wakes when a definition changes. Every process
 * tries; the backend lets one of them publish each tick.
 */
import { DateTime, Effect, Result } from "effect"
import { BrokerError } from "../Broker.ts"
import { windowOf } from "../broker/idWindow.ts"
import type { DueTicks } from "../broker/recurring.ts"
import * as Recurrence from "../internal/recurrence.ts"
import type { Duty } from "./duty.ts"
import { turns } from "./duty.ts"

const batch = 100

/** A definition that cannot be published now is skipped for this long. */
const putOffMillis = 60_000

/** While there is such a definition, the time of the next tick is unknown: the ticks are read this often. */
const lookMillis = 500

/** The id of the message of one tick. */
const idOf = (key: string, atMillis: number) => `${key}@${DateTime.formatIso(DateTime.makeUnsafe(atMillis))}`

export const run: Duty = (broker, shard, intervalMillis, pulse) =>
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

    const work = Effect.gen(function*() {
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
      if (progress) return 0
      return ticks.length > 0 ? lookMillis : nextInMillis === 0 ? 1 : nextInMillis
    })
    return turns(`publishing recurring messages in shard ${shard}`, {
      intervalMillis,
      pulse,
      signal: broker.recurring.awaitChange(shard),
      work
    })
  })
