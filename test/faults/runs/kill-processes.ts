/** Consumers and publishers are killed with SIGKILL at random moments under load. */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, until } from "../Run.ts"
import { type Job, Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const lease = 1_000
const groups = ["a", "b"]

export default {
  number: 1,
  title: "SIGKILL of consumers and publishers under load",
  recoveryWithin: lease + 1_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const kills = isShort ? 4 : 20
    const plan = yield* Effect.all(
      Array.from(
        { length: kills },
        () =>
          Effect.all({ victim: Random.nextIntBetween(0, 6, { halfOpen: true }), after: Random.nextIntBetween(50, 400) })
      )
    )
    const server = yield* RedisServer.make()
    const recorder = new Recorder()
    const rotif = { url: server.url, prefix: "kill" }
    let started = 0
    const begin = (role: number) => {
      const name = `${role < 4 ? "c" : "p"}${started++}`
      const job: Job = role < 4
        ? { rotif, consumer: { group: groups[role % 2]!, name, lease } }
        : { rotif, publisher: { name, ...(role === 5 ? { delayMillis: 200 } : {}) } }
      return Workers.start(job, recorder)
    }
    const recoveries: Array<number> = []
    return yield* Effect.gen(function*() {
      const workers = yield* Effect.forEach([0, 1, 2, 3, 4, 5], begin)
      yield* Effect.forEach(workers, ({ ready }) => ready, { concurrency: 6 })
      let faults = 0
      for (const { after, victim } of plan) {
        yield* Effect.sleep(after)
        const worker = workers[victim]!
        yield* worker.kill("SIGKILL")
        const at = Date.now()
        faults++
        yield* worker.ended
        workers[victim] = yield* begin(victim)
        const { consumer } = worker.job
        if (consumer === undefined) continue
        // What the dead process had been handed, and had not settled, comes to another one.
        const before = new Set(
          recorder.deliveries.filter(({ group }) => group === consumer.group).map(({ text }) => text)
        )
        yield* until(
          "a message of the killed consumer came back",
          Effect.sync(() => {
            const back = recorder.deliveries.find(({ at: when, deliveryCount, group, text }) =>
              when >= at && group === consumer.group && deliveryCount > 1 && !before.has(text)
            )
            if (back !== undefined) recoveries.push(back.at - at)
            return back !== undefined
          })
        )
        yield* workers[victim].ready
      }
      for (const worker of workers.slice(4)) yield* worker.kill("SIGKILL")
      const left = yield* settled(Work)
      for (const worker of workers.slice(0, 4)) yield* worker.kill("SIGTERM")
      yield* Effect.forEach(workers, ({ ended }) => ended)
      const account = recorder.account({ groups })
      return { ...account, faults, recoveries, violations: [...account.violations, ...left] }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
