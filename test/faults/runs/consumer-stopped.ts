/**
 * Consumers are frozen with SIGSTOP for longer than their lease, and continued while others have taken their messages over. What they
 * settle late is refused and told as `LeaseLost`; the effects of transactions happen once.
 */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { effectsOf } from "../Mix.ts"
import { pendingOf } from "../pending.ts"
import { type Handled, Recorder } from "../Recorder.ts"
import { type Run, settled, sound, until } from "../Run.ts"
import { type Job, Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const lease = 500

/** Two processes with a consumer of each group. */
const consumersOf = (process: number): ReadonlyArray<NonNullable<Job["consumer"]>> => [
  { group: "a", name: `a${process}`, lease, settles: true, handlerMillis: 40 },
  { group: "once", name: `once${process}`, lease, transactional: true, handlerMillis: 40 }
]
const groups = ["a", "once"]

export default {
  number: 4,
  title: "SIGSTOP of consumers beyond their lease, and SIGCONT",
  recoveryWithin: lease + 1_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const stops = isShort ? 3 : 12
    const plan = yield* Effect.all(
      Array.from({ length: stops }, () =>
        Effect.all({
          victim: Random.nextIntBetween(0, 1),
          after: Random.nextIntBetween(50, 400),
          more: Random.nextIntBetween(0, 500)
        }))
    )
    const server = yield* RedisServer.make()
    const recorder = new Recorder()
    const rotif = { url: server.url, prefix: "frozen", graceMillis: 600_000 }
    const begun: Array<Handled> = []
    const late: Array<Handled> = []
    const recoveries: Array<number> = []
    const violations: Array<string> = []
    return yield* Effect.gen(function*() {
      const begin = (job: Job) =>
        Workers.start(job, recorder, {
          onEvent: (event) => {
            if (event.event === "begun") begun.push(event)
            else if (event.event === "late") late.push(event)
          }
        })
      const workers = yield* Effect.forEach(
        [0, 1],
        (process) => begin({ rotif, also: consumersOf(process).map((consumer) => ({ consumer })) })
      )
      // Every group is there before anything is published.
      yield* Effect.forEach(workers, ({ ready }) => ready, { concurrency: "unbounded" })
      const publisher = yield* begin({ rotif, publisher: { name: "p", everyMillis: 3 } })
      yield* publisher.ready
      for (const { after, more, victim } of plan) {
        yield* Effect.sleep(after)
        const worker = workers[victim]!
        yield* worker.kill("SIGSTOP")
        const at = Date.now()
        const held = Effect.map(
          Effect.forEach(
            consumersOf(victim),
            ({ group, name }) => pendingOf(server, name, [["{frozen:0}:log:work", group]])
          ),
          (each) => each.flat()
        )
        const before = yield* held
        yield* until(`others took over ${before.join(", ")}`, Effect.map(held, (left) => left.length === 0))
        if (before.length > 0) recoveries.push(Date.now() - at)
        yield* Effect.sleep(more)
        const contAt = Date.now()
        yield* worker.kill("SIGCONT")
        for (const { group, name } of consumersOf(victim)) {
          // It is back when it handles what it was handed since.
          yield* until(
            `${name} goes on`,
            Effect.sync(() => recorder.deliveries.some((one) => one.consumer === name && one.at >= contAt))
          )
          // What another had begun by then was not its to acknowledge. One whose handler had ended before, and that was being
          // sent in the moment in which it was frozen, cannot be called back, and does no harm: the work was done.
          const others = new Map(
            begun.filter((one) => one.group === group && one.consumer !== name && one.at < contAt)
              .map((one) => [one.text, one.deliveryCount])
          )
          for (const one of recorder.deliveries) {
            if (one.consumer !== name || one.at < contAt || (one.settlingAt ?? 0) <= at) continue
            if ((others.get(one.text) ?? 0) <= one.deliveryCount) continue
            violations.push(`${name} acknowledged ${one.text} although another consumer had it`)
          }
        }
      }
      const crashed = [...workers, publisher].filter((worker) => !worker.isRunning())
      if (crashed.length > 0) violations.push(`${crashed.length} processes ended by themselves`)
      yield* publisher.kill("SIGKILL")
      violations.push(...(yield* settled(Work)))
      for (const worker of workers) yield* worker.kill("SIGTERM")
      yield* Effect.forEach([...workers, publisher], ({ ended }) => ended)
      if (late.length === 0) violations.push("no late settlement was refused: the run shows nothing")
      const account = recorder.account({ groups })
      return {
        ...account,
        faults: stops,
        recoveries,
        violations: [
          ...account.violations,
          ...violations,
          ...(yield* sound()),
          ...(yield* effectsOf(recorder.toldBetween(0)))
        ]
      }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
