/**
 * Effect's `PersistedQueue` on Redis, over ioredis like everybody here.
 */
import { Effect, Layer, ManagedRuntime, Schedule, Schema } from "effect"
import { PersistedQueue, Redis as EffectRedis } from "effect/persistence"
import { Redis } from "ioredis"
import { batch, type Consume, type Open, type Payload as Message } from "./peer.ts"

const Payload = Schema.Struct({
  id: Schema.Int,
  at: Schema.Finite,
  note: Schema.String,
  tags: Schema.Array(Schema.String)
})

const sendWith = (client: Redis) => <A = unknown>(command: string, ...args: ReadonlyArray<string>) =>
  Effect.tryPromise({
    try: () => client.call(command, ...args) as Promise<A>,
    catch: (cause) => new EffectRedis.RedisError({ cause })
  })

const layerRedis = (port: number) =>
  Layer.effect(
    EffectRedis.Redis,
    Effect.gen(function*() {
      const make = () => new Redis({ port, host: "127.0.0.1" })
      const client = yield* Effect.acquireRelease(Effect.sync(make), (c) => Effect.sync(() => c.disconnect()))
      return yield* EffectRedis.make({
        send: sendWith(client),
        connect: Effect.sync(() => {
          const own = make()
          return { send: sendWith(own), close: Effect.sync(() => own.disconnect()) }
        }),
        subscribe: () => Effect.die(new Error("nobody subscribes here"))
      })
    })
  )

export const open: Open = async (port, name) => {
  const runtime = ManagedRuntime.make(
    PersistedQueue.layer.pipe(
      Layer.provide(PersistedQueue.layerStoreRedis({ prefix: name, pollInterval: "20 millis" })),
      Layer.provide(layerRedis(port))
    )
  )
  const queue = await runtime.runPromise(
    PersistedQueue.make({ name: "q", schema: Payload, retrySchedule: Schedule.spaced(0) })
  )
  const concurrent = (payloads: ReadonlyArray<Message>, concurrency: number) =>
    runtime.runPromise(Effect.forEach(payloads, (payload) => queue.offer(payload), { concurrency, discard: true }))
  const body = ({ handle, hold, waitMillis }: Consume) => (payload: Message) =>
    Effect.gen(function*() {
      const done = handle(payload)
      if (waitMillis > 0) yield* Effect.sleep(waitMillis)
      if (hold !== undefined) yield* Effect.promise(() => hold)
      if (!done) yield* Effect.fail("again")
    })
  return {
    one: (payload) => runtime.runPromise(queue.offer(payload)),
    sequential: (payloads) => concurrent(payloads, 1),
    concurrent,
    bulk: (payloads) => concurrent(payloads, batch),
    schedule: (payloads) =>
      runtime.runPromise(
        Effect.forEach(payloads, (payload) => queue.offer(payload, { delay: "1 day" }), {
          concurrency: batch,
          discard: true
        })
      ),
    consume: async (options) => {
      const run = body(options)
      const loop = Effect.forever(Effect.catch(queue.take(run), () => Effect.void))
      const stop = new AbortController()
      const fibers = runtime.runPromiseExit(
        Effect.forEach(Array.from({ length: options.concurrency }), () => loop, {
          concurrency: "unbounded",
          discard: true
        }),
        { signal: stop.signal }
      )
      return async () => {
        // The last handlers are done; their settlements are on their way.
        await new Promise((resolve) => setTimeout(resolve, 20))
        stop.abort()
        await fibers
      }
    },
    close: () => runtime.dispose()
  }
}
