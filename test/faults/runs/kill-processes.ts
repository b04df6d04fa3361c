/**
 * Consumers and publishers are killed with SIGKILL at random moments under load. One group is handled exactly once, and one in order by
 * a consumer that is not killed.
 */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, sound, until } from "../Run.ts"
import { type Job, Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const lease = 1_000

export default {
  number: 1,
  title: "SIGKILL of consumers and publishers under load",
  recoveryWithin: lease + 1_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const plan = yield* Effect.all(Array.from({ length: isShort ? 4 : 10 }, () =>
      Effect.all({
        victim: Random.nextIntBetween(0, 6, { halfOpen: true }),
        after: Random.nextIntBetween(50, 400)
      })))
    const server = yield* RedisServer.make()
    const recorder = new Recorder()
    const rotif = { url: server.url, prefix: "kill" }
    let started = 0
    const begin = (role: number) => {
      const name = `${["a", "a", "once", "once", "p", "p", "ordered"][role]}${started++}`
      const consumer = { name, lease, handlerMillis: 50, tellsBegun: true }
      const roles: ReadonlyArray<Omit<Job, "rotif">> = [
        { consumer: { ...consumer, group: "a" } },
        { consumer: { ...consumer, group: "a" } },
        { consumer: { ...consumer, group: "once", exactlyOnce: true } },
        { consumer: { ...consumer, group: "once", exactlyOnce: true } },
        { publisher: { name, everyMillis: 8 } },
        { publisher: { name, everyMillis: 8, delayMillis: 200 } },
        { consumer: { ...consumer, group: "ordered", name: "ordered", concurrency: 1, handlerMillis: 0 } }
      ]
      return Workers.start({ rotif, ...roles[role]! }, recorder)
    }
    const recoveries: Array<number> = []
    const killed = new Set<string>()
    return yield* Effect.gen(function*() {
      // Every group is there before anything is published: a new one begins with what the others have not settled.
      const consumers = yield* Effect.forEach([0, 1, 2, 3, 6], begin)
      yield* Effect.forEach(consumers, ({ ready }) => ready, { concurrency: 5 })
      const publishers = yield* Effect.forEach([4, 5], begin)
      yield* Effect.forEach(publishers, ({ ready }) => ready, { concurrency: 2 })
      const workers = [...consumers.slice(0, 4), ...publishers, consumers[4]!]
      let faults = 0
      for (const { after, victim } of plan) {
        yield* Effect.sleep(after)
        const worker = workers[victim]!
        const at = Date.now()
        yield* worker.kill("SIGKILL")
        faults++
        yield* worker.ended
        workers[victim] = yield* begin(victim)
        const { consumer } = worker.job
        if (consumer !== undefined) {
          killed.add(consumer.name)
          // The last of what it was at has to have come to another one, whether the new one runs or not.
          const held = recorder.heldBy(consumer.name)
          yield* until(
            `another consumer has begun with ${held.join(", ")}`,
            Effect.sync(() => held.every((text) => recorder.begunAfter(at, consumer.group, text) !== undefined))
          )
          const back = held.map((text) => recorder.begunAfter(at, consumer.group, text)!)
          if (back.length > 0) recoveries.push(Math.max(...back) - at)
        }
        yield* workers[victim].ready
      }
      for (const worker of workers.slice(4, 6)) yield* worker.kill("SIGKILL")
      const left = yield* settled(Work)
      const lasting = workers.filter((_, role) => role < 4 || role === 6)
      for (const worker of lasting) yield* worker.kill("SIGTERM")
      yield* Effect.forEach(workers, ({ ended }) => ended)
      const wrong = yield* sound()
      const account = recorder.account({
        groups: ["a", "once", "ordered"],
        ordered: ["ordered"],
        once: { groups: ["once"], mayRepeat: (consumer) => killed.has(consumer) }
      })
      const failures = lasting.flatMap((worker) => worker.failure() ?? [])
      return { ...account, faults, recoveries, violations: [...account.violations, ...left, ...wrong, ...failures] }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
