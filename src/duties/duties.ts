/** The background duties of a program: they run as long as the layer, each with a heartbeat. */
import { Clock, Context, Effect, Layer } from "effect"
import { Broker } from "../Broker.ts"
import { Heartbeat } from "../internal/heartbeat.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Duty } from "./duty.ts"
import * as Janitor from "./janitor.ts"
import * as Promoter from "./promoter.ts"
import * as Relayer from "./relay.ts"
import * as Ticker from "./ticker.ts"

export class Duties extends Context.Service<Duties, {
  readonly pulses: ReadonlyArray<Heartbeat>
}>()("rotif/Duties") {}

export const layer = (options: {
  /** Whether this process promotes what is due and publishes recurring messages. */
  readonly delayed: boolean
  /** In milliseconds. */
  readonly checkInterval: number
  readonly trimInterval: number
}): Layer.Layer<Duties, never, Broker> =>
  Layer.effect(
    Duties,
    Effect.gen(function*() {
      const broker = yield* Broker
      const clock = yield* Clock.Clock
      const pulses: Array<Heartbeat> = []
      const { checkInterval: checkMillis, delayed, trimInterval: trimMillis } = options
      const start = (
        name: string,
        shard: number,
        intervalMillis: number,
        run: Duty,
        waitMillis = broker.isPolled ? intervalMillis : Infinity
      ) => {
        const pulse = new Heartbeat(
          broker.shards === 1 ? name : `${name} of shard ${shard}`,
          intervalMillis,
          () => monotonicMillis(clock),
          broker.isPolled
        )
        pulses.push(pulse)
        return Effect.forkScoped(run(broker, shard, waitMillis, pulse))
      }
      for (let shard = 0; shard < broker.shards; shard++) {
        if (delayed) {
          yield* start("promoter", shard, checkMillis, Promoter.run)
          yield* start("ticker", shard, checkMillis, Ticker.run)
        }
        yield* start("janitor", shard, trimMillis, Janitor.run, trimMillis)
        // With one shard a transaction reaches every key, so there is no outbox.
        if (broker.shards > 1) yield* start("relayer", shard, checkMillis, Relayer.run)
      }
      return { pulses }
    })
  )
