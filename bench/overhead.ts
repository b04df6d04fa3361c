/**
 * What middleware and telemetry cost, on and off in one run, on a private redis-server: publishing (one by one, 100 at a time; and with
 * publishAll, 500 a call) and handling of 200-byte messages, in Node µs of CPU per message.
 *
 * - `off`: no middleware, no tracer. - `tracing + metrics`: both as middleware of the program, with a tracer that keeps no span.
 * - `hooks`: hooks that do nothing, what a chain costs at least. - `metrics`: without tracing.
 * - `before`: no middleware, on the sources of a git revision, when `BASE` names one: the code before a change.
 *
 * Every round measures each once, in an order that turns. The figures are medians and the best round; the ratio to the first line is that
 * of the best rounds, which other work on the machine disturbs least. `COUNT` sets the number of messages (50,000), `ROUNDS` the repetitions
 * (9), `ONLY` which of them run.
 */
import { Deferred, Effect, Layer, Schema, Scope, Tracer } from "effect"
import { Redis as Client } from "ioredis"
import { execFileSync } from "node:child_process"
import { mkdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import * as Now from "../src/index.ts"
import { privateServer } from "./privateServer.ts"

type Api = Pick<typeof Now, "Channel" | "Publisher" | "Rotif" | "Subscription">

const total = Number(process.env["COUNT"] ?? 50_000)
const rounds = Number(process.env["ROUNDS"] ?? 9)
const base = process.env["BASE"]

/** The sources of another revision, beside our own, so that both find the same dependencies. */
const checkout = async (revision: string): Promise<Api> => {
  const root = join(import.meta.dirname, "..")
  const directory = join(root, ".tmp", "overhead")
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })
  const archive = execFileSync("git", ["archive", revision, "src"], { cwd: root, maxBuffer: 1 << 28 })
  execFileSync("tar", ["-x", "-C", directory], { input: archive })
  return await import(join(directory, "src/index.ts")) as Api
}

const payloads = Array.from({ length: total }, (_, id) => ({ id, note: "x".repeat(150), tags: ["alpha", "beta"] }))

const micros = (since: NodeJS.CpuUsage) => {
  const { system, user } = process.cpuUsage(since)
  return (system + user) / total
}

let prefixes = 0

/** Node µs per message of publishing and of handling. */
const measure = Effect.fnUntraced(function*(
  { Channel, Publisher, Rotif, Subscription }: Api,
  port: number,
  middleware: Layer.Layer<never>
) {
  const payload = Schema.Struct({ id: Schema.Int, note: Schema.String, tags: Schema.Array(Schema.String) })
  const channel = Channel.make("bench.messages", { payload })
  const other = Channel.make("bench.others", { payload })
  const body = Effect.gen(function*() {
    globalThis.gc?.()
    const beforePublish = process.cpuUsage()
    yield* Effect.forEach(payloads, (payload) => Publisher.publish(other, payload), { concurrency: 100, discard: true })
    const publish = micros(beforePublish)
    globalThis.gc?.()
    const beforeAll = process.cpuUsage()
    for (let i = 0; i < total; i += 500) yield* Publisher.publishAll(channel, payloads.slice(i, i + 500))
    const publishAll = micros(beforeAll)
    const all = yield* Deferred.make<void>()
    let seen = 0
    globalThis.gc?.()
    const beforeDrain = process.cpuUsage()
    const scope = yield* Scope.make()
    const subscription = yield* Subscription.make(channel, {
      group: "g",
      concurrency: 100,
      handler: () =>
        Effect.sync(() => {
          if (++seen === total) Deferred.doneUnsafe(all, Effect.void)
        })
    }).pipe(Scope.provide(scope))
    yield* Deferred.await(all)
    yield* subscription.drain
    return { publish, publishAll, handle: micros(beforeDrain) }
  })
  const layer = Rotif.layer({ url: `redis://127.0.0.1:${port}`, prefix: `bench${prefixes++}` })
  return yield* body.pipe(Effect.provide(layer.pipe(Layer.provide(middleware))))
})

const sink = Layer.succeed(Tracer.Tracer, Tracer.make({ span: (options) => new Tracer.NativeSpan(options) }))

const { Middleware } = Now
interface Variant {
  readonly name: string
  readonly api: Api
  readonly middleware: Layer.Layer<never>
  readonly tracer: Layer.Layer<never>
}
const off: Variant = { name: "off", api: Now, middleware: Layer.empty, tracer: Layer.empty }
const hooks = Middleware.hooks({ beforePublish: () => {}, beforeProcess: () => {} })
const variants: ReadonlyArray<Variant> = [
  ...(base === undefined ? [] : [{ ...off, name: "before", api: await checkout(base) }]),
  off,
  { ...off, name: "hooks", middleware: Middleware.layer(hooks) },
  { ...off, name: "metrics", middleware: Middleware.layer(Middleware.metrics()) },
  {
    ...off,
    name: "tracing + metrics",
    middleware: Middleware.layer(Middleware.tracing(), Middleware.metrics()),
    tracer: sink
  }
].filter(({ name }) => process.env["ONLY"] === undefined || process.env["ONLY"].split(",").includes(name))

type Sample = Effect.Success<ReturnType<typeof measure>>
const samples = new Map(variants.map(({ name }) => [name, new Array<Sample>()]))

const median = (values: ReadonlyArray<number>) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

const program = Effect.scoped(Effect.gen(function*() {
  const port = yield* privateServer
  const client = new Client({ port, host: "127.0.0.1" })
  client.on("error", () => {})
  yield* Effect.addFinalizer(() => Effect.sync(() => client.disconnect()))
  // Two rounds warm up and do not count.
  for (let i = -2; i < rounds; i++) {
    for (let j = 0; j < variants.length; j++) {
      const { api, middleware, name, tracer } = variants[(i + 2 + j) % variants.length]!
      yield* Effect.promise(() => client.flushall())
      const sample = yield* Effect.provide(measure(api, port, middleware), tracer)
      if (i >= 0) samples.get(name)!.push(sample)
    }
  }
  console.log(
    `${total.toLocaleString("en")} messages of about 200 bytes, ${rounds} rounds, Node µs per message`
  )
  const reference = samples.get(variants[0]!.name)!
  for (const [name, own] of samples) {
    const best = (samples: ReadonlyArray<Sample>, of: (sample: Sample) => number) => Math.min(...samples.map(of))
    const figure = (of: (sample: Sample) => number) =>
      `${median(own.map(of)).toFixed(2).padStart(6)}, best ${best(own, of).toFixed(2)} (× ${
        (best(own, of) / best(reference, of)).toFixed(3)
      })`
    console.log(
      [
        name.padEnd(18),
        `publish ${figure(({ publish }) => publish)}`,
        `publishAll ${figure(({ publishAll }) => publishAll)}`,
        `handle ${figure(({ handle }) => handle)}`,
        `publish + handle ${figure(({ handle, publish }) => publish + handle)}`,
        `publishAll + handle ${figure(({ handle, publishAll }) => publishAll + handle)}`
      ].join("  ")
    )
  }
}))

await Effect.runPromise(program)
