/**
 * A chain of transactions, A → B → C, to be killed. `node --conditions=rotif-source chain.ts`, with the options of the layer in the
 * environment variable JOB, is one consumer of all three steps.
 */
import { Effect, Layer, Logger, Schema } from "effect"
import { writeSync } from "node:fs"
import { Channel, Rotif, Subscription, Transaction } from "rotif"

const payload = Schema.Int
export const A = Channel.make("chain.a", { payload })
export const B = Channel.make("chain.b", { payload })
export const C = Channel.make("chain.c", { payload })

/** The counter of each message at the end of the chain; a second run would show in it. */
export const effectOf = (n: number) => `effect:${n}`

const common = { transactional: true, lease: "1 second", concurrency: 16, maxCrashes: 100_000 } as const

/** The counter of the transactions of a channel's step. */
export const countOf = (channel: Channel.Any) => `count:${channel.name}`

const count = (channel: Channel.Any) =>
  Effect.flatMap(Transaction.key(countOf(channel)), (key) => Transaction.incrby(key, 1))

const steps = Layer.mergeAll(
  Subscription.layer(A, {
    ...common,
    group: "a",
    handler: (message) => Effect.andThen(Transaction.publish(B, message.payload), count(A))
  }),
  Subscription.layer(B, {
    ...common,
    group: "b",
    handler: (message) => Effect.andThen(Transaction.publish(C, message.payload), count(B))
  }),
  Subscription.layer(C, {
    ...common,
    group: "c",
    handler: (message) =>
      Effect.andThen(
        Effect.flatMap(Transaction.key(effectOf(message.payload)), (key) => Transaction.incrby(key, 1)),
        count(C)
      )
  })
)

const job = process.env["JOB"]
if (import.meta.main && job !== undefined) {
  const program = Effect.scoped(
    Effect.gen(function*() {
      yield* Layer.build(Layer.provide(steps, Rotif.layer(JSON.parse(job) as Rotif.RedisOptions)))
      writeSync(1, `{"event":"ready"}\n`)
      yield* Effect.never
    })
  )
  // This process is made to fail; the run reports the outcome.
  await Effect.runPromise(Effect.provide(program, Logger.layer([])))
}
