/** A duty of one shard: it runs for ever, in turns. After each turn it has a heartbeat. */
import { Effect, Fiber } from "effect"
import type { Broker, BrokerError } from "../Broker.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import { pause } from "../internal/pause.ts"
import { supervise } from "../internal/supervise.ts"

export type Duty = (
  broker: Broker["Service"],
  shard: number,
  intervalMillis: number,
  pulse: Heartbeat
) => Effect.Effect<never>

/**
 * Runs turns for ever. `work` returns how long there is nothing more to do, `undefined` if that is unknown. The next turn comes after that time,
 * when `signal` completes, or after the interval: the fallback for a lost signal.
 */
export const turns = (name: string, { intervalMillis, pulse, signal, work }: {
  readonly intervalMillis: number
  readonly pulse: Heartbeat | undefined
  readonly signal: Effect.Effect<void>
  readonly work: Effect.Effect<number | undefined, BrokerError>
}): Effect.Effect<never> =>
  supervise(
    name,
    // The scope is one turn: its listener ends with it, also after a failure.
    Effect.scoped(Effect.gen(function*() {
      // Listening starts before the work: what arrives in between is not missed.
      const arrived = yield* Effect.forkScoped(signal, { startImmediately: true })
      const restMillis = (yield* work) ?? intervalMillis
      if (restMillis > 0) yield* Effect.raceFirst(Fiber.join(arrived), pause(Math.min(restMillis, intervalMillis)))
    })),
    pulse
  )
