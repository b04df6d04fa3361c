/**
 * The load during faults of Redis: processes that publish immediate and delayed messages, two groups that share and retry, one that reads by
 * a pattern, and one whose effects are transactions.
 */
import { Effect } from "effect"
import { Broker, Inspector, type Rotif } from "rotif"
import type { RedisServer } from "../fixtures/RedisServer.ts"
import type { Recorder } from "./Recorder.ts"
import { settled, sound, until } from "./Run.ts"
import { effectOf, type Event, type Job, Work } from "./worker.ts"
import * as Workers from "./Workers.ts"

export const groups = ["a", "b", "all", "once"] as const

type Consumer = NonNullable<Job["consumer"]>

/** Few processes: a fault of Redis hits all of them, and many would start slowly. */
const consumers: ReadonlyArray<readonly [Consumer, ...ReadonlyArray<Consumer>]> = [
  [
    { group: "a", name: "a0", failEvery: 11 },
    { group: "b", name: "b0" },
    { group: "once", name: "once0", transactional: true, failEvery: 13 }
  ],
  [
    { group: "a", name: "a1", failEvery: 11 },
    { group: "all", name: "all0", pattern: true },
    { group: "once", name: "once1", transactional: true, failEvery: 13 }
  ]
]

/** The delay of a delayed message. */
const delayMillis = 200

export const start = Effect.fnUntraced(function*(options: {
  readonly rotif: Rotif.RedisOptions
  readonly recorder: Recorder
  readonly lease?: number
  readonly everyMillis?: number
}) {
  const { everyMillis = 4, lease = 1_000, recorder, rotif } = options
  const logs: Array<Extract<Event, { readonly event: "log" }>> = []
  const refusals: Array<Extract<Event, { readonly event: "refused" }>> = []
  const begin = (job: Job) =>
    Workers.start(job, recorder, {
      onEvent: (event) => {
        if (event.event === "log") logs.push(event)
        else if (event.event === "refused") refusals.push(event)
      }
    })
  let publishing = 0
  const publish = Effect.suspend(() =>
    begin({
      rotif,
      publisher: { name: `p${publishing++}`, everyMillis },
      also: [{ publisher: { name: `p${publishing++}`, everyMillis, delayMillis } }]
    })
  )
  const handling = yield* Effect.forEach(consumers, ([first, ...others]) =>
    begin({
      rotif,
      consumer: { ...first, lease },
      also: others.map((consumer) => ({ consumer: { ...consumer, lease } }))
    }))
  // Every group is there before anything is published: a new one begins with what the others have not settled.
  yield* Effect.forEach(handling, ({ ready }) => ready, { concurrency: "unbounded" })
  let publisher = yield* publish
  yield* publisher.ready

  const missing = (from: number, to?: number) => {
    const texts = recorder.toldBetween(from, to)
    const handled = new Set(recorder.deliveries.map(({ group, text }) => `${group}\n${text}`))
    return groups.flatMap((group) =>
      texts.filter((text) => !handled.has(`${group}\n${text}`)).map((text) => `${text} for ${group}`)
    )
  }

  return {
    logs,
    refusals,
    /** Waits until each group has handled a message that was published after this moment; gives the milliseconds from then. */
    recovered: (at: number) =>
      Effect.gen(function*() {
        yield* until(
          `every group handles what is published after a fault`,
          Effect.sync(() => groups.every((group) => recorder.firstOfAfter(at, group) !== undefined)),
          30_000
        )
        return Math.max(...groups.map((group) => recorder.firstOfAfter(at, group)! - at))
      }),
    /** Waits until every group has handled all messages whose publish began in this time. */
    handled: (from: number, to?: number) =>
      Effect.suspend(() => {
        let left: ReadonlyArray<string> = []
        const isDone = Effect.sync(() => (left = missing(from, to)).length === 0)
        return until("", isDone, 30_000).pipe(
          Effect.catchDefect(() =>
            Effect.die(
              new Error(
                `${left.length} messages that were published after a fault are not handled: ${left.slice(0, 9).join()}`
              )
            )
          )
        )
      }),
    /** Ends the publishers. */
    silence: Effect.suspend(() => Effect.andThen(publisher.kill("SIGKILL"), publisher.ended)),
    publishAgain: Effect.gen(function*() {
      publisher = yield* publish
      yield* publisher.ready
    }),
    /**
     * Ends the load, and gives the broken rules: processes that ended by themselves, and messages left in Redis. Where data was removed, it
     * repairs first; `except` lists what no repair restores.
     */
    end: Effect.fnUntraced(function*(removed?: { readonly except: ReadonlyArray<Inspector.Kind> }) {
      const crashed = [...handling, publisher].filter((worker) => !worker.isRunning())
        .map(({ job }) => `a process ended by itself: ${job.consumer?.name ?? job.publisher?.name}`)
      yield* publisher.kill("SIGKILL")
      if (removed !== undefined) yield* Inspector.repair({ tolerance: 0, confirmAfter: 300 })
      const left = yield* settled(Work, removed)
      for (const worker of handling) yield* worker.kill("SIGTERM")
      yield* Effect.forEach([...handling, publisher], ({ ended }) => ended, { concurrency: "unbounded" })
      return [...crashed, ...left, ...(yield* sound(removed?.except))]
    })
  }
})

/** I2: reports the effects of transactions that did not happen exactly once. */
export const effectsOf = Effect.fnUntraced(function*(texts: ReadonlyArray<string>) {
  const broker = yield* Broker.Broker
  const wrong: Array<string> = []
  yield* Effect.forEach(
    texts,
    (text) =>
      Effect.map(broker.own.read(broker.own.keyFor(Work.name, effectOf(text))), (count) => {
        if (count !== "1") wrong.push(`${text} ${JSON.stringify(count)} times`)
      }),
    { concurrency: 50, discard: true }
  )
  return wrong.length === 0 ? [] : [`I2: ${wrong.length} effects not once: ${wrong.slice(0, 5).join(", ")}`]
})

/** Reports messages that the log has more than once, or that are published and not in it. For logs from which nothing is removed. */
export const storedOnce = Effect.fnUntraced(function*(server: RedisServer, log: string, recorder: Recorder) {
  const entries = (yield* server.command("xrange", log, "-", "+")) as ReadonlyArray<
    readonly [string, ReadonlyArray<string>]
  >
  const counts = new Map<string, number>()
  for (const [, fields] of entries) {
    const text = JSON.parse(fields.at(-1)!) as string
    counts.set(text, (counts.get(text) ?? 0) + 1)
  }
  const doubled = [...counts].filter(([, count]) => count > 1).map(([text]) => text)
  const missing = recorder.toldBetween(0).filter((text) => !counts.has(text))
  return [
    ...(doubled.length === 0 ? [] : [`${doubled.length} messages are stored twice: ${doubled.slice(0, 5).join(", ")}`]),
    ...(missing.length === 0
      ? []
      : [`I1: ${missing.length} messages are not stored: ${missing.slice(0, 5).join(", ")}`])
  ]
})
