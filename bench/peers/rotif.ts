/**
 * Rotif with a schema, as a program of Effect uses it.
 */
import { Deferred, Effect, Exit, Layer, ManagedRuntime, Schedule, Schema, Scope } from "effect"
import { Channel, Publisher, Rotif, Subscription } from "../../src/index.ts"
import type { Open, Payload as Message } from "./peer.ts"

export const Payload = Schema.Struct({
  id: Schema.Int,
  at: Schema.Finite,
  note: Schema.String,
  tags: Schema.Array(Schema.String)
})

export const Bench = Channel.make("bench.messages", { payload: Payload })

/** Consumes in another way, and gives the end of it. */
type Consume = (
  options: Parameters<Awaited<ReturnType<Open>>["consume"]>[0]
) => Effect.Effect<Effect.Effect<void>, unknown, Rotif.Services>

/** `keys`: the number of ordering keys among which the messages are spread; 0: they have none. */
export const makeOpen = (
  exactlyOnce: boolean,
  options?: Partial<Rotif.RedisOptions>,
  keys = 0,
  consume?: Consume
): Open =>
async (port, prefix) => {
  const publishOptions = (payload: Message) => keys === 0 ? {} : { orderingKey: `customer-${payload.id % keys}` }
  const runtime = ManagedRuntime.make(
    Rotif.layer({ url: `redis://127.0.0.1:${port}`, prefix, ...options }).pipe(Layer.orDie)
  )
  await runtime.context()
  const all = (payloads: ReadonlyArray<Message>, concurrency: number) =>
    runtime.runPromise(
      Effect.forEach(payloads, (payload) => Publisher.publish(Bench, payload), { concurrency, discard: true })
    )
  return {
    one: (payload) => runtime.runPromise(Publisher.publish(Bench, payload)),
    sequential: (payloads) => all(payloads, 1),
    concurrent: all,
    bulk: (payloads) =>
      runtime.runPromise(
        keys === 0
          ? Publisher.publishAll(Bench, payloads)
          : Publisher.publishAll(Bench, payloads, publishOptions)
      ),
    schedule: (payloads) => runtime.runPromise(Publisher.publishAll(Bench, payloads, { delay: "1 day" })),
    consume: (wanted) => {
      if (consume !== undefined) {
        return runtime.runPromise(Effect.map(consume(wanted), (end) => () => runtime.runPromise(end)))
      }
      const { concurrency, group, handle, hold, waitMillis } = wanted
      return runtime.runPromise(Effect.gen(function*() {
        const scope = yield* Scope.make()
        const released = hold === undefined ? undefined : yield* Deferred.make<void>()
        if (released !== undefined) void hold!.then(() => Deferred.doneUnsafe(released, Exit.void))
        const plain = ({ payload }: { readonly payload: Message }) =>
          Effect.suspend(() => handle(payload) ? Effect.void : Effect.fail("again"))
        const subscription = yield* Subscription.make(Bench, {
          group: group ?? "g",
          concurrency,
          // One at a time is no reason to fetch one at a time.
          prefetch: Math.max(concurrency, 100),
          exactlyOnce,
          retry: Schedule.spaced(0),
          handler: released !== undefined
            ? (message) => Effect.andThen(plain(message), Deferred.await(released))
            : waitMillis > 0
            ? (message) => Effect.andThen(Effect.sleep(waitMillis), plain(message))
            : plain
        }).pipe(Scope.provide(scope))
        return () => runtime.runPromise(Effect.andThen(subscription.drain, Scope.close(scope, Exit.void)))
      }))
    },
    close: () => runtime.dispose()
  }
}

export const open = makeOpen(false)
