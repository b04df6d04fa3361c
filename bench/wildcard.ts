/**
 * One subscription over 1, 100 and 1,000 channels on a private redis-server: what a message costs under load, and the latency at
 * 200 messages a second. `COUNT` sets the number of messages under load (50,000).
 */
import { Deferred, Effect, Schema } from "effect"
import { Redis as Client } from "ioredis"
import { Channel, Publisher, Rotif, Subscription } from "../src/index.ts"
import { field, privateServer } from "./privateServer.ts"

const total = Number(process.env["COUNT"] ?? 50_000)
const rate = 200
const seconds = 4

const Payload = Schema.Struct({ at: Schema.Finite, note: Schema.String })
const note = "x".repeat(150)
const Many = Channel.pattern("bench.*", { payload: Payload })

const cpu = (client: Client) =>
  Effect.promise(async () => {
    const info = await client.info("cpu")
    return (field(info, "used_cpu_user") + field(info, "used_cpu_sys")) * 1e6
  })

const percentile = (values: ReadonlyArray<number>, part: number) =>
  [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) * part)]!

const measure = Effect.fnUntraced(function*(client: Client, count: number) {
  const channels = Array.from({ length: count }, (_, i) => Channel.make(`bench.${i}`, { payload: Payload }))
  let seen = 0
  let wanted = count
  let done = yield* Deferred.make<void>()
  const latencies: Array<number> = []
  const expect = Effect.fnUntraced(function*(next: number) {
    done = yield* Deferred.make<void>()
    seen = 0
    wanted = next
    latencies.length = 0
  })
  const publish = (i: number) => Publisher.publish(channels[i % count]!, { at: performance.now(), note })
  const subscription = yield* Subscription.make(Many, {
    concurrency: 100,
    handler: ({ payload }) =>
      Effect.sync(() => {
        latencies.push(performance.now() - payload.at)
        if (++seen === wanted) Deferred.doneUnsafe(done, Effect.void)
      })
  })
  for (const i of channels.keys()) yield* publish(i)
  yield* Deferred.await(done)

  yield* expect(rate * seconds)
  const calm = yield* cpu(client)
  for (let i = 0; i < rate * seconds; i++) {
    yield* Effect.forkChild(publish(i * 7))
    yield* Effect.sleep(1000 / rate)
  }
  yield* Deferred.await(done)
  const share = ((yield* cpu(client)) - calm) / (seconds * 1e6)
  const p50 = percentile(latencies, 0.5)
  const p99 = percentile(latencies, 0.99)

  yield* subscription.pause
  yield* expect(total)
  for (let i = 0; i < count; i++) {
    const each = Math.floor(total / count) + (i < total % count ? 1 : 0)
    yield* Publisher.publishAll(channels[i]!, Array.from({ length: each }, () => ({ at: 0, note })))
  }
  const before = yield* cpu(client)
  const start = performance.now()
  yield* subscription.resume
  yield* Deferred.await(done)
  const micros = ((yield* cpu(client)) - before) / total
  const perSecond = total / (performance.now() - start) * 1000
  console.log(
    `${String(count).padStart(5)} channels  under load ${micros.toFixed(2)} Redis µs, ${
      Math.round(perSecond).toLocaleString("en")
    } msg/s` +
      `   at ${rate} msg/s p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, ${
        (share * 100).toFixed(1)
      } % of a Redis core`
  )
})

const program = Effect.scoped(Effect.gen(function*() {
  const port = yield* privateServer
  const client = new Client({ port, host: "127.0.0.1" })
  yield* Effect.addFinalizer(() => Effect.sync(() => client.disconnect()))
  for (const count of [1, 100, 1_000]) {
    yield* Effect.promise(() => client.flushall())
    yield* Effect.scoped(measure(client, count)).pipe(
      Effect.provide(Rotif.layer({ url: `redis://127.0.0.1:${port}`, prefix: `bench${count}` }))
    )
  }
}))

await Effect.runPromise(program)
