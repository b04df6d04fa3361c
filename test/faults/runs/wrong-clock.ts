/** The clocks of all processes are wrong: an hour ahead, an hour behind, jumping two hours to and fro ten times a second. */
import { Effect } from "effect"
import { Rotif, Scheduler, Subscription } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import type { Wrong } from "../clock.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled } from "../Run.ts"
import { type Job, Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const hour = 3_600_000
const everyMillis = 500
const delayMillis = 300

/** Nothing is late by more, on a machine that has other things to do. */
const lateMillis = 2_000

export default {
  number: 12,
  title: "Clocks an hour ahead, an hour behind, and jumping",
  body: Effect.fnUntraced(function*({ isShort }) {
    const server = yield* RedisServer.make()
    const recorder = new Recorder()
    const rotif = { url: server.url, prefix: "clock" }
    const publisher = (name: string) => ({ name, everyMillis: 30, delayMillis, expiresMillis: 60_000 })
    // Handlers of the second group outlast their leases by far: renewals keep them.
    const slow = { lease: 1_000, handlerMillis: 1_500, concurrency: 500, exactlyOnce: true }
    const wrong: ReadonlyArray<readonly [Wrong, Omit<Job, "rotif">]> = [
      [{ shiftMillis: hour }, { publisher: publisher("ahead"), consumer: { group: "quick", name: "ahead" } }],
      [{ shiftMillis: -hour }, {
        publisher: publisher("behind"),
        consumer: { group: "slow", name: "behind", ...slow }
      }],
      [{ jumpMillis: hour }, {
        publisher: publisher("jumping"),
        consumer: { group: "slow", name: "jumping", ...slow }
      }],
      [{ shiftMillis: hour, jumpMillis: hour }, { consumer: { group: "quick", name: "both" }, ticks: { everyMillis } }]
    ]
    return yield* Effect.gen(function*() {
      // Every group is there before anything is published.
      for (const group of ["quick", "slow"]) {
        yield* Effect.scoped(Subscription.make(Work, { group, lease: 1_000, handler: () => Effect.never }))
      }
      const workers = yield* Effect.forEach(
        wrong,
        ([clock, job]) => Workers.start({ rotif, ...job }, recorder, { clock })
      )
      yield* Effect.forEach(workers, ({ ready }) => ready, { concurrency: "unbounded" })
      yield* Effect.sleep(isShort ? 3_000 : 10_000)
      // Publishers end, their messages do not; one consumer of each group stays until all is handled.
      const stoppedAt = Date.now()
      const elapsed = recorder.deliveries.filter(({ group, text }) => group === "quick" && text === "tick-0")
      for (const worker of workers.slice(0, 3)) yield* worker.kill("SIGTERM")
      yield* Effect.forEach(workers.slice(0, 3), ({ ended }) => ended)
      const last = yield* Workers.start(
        { rotif, consumer: { group: "slow", name: "last", ...slow } },
        recorder,
        { clock: { shiftMillis: -hour, jumpMillis: hour } }
      )
      yield* last.ready
      yield* Scheduler.removeRecurring("tick")
      const left = yield* settled(Work)
      for (const worker of [workers[3]!, last]) yield* worker.kill("SIGTERM")
      yield* Effect.forEach([workers[3]!, last], ({ ended }) => ended)

      const violations: Array<string> = []
      const ticks = elapsed.map(({ at }) => at)
      const span = ticks.at(-1)! - ticks[0]!
      const expected = Math.floor(span / everyMillis) + 1
      if (Math.abs(ticks.length - expected) > 1) {
        violations.push(`${ticks.length} ticks in ${span} ms, one is due every ${everyMillis} ms`)
      }
      for (const { at, deliveryCount, group, publishedAt = 0, text } of recorder.deliveries) {
        if (Math.abs(at - publishedAt) > 60_000) {
          violations.push(`${text} was handled at ${at} and published at ${publishedAt}`)
        }
        // What a consumer gives back at its end is handed out again.
        if (group === "slow" && deliveryCount > 1 && at < stoppedAt && text !== "tick-0") {
          violations.push(`the lease of ${text} was lost`)
        }
      }
      const account = recorder.account({ groups: ["quick", "slow"] })
      const late = recorder.lateBy("quick").filter((millis) => millis > lateMillis)
      if (late.length > 0) violations.push(`${late.length} were late, by up to ${Math.max(...late)} ms`)
      return {
        ...account,
        // A tick is published again and again.
        repeated: 0,
        faults: wrong.length + 1,
        recoveries: [],
        violations: [...account.violations, ...violations.slice(0, 5), ...left]
      }
    }).pipe(Effect.provide(Rotif.layer({ ...rotif, delayed: false })))
  })
} satisfies Run
