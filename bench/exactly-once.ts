/**
 * What it costs to handle a message once: plain, with `exactlyOnce` and with `transactional`, in one run on a private redis-server.
 * Prints commands, Redis µs and Node µs per message of the drain alone and, as "all", of publish and drain together.
 * `COUNT` sets the number of messages (50,000), `ROUNDS` the repetitions (3).
 */
import { Deferred, Effect, Schema, Scope } from "effect"
import { Redis as Client } from "ioredis"
import { Channel, Publisher, Rotif, Subscription, Transaction } from "../src/index.ts"
import { field, privateServer } from "./privateServer.ts"

const total = Number(process.env["COUNT"] ?? 50_000)
const rounds = Number(process.env["ROUNDS"] ?? 3)

interface Cost {
  readonly redisMicros: number
  readonly nodeMicros: number
  readonly commands: number
  readonly rate: number
}

const measure = Effect.fnUntraced(function*<E, R>(client: Client, body: Effect.Effect<void, E, R>) {
  const look = Effect.promise(async () => {
    const info = await client.info("all")
    // Commands as clients send them; what a script calls is counted by Redis too, and left out here.
    const inScripts = [...info.matchAll(/^cmdstat_(?:evalsha|eval):calls=(\d+)/gm)].reduce(
      (sum, [, n]) => sum + Number(n),
      0
    )
    return {
      redis: (field(info, "used_cpu_user") + field(info, "used_cpu_sys")) * 1e6,
      commands: field(info, "total_commands_processed"),
      scripts: inScripts
    }
  })
  const before = yield* look
  const cpu = process.cpuUsage()
  const start = performance.now()
  yield* body
  const seconds = (performance.now() - start) / 1000
  const used = process.cpuUsage(cpu)
  const after = yield* look
  return {
    redisMicros: (after.redis - before.redis) / total,
    nodeMicros: (used.user + used.system) / total,
    commands: (after.commands - before.commands) / total,
    rate: total / seconds
  } satisfies Cost
})

const Payload = Schema.Struct({ id: Schema.Int, note: Schema.String, tags: Schema.Array(Schema.String) })
const In = Channel.make("bench.in", { payload: Payload })
const Out = Channel.make("bench.out", { payload: Payload })
const payloads = Array.from({ length: total }, (_, id) => ({ id, note: "x".repeat(150), tags: ["alpha", "beta"] }))

/** Handles everything once with a consumer of the given kind. */
const drain = <R, Transactional extends boolean = false>(
  handler: (payload: typeof Payload.Type) => Effect.Effect<unknown, unknown, R>,
  options: Partial<Subscription.Options<typeof In, unknown, R, readonly [], Transactional>>
) =>
  Effect.gen(function*() {
    const all = yield* Deferred.make<void>()
    let seen = 0
    const scope = yield* Scope.make()
    const subscription = yield* Subscription.make(In, {
      group: "g",
      concurrency: 100,
      ...options,
      handler: ({ payload }) =>
        Effect.tap(handler(payload), () =>
          Effect.sync(() => {
            if (++seen === total) Deferred.doneUnsafe(all, Effect.void)
          }))
    }).pipe(Scope.provide(scope))
    yield* Deferred.await(all)
    yield* subscription.drain
  })

const kinds = {
  plain: drain(() => Effect.void, {}),
  exactlyOnce: drain(() => Effect.void, { exactlyOnce: true }),
  "plain + publish": drain((payload) => Publisher.publish(Out, payload), {}),
  transactional: drain((payload) => Transaction.publish(Out, payload), { transactional: true })
}

type Kind = keyof typeof kinds

const none = () => ({ publish: [] as Array<Cost>, drain: [] as Array<Cost> })
const samples: Record<Kind, ReturnType<typeof none>> = {
  plain: none(),
  exactlyOnce: none(),
  "plain + publish": none(),
  transactional: none()
}

const median = (values: ReadonlyArray<number>) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
const medianOf = (costs: ReadonlyArray<Cost>, key: keyof Cost) => median(costs.map((cost) => cost[key]))

const round = Effect.fnUntraced(function*(port: number, client: Client, index: number) {
  for (const kind of Object.keys(kinds) as Array<Kind>) {
    yield* Effect.promise(() => client.flushall())
    yield* Effect.gen(function*() {
      samples[kind].publish.push(yield* measure(client, Effect.asVoid(Publisher.publishAll(In, payloads))))
      samples[kind].drain.push(
        yield* measure(client, Effect.scoped(kinds[kind] as typeof kinds.transactional))
      )
    }).pipe(Effect.provide(Rotif.layer({ url: `redis://127.0.0.1:${port}`, prefix: `bench${index}` })))
  }
})

const program = Effect.scoped(Effect.gen(function*() {
  const port = yield* privateServer
  const client = new Client({ port, host: "127.0.0.1" })
  yield* Effect.addFinalizer(() => Effect.sync(() => client.disconnect()))
  for (let i = 0; i <= rounds; i++) {
    yield* round(port, client, i)
    // The first round warms up and does not count.
    if (i === 0) { for (const { drain, publish } of Object.values(samples)) drain.length = publish.length = 0 }
  }
  console.log(`${total.toLocaleString("en")} messages of about 200 bytes, medians of ${rounds} rounds, per message:`)
  for (const [kind, { drain, publish }] of Object.entries(samples)) {
    const all = medianOf(publish, "redisMicros") + medianOf(drain, "redisMicros")
    console.log(
      [
        kind.padEnd(16),
        `${medianOf(drain, "redisMicros").toFixed(2).padStart(6)} Redis µs (all ${all.toFixed(2).padStart(6)})`,
        `${medianOf(drain, "nodeMicros").toFixed(2).padStart(7)} Node µs`,
        `${medianOf(drain, "commands").toFixed(3).padStart(7)} commands`,
        `${Math.round(medianOf(drain, "rate")).toLocaleString("en").padStart(9)} msg/s`
      ].join("  ")
    )
  }
  const times = (key: "publish" | "drain" | "all") => {
    const of = (kind: Kind) =>
      (key === "drain" ? 0 : medianOf(samples[kind].publish, "redisMicros")) +
      (key === "publish" ? 0 : medianOf(samples[kind].drain, "redisMicros"))
    return (of("exactlyOnce") / of("plain")).toFixed(2)
  }
  console.log(
    `exactlyOnce takes ${times("drain")} times the Redis µs of plain (mark: 3); publish included ${times("all")}`
  )
}))

await Effect.runPromise(program)
