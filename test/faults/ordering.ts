/**
 * Four processes handle messages with ordering keys, of which ten have a fifth of all, while they are killed, stopped for longer than their
 * lease and cut off, Redis is killed and restarted, and forgets its scripts.
 */
import { Effect, Random, type Scope } from "effect"
import { Redis as Client } from "ioredis"
import { Publisher, Rotif } from "rotif"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"
import { type Flaw, settledKey } from "./flaws.ts"
import { type Step, violationsOf } from "./KeyOrder.ts"
import { group, type Job, stepsKey, Texts } from "./orderingWorker.ts"
import { happens, type Outcome, settled, sound, until } from "./Run.ts"
import * as Workers from "./Workers.ts"

const prefix = "ordering"
const lease = 2_000
const processes = 4
const hotKeys = 10

export const kinds = ["kill", "freeze", "stop", "cut", "lost reply", "flush", "restart"] as const

/** Acknowledgements of messages with ordering keys. */
const isLeave = (request: Buffer) => request.includes(":taken:") && request.includes(":counts")

export interface Size {
  readonly keys: number
  readonly batches: number
  readonly batch: number
  readonly faults: ReadonlyArray<(typeof kinds)[number]>
  /** How long a handler takes at most. */
  readonly handlerMillis: number
  readonly flaw?: Flaw | undefined
}

export const run = Effect.fnUntraced(function*(
  { batch, batches, faults, flaw, handlerMillis, keys }: Size
): Effect.fn.Return<Outcome, unknown, Scope.Scope> {
  const plan = yield* Effect.forEach(faults, (kind) =>
    Effect.all({
      kind: Effect.succeed(kind),
      victim: Random.nextIntBetween(0, processes, { halfOpen: true }),
      after: Random.nextIntBetween(50, 600)
    }))
  const draws = yield* Effect.all(Array.from({ length: batches * batch }, () => Random.next))
  const server = yield* RedisServer.make({ appendonly: "yes", appendfsync: "always" })
  const recorder = yield* RedisServer.make()
  const proxies = yield* Effect.forEach(Array.from({ length: processes }), () => TcpProxy.make(server))
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => new Client({ port: recorder.port })),
    (client) => Effect.sync(() => client.disconnect())
  )
  const tell = (worker: string) => Effect.promise(() => client.rpush(stepsKey, `gone ${worker} -`))
  let started = 0
  const stopped = new Set<number>()
  const begin = (place: number) =>
    Workers.spawnProgram<Job, { readonly event: string }>(
      "orderingWorker.ts",
      { name: `w${started++}`, url: proxies[place]!.url, prefix, recorder: recorder.port, lease, handlerMillis, flaw },
      ({ event }) => {
        if (event === "stopping") stopped.add(place)
      }
    )

  return yield* Effect.gen(function*() {
    const workers = yield* Effect.forEach(Array.from({ length: processes }, (_, i) => i), begin)
    yield* Effect.forEach(workers, ({ ready }) => ready, { concurrency: "unbounded" })
    const counts = new Map<string, number>()
    const textOf = (draw: number) => {
      const key = draw < 0.2 ? `hot${Math.floor(draw / 0.2 * hotKeys)}` : `k${Math.floor((draw - 0.2) / 0.8 * keys)}`
      const count = counts.get(key) ?? 0
      counts.set(key, count + 1)
      return `${key}-${count}`
    }
    const publishing = yield* Effect.forkChild(Effect.gen(function*() {
      for (let from = 0; from < draws.length; from += batch) {
        const texts = draws.slice(from, from + batch).map(textOf)
        let left: ReadonlyArray<{ readonly text: string; readonly id?: string | undefined }> = texts.map((text) => ({
          text
        }))
        // The order of a key is that of the log, whatever becomes of a batch.
        while (left.length > 0) {
          const result = yield* Effect.result(
            Publisher.publishAll(Texts, left.map(({ text }) => text), (_, i) => {
              const { id } = left[i]!
              return id === undefined ? {} : { id }
            })
          )
          if (result._tag === "Success") break
          const error = result.failure
          if (error._tag !== "PublishIncomplete") return yield* Effect.die(error)
          const again = left.flatMap(({ text }, i) => {
            const one = error.outcomes[i]!
            return one instanceof Error ? [{ text, id: "id" in one ? String(one.id) : undefined }] : []
          })
          left = again
          yield* Effect.sleep(50)
        }
      }
    }))

    const recoveries: Array<number> = []
    for (const { after, kind, victim } of plan) {
      yield* Effect.sleep(after)
      const worker = workers[victim]!
      const { name } = worker.job
      switch (kind) {
        case "kill":
          yield* worker.kill("SIGKILL")
          yield* worker.ended
          yield* tell(name)
          workers[victim] = yield* begin(victim)
          yield* workers[victim].ready
          break
        case "freeze":
          yield* worker.kill("SIGSTOP")
          yield* tell(name)
          yield* Effect.sleep(lease + 1_500)
          yield* worker.kill("SIGCONT")
          break
        // Between the end of a handler and its acknowledgement.
        case "stop":
          stopped.delete(victim)
          yield* worker.kill("SIGUSR2")
          if (yield* happens(Effect.sync(() => stopped.has(victim)), 5_000)) {
            yield* tell(name)
            yield* Effect.sleep(lease + 1_500)
            yield* worker.kill("SIGCONT")
          }
          break
        case "lost reply":
          yield* Effect.flatMap(proxies[victim]!.dropReplyOnce(isLeave), Effect.timeoutOption("5 seconds"))
          break
        case "cut":
          yield* proxies[victim]!.cut
          break
        case "flush":
          yield* server.command("script", "flush")
          break
        case "restart":
          yield* server.kill
          yield* server.restart
          break
      }
    }
    yield* until("everything is published", Effect.sync(() => publishing.pollUnsafe() !== undefined), 120_000)
    const left = yield* settled(Texts, { within: flaw === undefined ? 120_000 : 15_000 })
    const crashed = workers.filter((worker) => !worker.isRunning()).map(({ job }) => `${job.name} ended by itself`)
    for (const worker of workers) yield* worker.kill("SIGTERM")
    yield* Effect.forEach(workers, ({ ended }) => ended)
    const tag = `{${prefix}:0}`
    const gate: Array<string> = []
    for (const name of ["busy", "lines", "behind"]) {
      const key = `${tag}:${name}:${group}:${Texts.name}`
      if ((yield* server.command("exists", key)) !== 0) gate.push(`${key} is left behind`)
    }
    const entries = (yield* server.command("xrange", `${tag}:log:${Texts.name}`, "-", "+")) as ReadonlyArray<
      readonly [string, ReadonlyArray<string>]
    >
    const stored = entries.map(([, fields]) => JSON.parse(fields.at(-1)!) as string)
    const done = (yield* server.command("lrange", settledKey(prefix), "0", "-1")) as ReadonlyArray<string>
    const steps = (yield* Effect.promise(() => client.lrange(stepsKey, 0, -1))).map((line) => {
      const [is, worker, text] = line.split(" ")
      return { is, worker, text } as Step
    })
    yield* server.command("del", settledKey(prefix))
    const begun = steps.filter(({ is }) => is === "begin")
    return {
      messages: stored.length,
      faults: plan.length,
      lost: 0,
      repeated: begun.length - stored.length,
      recoveries,
      violations: [
        ...crashed,
        ...left,
        ...gate,
        ...violationsOf(stored, done.map((text) => JSON.parse(text) as string), steps),
        ...(yield* sound())
      ]
    }
  }).pipe(Effect.provide(Rotif.layer({ url: server.url, prefix, graceMillis: 3_600_000 })))
})
