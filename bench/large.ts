/**
 * How long Redis is held up at a time by messages of 1 MiB: every way of the library is gone with them on a private redis-server, and of each
 * command and script the slowest execution is printed, and how many took longer than 5 ms.
 *
 * `SLOWLOG` tells the time of a command, waits of the server for a processor included. What is slow by itself is slow in every round, so the
 * least of the slowest over the rounds counts. `COUNT` sets the number of messages (40), `ROUNDS` the repetitions (3).
 */
import { Deferred, Effect, References, Schedule, Schema } from "effect"
import { Redis as Client } from "ioredis"
import { createHash } from "node:crypto"
import {
  Channel,
  DeadLetters,
  Inspector,
  Publisher,
  Rotif,
  Scheduler,
  Subscription,
  Transaction
} from "../src/index.ts"
import { scripts as every } from "../test/fixtures/scripts.ts"
import { privateServer } from "./privateServer.ts"

const total = Number(process.env["COUNT"] ?? 40)
const rounds = Number(process.env["ROUNDS"] ?? 3)
const size = 2 ** 20
const limitMicros = 5_000

const text = "x".repeat(size)
const texts = Array.from({ length: total }, () => text)

/** Names of scripts, by their hash. */
const scripts = new Map<string, string>()
for (const { script: { lua, name } } of every) {
  scripts.set(createHash("sha1").update(lua).digest("hex"), name)
  scripts.set(lua, name)
}

type Entry = readonly [id: number, at: number, micros: number, args: ReadonlyArray<string>]

const nameOf = ([command = "", script = ""]: ReadonlyArray<string>) =>
  /^eval(sha)?$/i.test(command)
    ? scripts.get(script) ?? [...scripts].find(([lua]) => lua.startsWith(script.slice(0, 100)))?.[1] ?? "a script"
    : command.toUpperCase()

type Times = Array<number>

const roundsOf: Array<Map<string, Times>> = []

/** Runs a part, and takes note of what it took. */
const part = <E, R>(client: Client, seen: Map<string, Times>, what: string, body: Effect.Effect<unknown, E, R>) =>
  Effect.gen(function*() {
    yield* Effect.promise(() => client.call("slowlog", "reset"))
    yield* body.pipe(Effect.timeout("30 seconds"))
    const entries = (yield* Effect.promise(() => client.call("slowlog", "get", -1))) as ReadonlyArray<Entry>
    for (const [, , micros, args] of entries) {
      const name = `${what}\t${nameOf(args)}`
      const times = seen.get(name) ?? []
      seen.set(name, times)
      times.push(micros)
    }
  })

const make = (name: string) => Channel.make(name, { payload: Schema.String })
const In = make("large.in")
const Out = make("large.out")
const Late = make("large.late")

/** Handles so many, each of them as often as the policy says. */
const handle = <R = never, Transactional extends boolean = false>(
  channel: typeof In,
  wanted: number,
  options: Partial<Subscription.Options<typeof In, unknown, R, readonly [], Transactional>>,
  handler: Effect.Effect<unknown, unknown, R>
) =>
  Effect.scoped(Effect.gen(function*() {
    const all = yield* Deferred.make<void>()
    let seen = 0
    const subscription = yield* Subscription.make(channel, {
      group: "a",
      concurrency: 32,
      prefetch: 32,
      ...options,
      handler: () =>
        Effect.ensuring(
          handler,
          Effect.sync(() => {
            if (++seen === wanted) Deferred.doneUnsafe(all, Effect.void)
          })
        )
    })
    yield* Deferred.await(all)
    yield* subscription.drain
  }))

const once = Schedule.recurs(0)
const twice = Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 1 }))

const round = (port: number, client: Client, seen: Map<string, Times>) => {
  const of = <E, R>(what: string, body: Effect.Effect<unknown, E, R>) => part(client, seen, what, body)
  return Effect.gen(function*() {
    yield* Effect.promise(async () => {
      for (let i = 0; i < 20; i++) await client.xadd("plain", "*", "p", text)
      for (let i = 0; i < 20; i++) await client.xrange("plain", "-", "+", "COUNT", 1)
      await client.call("slowlog", "reset")
    })
    yield* of(
      "plain Redis",
      Effect.promise(async () => {
        for (let i = 0; i < 20; i++) await client.xadd("plain", "*", "p", text)
        for (let i = 0; i < 20; i++) await client.xrange("plain", "-", "+", "COUNT", 1)
        await client.del("plain")
      })
    )
    yield* of("publish", Effect.forEach(texts, (one) => Publisher.publish(In, one)))
    yield* of(
      "publish with a window",
      Effect.forEach(texts, (one, i) => Publisher.publish(Out, one, { throttle: { key: `k${i}`, window: "1 minute" } }))
    )
    yield* of("publishAll", Publisher.publishAll(In, texts))
    yield* of("handle", handle(In, 2 * total, {}, Effect.void))
    yield* of("retries, dead letters", handle(Out, 2 * total, { retry: twice }, Effect.fail("no")))
    yield* of("letters: list", DeadLetters.list({}, { limit: 100 }))
    yield* of("letters: requeue", DeadLetters.requeueAll({}, { limit: total }))
    yield* of("verify", Inspector.verify())
    yield* of("dead letters of the requeued", handle(Out, total, { retry: once }, Effect.fail("no")))
    yield* of(
      "letters: offered",
      Effect.scoped(Effect.gen(function*() {
        const all = yield* Deferred.make<void>()
        let count = 0
        yield* DeadLetters.subscribe({
          name: "s",
          handler: () =>
            Effect.sync(() => {
              if (++count === total) Deferred.doneUnsafe(all, Effect.void)
            })
        })
        yield* Deferred.await(all)
      }))
    )
    yield* of("letters: purge", DeadLetters.purge({}))
    yield* of("schedule", Publisher.publishAll(Late, texts, { delay: "4 seconds" }))
    yield* of("schedule: list", Scheduler.list({ limit: 100 }))
    yield* of("schedule: verify", Inspector.verify())
    yield* of("promote", handle(Late, total, { group: "d", lease: "1 second" }, Effect.void))
    yield* of(
      "take over",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Late, texts)
        yield* Effect.promise(() =>
          client.xreadgroup("GROUP", "d", "lost", "COUNT", total, "STREAMS", "{large:0}:log:large.late", ">")
        )
        yield* Effect.promise(() => client.call("slowlog", "reset"))
        yield* handle(Late, total, { group: "d", lease: "1 second" }, Effect.void)
      })
    )
    yield* of(
      "exactly once",
      Effect.andThen(Publisher.publishAll(In, texts), handle(In, total, { exactlyOnce: true }, Effect.void))
    )
    yield* of(
      "transactional",
      Effect.andThen(
        Publisher.publishAll(In, texts),
        handle<Transaction.Transaction | Publisher.Publisher, true>(
          In,
          total,
          { transactional: true },
          Transaction.publish(Late, text)
        )
      )
    )
    yield* of(
      "trim",
      Effect.repeat(
        Effect.promise(() => client.xlen("{large:0}:log:large.in")),
        { until: (length) => length === 0, schedule: Schedule.spaced("100 millis") }
      )
    )
  }).pipe(
    Effect.provide(
      Rotif.layer({
        url: `redis://127.0.0.1:${port}`,
        prefix: "large",
        graceMillis: 12_000,
        commandTimeout: "5 seconds",
        trimInterval: "500 millis",
        maxPayloadBytes: 2 ** 21
      })
    )
  )
}

const program = Effect.scoped(Effect.gen(function*() {
  const port = yield* privateServer
  const client = new Client({ port, host: "127.0.0.1" })
  yield* Effect.addFinalizer(() => Effect.sync(() => client.disconnect()))
  yield* Effect.promise(() => client.config("SET", "slowlog-log-slower-than", 0))
  yield* Effect.promise(() => client.config("SET", "slowlog-max-len", 100_000))
  for (let i = 0; i < rounds; i++) {
    yield* Effect.promise(() => client.flushall())
    const seen = new Map<string, Times>()
    roundsOf.push(seen)
    yield* round(port, client, seen)
  }
  const millis = (micros: number) => `${(micros / 1_000).toFixed(1)} ms`
  const most = (times: Times) => Math.max(...times)
  console.log(
    "| with messages of 1 MiB | command or script | of so many | median | slowest, of the best round | of all rounds | above 5 ms |"
  )
  console.log("| --- | --- | --- | --- | --- | --- | --- |")
  for (const name of new Set(roundsOf.flatMap((seen) => [...seen.keys()]))) {
    const each = roundsOf.flatMap((seen) => seen.get(name) === undefined ? [] : [seen.get(name)!])
    const all = each.flat().sort((a, b) => a - b)
    const [what, command] = name.split("\t")
    // A plain XADD is there for comparison.
    if (most(all) < 1_000 && command !== "XADD") continue
    const figures = [all[Math.floor(all.length / 2)]!, Math.min(...each.map(most)), most(all)].map(millis).join(" | ")
    console.log(
      `| ${what} | ${command} | ${all.length} | ${figures} | ${all.filter((micros) => micros > limitMicros).length} |`
    )
  }
}))

await Effect.runPromise(Effect.provideService(program, References.MinimumLogLevel, "Error"))
