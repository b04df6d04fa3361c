/**
 * 12. Pub/Sub mode: messages to whoever is listening now, at most once, nothing stored.
 *
 *     node --conditions=rotif-source examples/12-pubsub.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Effect, Latch, Queue, Schema, Stream } from "effect"
import { Broadcast, Channel } from "rotif"
import { backend } from "./backend.ts"

const Price = Channel.make("prices.:symbol", { payload: Schema.Struct({ cents: Schema.Int, at: Schema.Date }) })
const Typing = Channel.make("rooms.lobby.typing", { payload: Schema.Struct({ user: Schema.String }) })
const AnyRoom = Channel.pattern("rooms.**", { payload: Typing.payload })

const at = new Date("2026-03-02T07:01:47Z")

const program = Effect.gen(function*() {
  const heard = yield* Queue.unbounded<string>()

  // Nobody is listening: the message is gone.
  yield* Broadcast.publish(Price, { cents: 1, at }, { params: { symbol: "ACME" } })

  // With a handler, in this scope. Every listener receives everything; there are no groups.
  yield* Broadcast.listen(Price, {
    handler: ({ params, payload }) =>
      Queue.offer(heard, `${params.symbol} costs ${payload.cents} since ${payload.at.getUTCHours()} o'clock`),
    // After a reconnect: messages published meanwhile are gone, and this is the place to look up what they would have told.
    onGap: (gap) => Queue.offer(heard, `messages are missing: ${gap.reason}`)
  })
  yield* Broadcast.publish(Price, { cents: 4200, at }, { params: { symbol: "ACME" } })
  yield* Console.log(yield* Queue.take(heard))

  // As a stream, on a pattern. It takes a moment until it listens, so this publishes until one message has arrived.
  const seen = yield* Deferred.make<string>()
  yield* Broadcast.subscribe(AnyRoom).pipe(
    Stream.take(1),
    Stream.runForEach(({ channel, payload }) => Deferred.succeed(seen, `${payload.user} is typing (${channel})`)),
    Effect.forkScoped
  )
  const typing = Effect.forever(Effect.andThen(Broadcast.publish(Typing, { user: "ann" }), Effect.sleep("10 millis")))
  yield* Console.log(yield* Effect.raceFirst(Deferred.await(seen), typing))

  // A slow listener buffers a bounded number of messages, and is told how many it lost.
  const Count = Channel.make("counts", { payload: Schema.Int })
  const busy = yield* Deferred.make<void>()
  const latch = yield* Latch.make()
  const slow = yield* Broadcast.listen(Count, {
    capacity: 2,
    handler: ({ payload }) =>
      Effect.andThen(
        Deferred.succeed(busy, undefined),
        Effect.andThen(latch.await, Queue.offer(heard, `count ${payload}`))
      ),
    onGap: (gap) => Queue.offer(heard, gap.reason === "overflow" ? `${gap.dropped} dropped` : gap.reason)
  })
  yield* Broadcast.publish(Count, 0)
  yield* Deferred.await(busy)
  yield* Broadcast.publishAll(Count, [1, 2, 3, 4, 5, 6, 7, 8, 9])
  while ((yield* slow.stats).dropped < 7) yield* Effect.sleep("5 millis")
  yield* latch.open
  for (const line of yield* Queue.takeN(heard, 4)) yield* Console.log(line)
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
