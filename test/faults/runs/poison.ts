/**
 * One message among a hundred kills every process that handles it. Two processes, which come back each time they die, read for the group
 * that it kills and, beside it, for one that takes its time and is not killed by anything. In the end there is one dead letter.
 */
import { Effect, Random } from "effect"
import { Publisher, Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { letters } from "../../contract/kit.ts"
import { Recorder } from "../Recorder.ts"
import { happens, type Run, settled, sound } from "../Run.ts"
import { type Job, Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const lease = 1_000
const poison = "poison-0"
const goodOnes = 100
/** It kills one process more: of the first nobody knows which message it was. */
const maxCrashes = 3

const modes = [{}, { exactlyOnce: true }, { transactional: true }] as const
const concurrencies = [1, 4, 32] as const
const prefetches = [0, undefined, 50] as const

export default {
  number: 15,
  title: "One message of 101 kills whoever handles it",
  body: Effect.fnUntraced(function*({ isShort, seed }) {
    // All ways within a few repetitions, whatever their first seed.
    const mode = modes[seed % 3]!
    const concurrency = concurrencies[Math.floor(seed / 3) % 3]!
    const prefetch = isShort ? undefined : prefetches[Math.floor(seed / 9) % 3]
    const place = yield* Random.nextIntBetween(0, goodOnes)
    const handlerMillis = yield* Random.nextIntBetween(1, 60)
    const server = yield* RedisServer.make()
    const rotif = { url: server.url, prefix: "poison" }
    const recorder = new Recorder()
    return yield* Effect.gen(function*() {
      const texts = Array.from({ length: goodOnes }, (_, n) => `good-${n}`)
      texts.splice(place, 0, poison)
      yield* Publisher.publishAll(Work, texts)
      for (const text of texts) recorder.told(text)

      let started = 0
      const begin = () => {
        const name = `c${started++}`
        const common = {
          name,
          lease,
          concurrency,
          tellsBegun: true,
          maxCrashes,
          ...(prefetch === undefined ? {} : { prefetch })
        }
        const job: Job = {
          rotif,
          consumer: { ...common, ...mode, group: "killed", handlerMillis, diesOf: poison },
          also: [{ consumer: { ...common, group: "beside", handlerMillis: 4 * handlerMillis } }]
        }
        return Workers.start(job, recorder)
      }
      const workers = [yield* begin(), yield* begin()]
      let deaths = 0
      let isOver = false
      const keepAlive = Effect.fnUntraced(function*(i: number) {
        for (; !isOver; deaths++) {
          yield* workers[i]!.ended
          if (isOver) return
          workers[i] = yield* begin()
        }
      })
      for (const i of workers.keys()) yield* Effect.forkScoped(keepAlive(i))
      const isBuried = yield* happens(Effect.map(letters, (dead) => dead.length > 0), 60_000)
      const left = yield* settled(Work)
      isOver = true
      yield* Effect.forEach(workers, ({ ready }) => ready)
      for (const worker of workers) yield* worker.kill("SIGTERM")
      yield* Effect.forEach(workers, ({ ended }) => ended)
      const wrong = yield* sound()
      const dead = yield* letters
      const violations = dead.length === 1 && isBuried
        ? []
        : [
          `${dead.length} dead letters: ${
            dead.map(({ crashes, group, payload }) => `${payload} of ${group} after ${crashes}`).join(", ")
          }`
        ]
      for (const { failure, group, payload } of dead) {
        if (failure.reason !== "crashed" || group !== "killed" || payload !== JSON.stringify(poison)) {
          violations.push(`${payload} of ${group} is a dead letter: ${failure.reason}`)
        }
      }
      if (deaths > maxCrashes + 1) violations.push(`it killed ${deaths} processes, more than ${maxCrashes + 1}`)
      const account = recorder.account({
        groups: ["killed", "beside"],
        isKept: (group, text) => group === "killed" && text === poison
      })
      const failures = workers.flatMap((worker) => worker.failure() ?? [])
      return {
        ...account,
        faults: deaths,
        recoveries: [],
        violations: [
          ...account.violations,
          ...violations,
          ...left,
          ...wrong,
          ...failures
        ].map((text) => `${JSON.stringify({ mode, concurrency, prefetch, place, handlerMillis })}: ${text}`)
      }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
