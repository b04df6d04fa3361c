/** The main path over real processes: killed while they hold leases, and interrupted at any moment. */
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Layer, Random, Schedule } from "effect"
import { Redis } from "ioredis"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { Publisher, Rotif, Stats } from "rotif"
import { inject } from "vitest"
import { accounts, blocking, type Job, Work } from "../fixtures/worker.ts"
import { freshPrefix, leftover, letters, nothingLeft } from "../contract/kit.ts"

const port = inject("redisPort")
const url = `redis://127.0.0.1:${port}`

interface Worker {
  readonly job: Job
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly ended: Effect.Effect<{
    readonly code: number | null
    readonly signal: NodeJS.Signals | null
    readonly output: string
  }>
}

const start = (job: Job): Effect.Effect<Worker, never, Scope.Scope> =>
  Effect.gen(function*() {
    let output = ""
    const child: ChildProcess = spawn(
      process.execPath,
      ["--conditions=rotif-source", join(import.meta.dirname, "../fixtures/worker.ts")],
      { env: { ...process.env, JOB: JSON.stringify(job) }, stdio: ["ignore", "pipe", "inherit"] }
    )
    const closed = new Promise<void>((resolve) => child.once("close", () => resolve()))
    yield* Effect.addFinalizer(() => Effect.sync(() => void child.kill("SIGKILL")))
    yield* Effect.promise(() =>
      new Promise<void>((resolve, reject) => {
        child.once("exit", () => reject(new Error(`the worker ended before it was ready: ${output}`)))
        child.stdout!.on("data", (chunk: Buffer) => {
          output += chunk.toString()
          if (output.includes("ready")) resolve()
        })
      })
    )
    return {
      job,
      kill: (signal) => Effect.sync(() => void child.kill(signal)),
      ended: Effect.map(
        Effect.promise(() => closed),
        () => ({ code: child.exitCode, signal: child.signalCode, output })
      )
    }
  })

const client = Effect.acquireRelease(
  Effect.sync(() => new Redis({ host: "127.0.0.1", port })),
  (redis) => Effect.sync(() => redis.disconnect())
)

const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(check, { until: (done) => done, schedule: Schedule.spaced(20) })

const withRotif = <A, E>(prefix: string, body: Effect.Effect<A, E, Rotif.Services | Scope.Scope>) =>
  body.pipe(Effect.scoped, Effect.provide(Layer.fresh(Rotif.layer({ url, prefix }))))

const nothingIsLeft = Effect.map(leftover(Work), (left) => JSON.stringify(left) === JSON.stringify(nothingLeft))

const lostHandOuts = Effect.map(
  Stats.channels(),
  (channels) => channels.flatMap(({ groups }) => groups).reduce((sum, { totals }) => sum + totals.crashed, 0)
)

describe("processes", () => {
  it.live("10,000 messages, two groups, consumers killed while they hold leases: nothing is lost", () => {
    const prefix = freshPrefix()
    const account = accounts(prefix)
    const log = `{${prefix}:0}:log:work`
    return withRotif(
      prefix,
      Effect.gen(function*() {
        const redis = yield* client
        let started = 0
        const begin = (group: string) =>
          start({
            port,
            prefix,
            group,
            consumer: `w${started++}-`,
            concurrency: 20,
            handlerMillis: 10,
            publishes: false
          })
        const workers = yield* Effect.all(["a", "a", "b", "b"].map(begin), { concurrency: 4 })
        const expected = Array.from({ length: 10_000 }, (_, i) => `m${i}`)
        const pendingOf = ({ job }: Worker) =>
          Effect.map(
            Effect.promise(() => redis.xpending(log, job.group)),
            ([, , , consumers]) =>
              ((consumers ?? []) as Array<[string, string]>).reduce(
                (sum, [name, count]) => name.startsWith(job.consumer) ? sum + Number(count) : sum,
                0
              )
          )
        let orphaned = 0
        for (let kills = 0; kills < 6; kills++) {
          const index = kills % workers.length
          const victim = workers[index]!
          yield* Publisher.publishAll(Work, expected.slice(kills * 1_500, (kills + 1) * 1_500))
          yield* until(Effect.map(pendingOf(victim), (count) => count > 0))
          yield* victim.kill("SIGKILL")
          assert.strictEqual((yield* victim.ended).signal, "SIGKILL")
          orphaned += yield* pendingOf(victim)
          workers[index] = yield* begin(victim.job.group)
        }
        assert.isAbove(orphaned, 0)
        yield* Publisher.publishAll(Work, expected.slice(9_000))
        yield* until(nothingIsLeft)
        for (const group of ["a", "b"]) {
          const handled = yield* Effect.promise(() => redis.smembers(account.handled(group)))
          assert.lengthOf(handled, expected.length)
          assert.deepStrictEqual(new Set(handled), new Set(expected))
        }
        // What came back from the dead was counted, and cost no attempt.
        assert.isAbove(yield* lostHandOuts, 0)
        assert.strictEqual(yield* Effect.promise(() => redis.scard(account.attempts)), 0)
      })
    )
  }, 60_000)

  it.live(
    "a handler that blocks its process for longer than the lease: others take over, and in the end it is quarantined",
    () => {
      const prefix = freshPrefix()
      return withRotif(
        prefix,
        Effect.gen(function*() {
          const redis = yield* client
          const job: Job = {
            port,
            prefix,
            group: "g",
            consumer: "w",
            concurrency: 5,
            handlerMillis: 5,
            publishes: false,
            maxCrashes: 1
          }
          const workers = yield* Effect.forEach(["w1", "w2"], (consumer) => start({ ...job, consumer }))
          const plain = Array.from({ length: 300 }, (_, i) => `m${i}`)
          yield* Publisher.publishAll(Work, [...plain.slice(0, 50), blocking, ...plain.slice(50)])
          yield* until(Effect.map(letters, (all) => all.some(({ payload }) => payload === JSON.stringify(blocking))))
          yield* until(nothingIsLeft)
          // What was beside it in the blocked process does not share its fate.
          const dead = yield* letters
          assert.deepStrictEqual(
            dead.map(({ failure, payload }) => [payload, failure.reason]),
            [[JSON.stringify(blocking), "crashed"]]
          )
          const handled = new Set(yield* Effect.promise(() => redis.smembers(accounts(prefix).handled("g"))))
          assert.deepStrictEqual(plain.filter((text) => !handled.has(text)), [])
          for (const worker of workers) {
            yield* worker.kill("SIGTERM")
            assert.strictEqual((yield* worker.ended).code, 0)
          }
        })
      )
    },
    60_000
  )

  it.live(
    "interrupted at any moment under load: nothing is lost, nothing is taken for a crash, nothing keeps running",
    () => {
      const prefix = freshPrefix()
      const account = accounts(prefix)
      return withRotif(
        prefix,
        Effect.gen(function*() {
          const redis = yield* client
          const job: Job = {
            port,
            prefix,
            group: "g",
            consumer: "w",
            concurrency: 10,
            handlerMillis: 3,
            publishes: true
          }
          const expected = Array.from({ length: 3_000 }, (_, i) => `m${i}`)
          yield* Publisher.publishAll(Work, expected)
          const rounds = Array.from({ length: 6 }, (_, round) => round)
          yield* Effect.forEach(rounds, (round) =>
            Effect.gen(function*() {
              const worker = yield* start({ ...job, consumer: `w${round}` })
              yield* Effect.sleep(yield* Random.nextIntBetween(0, 400))
              yield* worker.kill(round % 2 === 0 ? "SIGTERM" : "SIGINT")
              const { output, ...ended } = yield* worker.ended
              assert.deepStrictEqual(ended, { code: 0, signal: null })
              assert.isTrue(output.endsWith("ready\nleft [] and 0 fibers\n"), output)
            }), { concurrency: 2, discard: true })
          const last = yield* start({ ...job, publishes: false })
          yield* until(nothingIsLeft)
          yield* last.kill("SIGTERM")
          assert.strictEqual((yield* last.ended).code, 0)
          const handled = new Set(yield* Effect.promise(() => redis.smembers(account.handled("g"))))
          const published = yield* Effect.promise(() => redis.smembers(account.published))
          assert.isNotEmpty(published)
          assert.deepStrictEqual([...expected, ...published].filter((text) => !handled.has(text)), [])
          assert.strictEqual(yield* lostHandOuts, 0)
          assert.strictEqual(yield* Effect.promise(() => redis.scard(account.attempts)), 0)
        })
      )
    },
    60_000
  )
})
