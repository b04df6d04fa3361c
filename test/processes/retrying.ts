/**
 * A process that handles messages and fails each of them four times; to be killed at any moment. It notes every attempt in Redis before
 * it fails or succeeds.
 */
import { Data, Effect, Layer, Schema } from "effect"
import { Channel, Redis, Retry, Rotif, Subscription } from "rotif"

class NotYet extends Data.TaggedError("NotYet")<{}> {}

const { NOTES = "", PREFIX = "", REDIS_URL = "" } = process.env

const Jobs = Channel.make("jobs", { payload: Schema.Int })

const Worker = Layer.unwrap(Effect.gen(function*() {
  const notes = (yield* Redis.Redis).connection(NOTES)
  return Subscription.layer(Jobs, {
    group: "workers",
    concurrency: 8,
    lease: 400,
    maxCrashes: 1_000,
    retry: Retry.exponential(5, { times: 4 }),
    handler: ({ attempt, payload }) =>
      Effect.andThen(
        notes.send(["rpush", NOTES, `${payload} ${attempt}`], { idempotent: false }),
        attempt < 5 ? Effect.fail(new NotYet()) : Effect.void
      )
  })
}))

Effect.runFork(Layer.launch(
  Worker.pipe(Layer.provide([Rotif.layer({ url: REDIS_URL, prefix: PREFIX }), Redis.layer({ url: REDIS_URL })]))
))
