/**
 * What only Rotif has: wildcards, a backlog of scheduled messages, shards.
 */
import { Deferred, Effect } from "effect"
import { Redis } from "ioredis"
import { Broker, Channel, Publisher, Rotif, Subscription } from "../src/index.ts"
import * as RedisCluster from "../test/fixtures/RedisCluster.ts"
import { costOf, memoryOf, perMessage } from "./cost.ts"
import type { Backlog, Figures, Shards, Wildcard } from "./jobs.ts"
import { payloadOf, payloadsOf } from "./peers/peer.ts"
import { Payload } from "./peers/rotif.ts"

const cost = <E, R>(servers: ReadonlyArray<Redis>, body: Effect.Effect<unknown, E, R>) =>
  Effect.flatMap(
    Effect.context<R>(),
    (context) => Effect.promise(() => costOf(servers, () => Effect.runPromise(Effect.provideContext(body, context))))
  )

/** Handles messages of a pattern, and tells when so many have come. */
const counter = Effect.fnUntraced(function*(pattern: Channel.Pattern<typeof Payload>) {
  let left = 0
  let done = yield* Deferred.make<void>()
  let micros: Array<number> = []
  const subscription = yield* Subscription.make(pattern, {
    concurrency: 100,
    handler: ({ payload }) =>
      Effect.sync(() => {
        micros.push((performance.now() - payload.at) * 1000)
        if (--left === 0) Deferred.doneUnsafe(done, Effect.void)
      })
  })
  return {
    subscription,
    expect: Effect.fnUntraced(function*(count: number) {
      left = count
      micros = []
      done = yield* Deferred.make<void>()
      return Deferred.await(done)
    }),
    percentile: (part: number) => micros.toSorted((a, b) => a - b)[Math.floor((micros.length - 1) * part)]!
  }
})

/** A number of messages, evenly over the channels. */
const spread = (channels: ReadonlyArray<Channel.Channel<string, typeof Payload>>, count: number, bytes: number) =>
  Effect.forEach(channels, (channel, i) => {
    const each = Math.floor(count / channels.length) + (i < count % channels.length ? 1 : 0)
    return each === 0 ? Effect.void : Publisher.publishAll(channel, payloadsOf(each, bytes))
  }, { discard: true })

const channelsOf = (count: number) =>
  Array.from({ length: count }, (_, i) => Channel.make(`bench.${i}`, { payload: Payload }))

const pattern = Channel.pattern("bench.*", { payload: Payload })

/** The cost of a message under load; latency and share of Redis at 200 a second. */
export const wildcard = (client: Redis, { bytes, calm, channels: total, count, port }: Wildcard): Promise<Figures> =>
  Effect.gen(function*() {
    const channels = channelsOf(total)
    const { expect, percentile, subscription } = yield* counter(pattern)
    // Makes all channels known, and the code warm.
    const warm = yield* expect(Math.max(total, 5000))
    yield* spread(channels, Math.max(total, 5000), bytes)
    yield* warm
    const rate = 200
    const quiet = yield* expect(calm)
    const slow = yield* cost(
      [client],
      Effect.gen(function*() {
        const start = performance.now()
        for (let i = 0; i < calm; i++) {
          yield* Effect.forkChild(
            Publisher.publish(channels[i * 7 % total]!, payloadOf(i, bytes, performance.now()))
          )
          yield* Effect.sleep(Math.max(0, (i + 1) * 1000 / rate - (performance.now() - start)))
        }
        yield* quiet
      })
    )
    const [p50, p99] = [percentile(0.5), percentile(0.99)]
    yield* subscription.pause
    const loaded = yield* expect(count)
    yield* spread(channels, count, bytes)
    const load = yield* cost([client], Effect.andThen(subscription.resume, loaded))
    return { ...perMessage(load, count), p50, p99, core: slow.redisMicros / slow.seconds / 1e6 }
  }).pipe(
    Effect.scoped,
    Effect.provide(Rotif.layer({ url: `redis://127.0.0.1:${port}`, prefix: "wildcard" })),
    Effect.runPromise
  )

/** The cost of scheduling a message and, with `moving`, of moving it when it is due; the bytes of one that waits. */
export const backlog = (client: Redis, { bytes, count, port }: Backlog): Promise<Figures> =>
  Effect.gen(function*() {
    const Bench = Channel.make("bench.scheduled", { payload: Payload })
    const broker = yield* Broker.Broker
    yield* Publisher.publish(Bench, payloadOf(0, bytes, 0), { delay: "1 day" })
    const before = yield* Effect.promise(() => memoryOf(client))
    const store = yield* cost(
      [client],
      Effect.gen(function*() {
        for (let done = 0; done < count; done += 5000) {
          yield* Publisher.publishAll(Bench, payloadsOf(Math.min(5000, count - done), bytes, done), { delay: "1 day" })
        }
      })
    )
    const after = yield* Effect.promise(() => memoryOf(client))
    // Time cannot be moved; the due times can: all of them, to now.
    const waiting = "{backlog:0}:waiting"
    yield* Effect.promise(() => client.zunionstore(waiting, 1, waiting, "WEIGHTS", 0.5))
    let moved = 0
    const move = yield* cost(
      [client],
      Effect.gen(function*() {
        while (true) {
          const step = yield* broker.promote(0, 500)
          moved += step.moved
          if (step.nextInMillis !== 0) break
        }
      })
    )
    if (moved !== count + 1) return yield* Effect.die(new Error(`${moved} of ${count + 1} were moved`))
    return {
      ...perMessage(store, count),
      bytes: (after - before) / count,
      movingRate: count / move.seconds,
      movingMicros: move.redisMicros / count
    }
  }).pipe(
    // The bench moves by hand, and nobody trims.
    Effect.provide(
      Rotif.layer({ url: `redis://127.0.0.1:${port}`, prefix: "backlog", delayed: false, trimInterval: "1 day" })
    ),
    Effect.runPromise
  )

/** Publishing and handling on a Cluster of three masters, with 16 channels spread over the shards. */
export const shards = ({ bytes, count, shards }: Shards): Promise<Figures> =>
  Effect.gen(function*() {
    const { nodes } = yield* RedisCluster.make()
    const clients = nodes.map(({ host, port }) => new Redis({ host, port }))
    yield* Effect.addFinalizer(() => Effect.sync(() => clients.forEach((client) => client.disconnect())))
    const cluster = nodes.map(({ host, port }) => ({ host, port }))
    const channels = channelsOf(16)
    const body = Effect.gen(function*() {
      const { expect } = yield* counter(pattern)
      const warm = yield* expect(10_000)
      yield* spread(channels, 10_000, bytes)
      yield* warm
      const all = yield* expect(count)
      return yield* cost(clients, Effect.andThen(spread(channels, count, bytes), all))
    })
    const found = yield* body.pipe(Effect.scoped, Effect.provide(Rotif.layer({ cluster, shards, prefix: "shards" })))
    return perMessage(found, count)
  }).pipe(Effect.scoped, Effect.runPromise)
