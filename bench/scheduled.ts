/**
 * Scheduled messages on a private redis-server: how late they enter the log, how fast a backlog that is due is promoted, and what one
 * that waits costs in memory. `node --conditions=rotif-source bench/scheduled.ts` prints the figures beside their
 * marks.
 * `LATENESS` sets the number of messages due at random times in 20 s (10,000; 0 leaves that part out), `BACKLOG` the number of scheduled
 * ones (1,000,000).
 */
import { Clock, Effect, Layer, Schema } from "effect"
import { Redis as Client } from "ioredis"
import { Broker, Channel, Publisher, Rotif, Scheduler } from "../src/index.ts"
import { field, privateServer } from "./privateServer.ts"

const lateness = Number(process.env["LATENESS"] ?? 10_000)
const backlog = Number(process.env["BACKLOG"] ?? 1_000_000)
const spanMillis = 20_000

const Payload = Schema.Struct({ id: Schema.Int, note: Schema.String, tags: Schema.Array(Schema.String) })
const Bench = Channel.make("bench.scheduled", { payload: Payload })
/** 200 bytes of JSON. */
const payloadOf = (id: number) => {
  const head = { id, note: "", tags: ["alpha", "beta"] }
  return { ...head, note: "x".repeat(200 - JSON.stringify(head).length) }
}

const number = (value: number) => Math.round(value).toLocaleString("en")

const report = (name: string, value: number, unit: string, mark: string, holds: boolean) =>
  console.log(
    `${name.padEnd(44)} ${number(value).padStart(10)} ${unit.padEnd(12)} ${mark.padEnd(18)} ${holds ? "" : "MISSED"}`
  )

/** Waits until as many messages are in the log. */
const awaitLog = (client: Client, key: string, total: number) =>
  Effect.gen(function*() {
    while ((yield* Effect.promise(() => client.xlen(key))) < total) yield* Effect.sleep(5)
  })

const measureLateness = Effect.fnUntraced(function*(client: Client, prefix: string) {
  const log = `{${prefix}:0}:log:${Bench.name}`
  // A seed of its own, so that every run asks for the same times.
  let seed = 42
  const random = () => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648
  const start = (yield* Clock.currentTimeMillis) + 3_000
  const at = Array.from({ length: lateness }, () => start + Math.floor(random() * spanMillis))
  yield* Publisher.publishAll(Bench, at.map((_, id) => payloadOf(id)), (_, i) => ({ at: at[i]! }))
  yield* awaitLog(client, log, lateness)
  // The time in a position is the server's, when the entry was added.
  const entries = yield* Effect.promise(() => client.xrange(log, "-", "+"))
  const late = entries.map(([position, fields]) =>
    Number(position.split("-")[0]) - at[(JSON.parse(fields[fields.indexOf("p") + 1]!) as { readonly id: number }).id]!
  ).sort((a, b) => a - b)
  const early = late.filter((millis) => millis < 0).length
  const quantile = (q: number) => late[Math.floor(late.length * q)]!
  report(`${number(lateness)} in ${spanMillis / 1000} s: early`, early, "messages", "none", early === 0)
  report("lateness, p50", quantile(0.5), "ms", "≤ 5", quantile(0.5) <= 5)
  report("lateness, p99", quantile(0.99), "ms", "≤ 50", quantile(0.99) <= 50)
  report("lateness, worst", late.at(-1)!, "ms", "", true)
})

const memoryOf = (client: Client) =>
  Effect.map(Effect.promise(() => client.info("memory")), (info) => field(info, "used_memory"))

const measureBacklog = Effect.fnUntraced(function*(client: Client, prefix: string) {
  const broker = yield* Broker.Broker
  const waiting = `{${prefix}:0}:waiting`
  yield* Publisher.publish(Bench, payloadOf(0), { delay: "1 day" })
  const before = yield* memoryOf(client)
  const from = performance.now()
  for (let done = 0; done < backlog; done += 50_000) {
    const payloads = Array.from({ length: Math.min(50_000, backlog - done) }, (_, i) => payloadOf(done + i))
    yield* Publisher.publishAll(Bench, payloads, { delay: "1 day" })
  }
  const seconds = (performance.now() - from) / 1000
  const bytes = ((yield* memoryOf(client)) - before) / backlog
  report(`scheduling ${number(backlog)}`, backlog / seconds, "msg/s", "", true)
  report("memory of one that waits", bytes, "bytes", "≤ 420", bytes <= 420)
  report("waiting", yield* Scheduler.count(Bench), "messages", "", true)
  // Time cannot be moved; the due times can: all of them, to now.
  yield* Effect.promise(() => client.zunionstore(waiting, 1, waiting, "WEIGHTS", 0.5))
  const start = performance.now()
  let moved = 0
  while (true) {
    const step = yield* broker.promote(0, 500)
    moved += step.moved
    if (step.nextInMillis !== 0) break
  }
  const rate = moved / ((performance.now() - start) / 1000)
  report("promotion of what is due", rate, "msg/s", "≥ 50,000", rate >= 50_000)
  report(
    "in the log",
    yield* Effect.promise(() => client.xlen(`{${prefix}:0}:log:${Bench.name}`)),
    "messages",
    "",
    moved === backlog + 1
  )
})

const program = Effect.scoped(Effect.gen(function*() {
  const port = yield* privateServer
  const client = new Client({ port, host: "127.0.0.1" })
  yield* Effect.addFinalizer(() => Effect.sync(() => client.disconnect()))
  const url = `redis://127.0.0.1:${port}`
  if (lateness > 0) yield* measureLateness(client, "late").pipe(Effect.provide(Rotif.layer({ url, prefix: "late" })))
  yield* Effect.promise(() => client.flushall())
  // The bench promotes by hand, and nobody trims.
  yield* measureBacklog(client, "backlog").pipe(
    Effect.provide(Rotif.layer({ url, prefix: "backlog", delayed: false, trimInterval: "1 day" }))
  )
}))

await Effect.runPromise(program.pipe(Effect.provide(Layer.empty)))
