/** A process that handles messages, many of which fail and some become dead letters; to be killed at any moment. */
import { Data, Effect, Layer, Schedule, Schema } from "effect"
import { Channel, Rotif, Subscription } from "rotif"

class NotYet extends Data.TaggedError("NotYet")<{}> {}

const { GROUP = "", PREFIX = "", REDIS_URL = "" } = process.env

const Jobs = Channel.make("jobs", { payload: Schema.Int })

const Worker = Subscription.layer(Jobs, {
  group: GROUP,
  concurrency: 16,
  lease: 400,
  maxCrashes: 1_000,
  // One of the groups acknowledges by key, the others plainly.
  exactlyOnce: GROUP === "once",
  retry: Schedule.spaced(20).pipe(Schedule.upTo({ times: 2 })),
  handler: Effect.fnUntraced(function*(message) {
    const { attempt, payload } = message
    yield* Effect.sleep(1)
    if (payload % 17 === 0) return yield* message.term("hopeless")
    if (payload % 11 === 0 || (payload % 7 === 0 && attempt < 3)) return yield* Effect.fail(new NotYet())
  })
})

Effect.runFork(Layer.launch(Worker.pipe(Layer.provide(Rotif.layer({ url: REDIS_URL, prefix: PREFIX })))))
