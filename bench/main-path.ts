/**
 * The main path beside raw ioredis, in one run on a private redis-server: bulk publish and drain of 200-byte messages.
 * Prints rates, and Redis µs, Node µs and commands per message (CPU times tell more than rates on a shared machine).
 * `COUNT` sets the number of messages (100,000), `ROUNDS` the repetitions (3).
 */
import { Deferred, Effect, Layer, Schema, Scope } from "effect"
import { Redis as Client } from "ioredis"
import { Channel, Publisher, Rotif, Subscription } from "../src/index.ts"
import { field, privateServer } from "./privateServer.ts"

const total = Number(process.env["COUNT"] ?? 100_000)
const rounds = Number(process.env["ROUNDS"] ?? 3)

interface Sample {
  readonly rate: number
  readonly redisMicros: number
  readonly nodeMicros: number
  readonly commands: number
  readonly rssMiB: number
}

/** Runs an effect and counts what it cost, in this process and at the server. */
const measure = Effect.fnUntraced(function*<E, R>(client: Client, body: Effect.Effect<void, E, R>) {
  globalThis.gc?.()
  const look = Effect.promise(async () => {
    const info = await client.info("all")
    return {
      redis: (field(info, "used_cpu_user") + field(info, "used_cpu_sys")) * 1e6,
      commands: field(info, "total_commands_processed")
    }
  })
  const rss = process.memoryUsage.rss()
  let peak = rss
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss())
  }, 20)
  const before = yield* look
  const cpu = process.cpuUsage()
  const start = performance.now()
  yield* body
  const seconds = (performance.now() - start) / 1000
  const used = process.cpuUsage(cpu)
  const after = yield* look
  clearInterval(watch)
  return {
    rate: total / seconds,
    redisMicros: (after.redis - before.redis) / total,
    nodeMicros: (used.user + used.system) / total,
    commands: (after.commands - before.commands) / total,
    rssMiB: (peak - rss) / 1024 / 1024
  } satisfies Sample
})

const Payload = Schema.Struct({ id: Schema.Int, note: Schema.String, tags: Schema.Array(Schema.String) })
const Bench = Channel.make("bench.messages", { payload: Payload })
const payloadOf = (id: number) => ({ id, note: "x".repeat(150), tags: ["alpha", "beta"] })
const payloads = Array.from({ length: total }, (_, id) => payloadOf(id))
const texts = payloads.map((payload) => JSON.stringify(payload))

const rawPublish = (client: Client, key: string) =>
  Effect.promise(async () => {
    for (let i = 0; i < total; i += 500) {
      const pipeline = client.pipeline()
      for (let j = i; j < Math.min(i + 500, total); j++) pipeline.xadd(key, "*", "i", String(j), "p", texts[j]!)
      await pipeline.exec()
    }
  })

const rawDrain = (client: Client, reader: Client, key: string) =>
  Effect.promise(async () => {
    await client.xgroup("CREATE", key, "g", "0")
    let seen = 0
    while (seen < total) {
      const reply = await reader.xreadgroup("GROUP", "g", "c", "COUNT", 100, "BLOCK", 1000, "STREAMS", key, ">") as
        | Array<[string, Array<[string, Array<string>]>]>
        | null
      if (reply === null) continue
      const entries = reply[0]![1]
      for (const [, fields] of entries) JSON.parse(fields[3]!)
      await client.xack(key, "g", ...entries.map(([id]) => id))
      seen += entries.length
    }
  })

const rotifDrain = Effect.gen(function*() {
  const all = yield* Deferred.make<void>()
  let seen = 0
  const scope = yield* Scope.make()
  const subscription = yield* Subscription.make(Bench, {
    group: "g",
    concurrency: 100,
    handler: () =>
      Effect.sync(() => {
        if (++seen === total) Deferred.doneUnsafe(all, Effect.void)
      })
  }).pipe(Scope.provide(scope))
  yield* Deferred.await(all)
  yield* subscription.drain
})

const median = (values: ReadonlyArray<number>) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!

const report = (name: string, samples: ReadonlyArray<Sample>) => {
  const of = (key: keyof Sample) => median(samples.map((sample) => sample[key]))
  console.log(
    [
      name.padEnd(16),
      `${Math.round(of("rate")).toLocaleString("en").padStart(9)} msg/s`,
      `${of("redisMicros").toFixed(2).padStart(6)} Redis µs`,
      `${of("nodeMicros").toFixed(2).padStart(6)} Node µs`,
      `${of("commands").toFixed(3).padStart(6)} commands`,
      `${of("rssMiB").toFixed(0).padStart(4)} MiB RSS growth`
    ].join("  ")
  )
}

const samples: Record<string, Array<Sample>> = {
  "raw publish": [],
  "rotif publish": [],
  "raw drain": [],
  "rotif drain": []
}

const round = Effect.fnUntraced(function*(port: number, client: Client, reader: Client, index: number) {
  yield* Effect.promise(() => client.flushall())
  samples["raw publish"]!.push(yield* measure(client, rawPublish(client, "raw")))
  samples["raw drain"]!.push(yield* measure(client, rawDrain(client, reader, "raw")))
  yield* Effect.promise(() => client.flushall())
  yield* Effect.gen(function*() {
    samples["rotif publish"]!.push(
      yield* measure(client, Effect.asVoid(Publisher.publishAll(Bench, payloads)))
    )
    samples["rotif drain"]!.push(yield* measure(client, Effect.scoped(rotifDrain)))
  }).pipe(Effect.provide(Rotif.layer({ url: `redis://127.0.0.1:${port}`, prefix: `bench${index}` })))
})

const program = Effect.scoped(Effect.gen(function*() {
  const port = yield* privateServer
  const client = new Client({ port, host: "127.0.0.1" })
  const reader = new Client({ port, host: "127.0.0.1" })
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      client.disconnect()
      reader.disconnect()
    })
  )
  for (let i = 0; i <= rounds; i++) {
    yield* round(port, client, reader, i)
    // The first round warms up and does not count.
    if (i === 0) { for (const list of Object.values(samples)) list.length = 0 }
  }
  console.log(`${total.toLocaleString("en")} messages of about 200 bytes, medians of ${rounds} rounds`)
  for (const [name, list] of Object.entries(samples)) report(name, list)
}))

await Effect.runPromise(program.pipe(Effect.provide(Layer.empty)))
