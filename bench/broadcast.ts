/**
 * Pub/Sub mode beside raw ioredis, in one run on a private redis-server, with messages of about 200 bytes and one subscriber.
 *
 * Throughput: as many messages as go through, and how many of them were lost. Latency: single messages at a steady rate of
 * `RATE` (1,000) a second, raw and ours in turn, from before the publish until the handler has the decoded payload.
 * `COUNT` sets the number of messages (200,000), `SAMPLES` those whose latency is taken (3,000), `ROUNDS` the repetitions (3).
 */
import { Deferred, Effect, Schema } from "effect"
import { Redis as Client } from "ioredis"
import { Broadcast, Channel, Rotif } from "../src/index.ts"
import { privateServer } from "./privateServer.ts"

const total = Number(process.env["COUNT"] ?? 200_000)
const samples = Number(process.env["SAMPLES"] ?? 3_000)
const rate = Number(process.env["RATE"] ?? 1_000)
const rounds = Number(process.env["ROUNDS"] ?? 3)

const Payload = Schema.Struct({ id: Schema.Int, note: Schema.String, tags: Schema.Array(Schema.String) })
const Bench = Channel.make("bench.messages", { payload: Payload })
const payloadOf = (id: number) => ({ id, note: "x".repeat(150), tags: ["alpha", "beta"] })

/** A way to publish one or many messages and to hear them. */
interface Way {
  readonly publish: (id: number) => Effect.Effect<void, unknown>
  readonly publishAll: (ids: ReadonlyArray<number>) => Effect.Effect<void, unknown>
  /** Called with every id that was heard. */
  onId: (id: number) => void
}

const batch = 500

const throughput = Effect.fnUntraced(function*(way: Way) {
  const all = yield* Deferred.make<void>()
  const seen = new Uint8Array(total)
  let heard = 0
  way.onId = (id) => {
    seen[id]! += 1
    if (++heard === total) Deferred.doneUnsafe(all, Effect.void)
  }
  const cpu = process.cpuUsage()
  const start = performance.now()
  for (let from = 0; from < total; from += batch) {
    yield* way.publishAll(Array.from({ length: Math.min(batch, total - from) }, (_, i) => from + i))
  }
  yield* Effect.timeoutOption(Deferred.await(all), "10 seconds")
  const seconds = (performance.now() - start) / 1000
  const used = process.cpuUsage(cpu)
  return {
    rate: total / seconds,
    nodeMicros: (used.user + used.system) / total,
    lost: seen.reduce((missing, times) => times === 1 ? missing : missing + 1, 0)
  }
})

/** One message each way in turn, so that both meet the same machine. */
const latencies = Effect.fnUntraced(function*(ways: ReadonlyArray<Way>) {
  const sentAt = ways.map(() => new Float64Array(samples))
  const micros = ways.map((): Array<number> => [])
  for (const [index, way] of ways.entries()) {
    way.onId = (id) => micros[index]!.push((performance.now() - sentAt[index]![id]!) * 1000)
  }
  const start = performance.now()
  for (let turn = 0; turn < samples * ways.length; turn++) {
    const index = turn % ways.length
    const id = Math.floor(turn / ways.length)
    const wait = start + turn * 1000 / rate - performance.now()
    if (wait > 0) yield* Effect.sleep(wait)
    sentAt[index]![id] = performance.now()
    yield* ways[index]!.publish(id)
  }
  // The last ones are on their way.
  yield* Effect.sleep("200 millis")
  return micros.map((list) => {
    list.sort((a, b) => a - b)
    return { p50: list[Math.floor(list.length * 0.5)]!, p99: list[Math.floor(list.length * 0.99)]! }
  })
})

const rawWay = Effect.fnUntraced(function*(port: number) {
  const open = Effect.acquireRelease(
    Effect.sync(() => new Client({ port, host: "127.0.0.1" })),
    (client) => Effect.sync(() => client.disconnect())
  )
  const [publisher, subscriber] = [yield* open, yield* open]
  const way: Way = {
    publish: (id) => Effect.promise(() => publisher.publish("raw", JSON.stringify(payloadOf(id)))),
    publishAll: (ids) =>
      Effect.promise(() => {
        const pipeline = publisher.pipeline()
        for (const id of ids) pipeline.publish("raw", JSON.stringify(payloadOf(id)))
        return pipeline.exec()
      }),
    onId: () => {}
  }
  yield* Effect.promise(() => subscriber.subscribe("raw"))
  subscriber.on("message", (_, text) => way.onId((JSON.parse(text) as { readonly id: number }).id))
  return way
})

const rotifWay = Effect.gen(function*() {
  const context = yield* Effect.context<Broadcast.Broadcast>()
  const way: Way = {
    publish: (id) => Effect.provide(Broadcast.publish(Bench, payloadOf(id)), context),
    publishAll: (ids) => Effect.provide(Broadcast.publishAll(Bench, ids.map(payloadOf)), context),
    onId: () => {}
  }
  const listener = yield* Broadcast.listen(Bench, {
    handler: ({ payload }) => Effect.sync(() => way.onId(payload.id))
  })
  return { way, listener }
})

const median = (values: ReadonlyArray<number>) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!

interface Sample {
  readonly rate: number
  readonly nodeMicros: number
  readonly lost: number
  readonly p50: number
  readonly p99: number
}

const report = (name: string, list: ReadonlyArray<Sample>) => {
  const of = (key: keyof Sample) => median(list.map((sample) => sample[key]))
  console.log(
    [
      name.padEnd(6),
      `${Math.round(of("rate")).toLocaleString("en").padStart(9)} msg/s`,
      `${of("nodeMicros").toFixed(2).padStart(6)} Node µs (publish and receive)`,
      `${list.reduce((sum, { lost }) => sum + lost, 0)} lost`,
      `p50 ${of("p50").toFixed(0).padStart(4)} µs`,
      `p99 ${of("p99").toFixed(0).padStart(5)} µs`
    ].join("  ")
  )
}

const program = Effect.scoped(Effect.gen(function*() {
  const port = yield* privateServer
  const raw: Array<Sample> = []
  const rotif: Array<Sample> = []
  for (let round = 0; round <= rounds; round++) {
    const [rawSample, rotifSample] = yield* Effect.scoped(Effect.gen(function*() {
      const one = yield* rawWay(port)
      const { listener, way: other } = yield* rotifWay
      const [rawThroughput, rotifThroughput] = [yield* throughput(one), yield* throughput(other)]
      const [rawLatency, rotifLatency] = yield* latencies([one, other])
      const { dropped } = yield* listener.stats
      return [
        { ...rawThroughput, ...rawLatency! },
        { ...rotifThroughput, ...rotifLatency!, lost: Math.max(rotifThroughput.lost, dropped) }
      ] as const
    })).pipe(Effect.provide(Rotif.layer({ url: `redis://127.0.0.1:${port}` })))
    // The first round warms up and does not count.
    if (round === 0) continue
    raw.push(rawSample)
    rotif.push(rotifSample)
  }
  console.log(`${total.toLocaleString("en")} messages of about 200 bytes, medians of ${rounds} rounds`)
  report("raw", raw)
  report("rotif", rotif)
  const ratio = median(rotif.map(({ p50 }) => p50)) / median(raw.map(({ p50 }) => p50))
  console.log(`p50 latency: ${ratio.toFixed(2)} times raw ioredis`)
}))

await Effect.runPromise(program)
