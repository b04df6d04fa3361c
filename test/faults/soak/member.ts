/**
 * A process of the soak: `node --conditions=rotif-source member.ts` with a `Job` in the environment variable JOB. It publishes in all
 * the ways there are, and handles; SIGUSR2 ends the publishing, SIGTERM the process.
 */
import { Cause, Data, Effect, Logger, Random, Result } from "effect"
import { writeSync } from "node:fs"
import type { Publisher as PublisherModule } from "rotif"
import { Channel, DeadLetters, Publisher, Retry, Rotif, Scheduler, Subscription, Transaction } from "rotif"
import { insistOn } from "../worker.ts"
import type { Item, Job } from "./load.ts"
import { Done, effects, Everything, isKept, Line, recurring, say, Tasks, Ticks, Work } from "./load.ts"

class Flaky extends Data.TaggedError("Flaky")<{}> {}
class Doomed extends Data.TaggedError("Doomed")<{}> {}
class Final extends Data.TaggedError("Final")<{}> {}

const retry = Retry.make({
  Flaky: Retry.fixed("50 millis", { times: 5 }),
  Doomed: Retry.fixed("50 millis", { times: 2 }),
  Final: Retry.term
})

let isQuiet = false

// Publishing --------------------------------------------------------------------------------------------------------------

/** Repeats an operation that may be done twice until it is answered. */
const again = <A, E extends { readonly isRetryable: boolean }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    let isFirst = true
    while (true) {
      const result = yield* Effect.result(effect)
      if (Result.isSuccess(result)) return { value: result.success, isFirst }
      if (!result.failure.isRetryable) return yield* Effect.die(result.failure)
      isFirst = false
      yield* Effect.sleep(20)
    }
  })

const publishing = Effect.fnUntraced(function*({ everyMillis, name, seed }: Job) {
  let number = 0
  const item = (kind: Item["kind"] = "plain"): Item => ({ text: `${name}-${number++}`, kind })

  const publish = Effect.fnUntraced(function*(
    channel: typeof Work | typeof Line | typeof Tasks,
    made: Item,
    options?: PublisherModule.PublishOptions
  ) {
    const receipt = yield* insistOn(channel, made, options)
    say({ event: "told", channel: channel.name, text: made.text })
    return receipt
  })

  const later = Effect.fnUntraced(function*() {
    const made = item()
    const delay = yield* Random.nextIntBetween(100, 2_000)
    const from = Date.now()
    const { id } = yield* insistOn(Work, made, { delay })
    const about = { channel: Work.name, text: made.text }
    say({ event: "told", ...about, dueAt: from + delay })
    return { id, about }
  })

  const steps = {
    plain: () => publish(Work, item()),
    flaky: () => publish(Work, item("flaky")),
    doomed: () => publish(Work, item("doomed")),
    final: () => publish(Work, item("final")),
    brief: () => publish(Work, item("brief"), { expiresIn: 1 }),
    later,
    cancelled: Effect.fnUntraced(function*() {
      const { about, id } = yield* later()
      yield* Effect.sleep(yield* Random.nextIntBetween(0, 200))
      say({ event: "unsure", ...about })
      const { isFirst, value: isInTime } = yield* again(
        Effect.catchTag(Scheduler.cancel(Work, id), "InvalidSchedule", Effect.die)
      )
      if (isInTime) say({ event: "cancelled", ...about })
      else if (isFirst) say({ event: "told", ...about })
    }),
    moved: Effect.fnUntraced(function*() {
      const { about, id } = yield* later()
      say({ event: "unsure", ...about })
      const delay = yield* Random.nextIntBetween(100, 2_000)
      const from = Date.now()
      const { isFirst, value: isInTime } = yield* again(
        Effect.catchTag(Scheduler.reschedule(Work, id, { delay }), "InvalidSchedule", Effect.die)
      )
      say({ event: "told", ...about, ...(isFirst && isInTime ? { dueAt: from + delay } : {}) })
    }),
    twice: Effect.fnUntraced(function*() {
      const made = item()
      const options = { id: `once-${made.text}`, deduplicate: { window: "10 seconds" } } as const
      yield* publish(Work, made, options)
      yield* publish(Work, made, options)
    }),
    many: Effect.fnUntraced(function*() {
      const made = Array.from({ length: 5 }, () => item())
      const result = yield* Effect.result(Publisher.publishAll(Work, made))
      if (Result.isSuccess(result)) {
        for (const { text } of made) say({ event: "told", channel: Work.name, text })
        return
      }
      if (result.failure._tag !== "PublishIncomplete") return yield* Effect.die(result.failure)
      for (const [i, outcome] of result.failure.outcomes.entries()) {
        if (outcome instanceof Error && "id" in outcome) yield* insistOn(Work, made[i]!, { id: outcome.id })
        else if (outcome instanceof Error) return yield* Effect.die(outcome)
        say({ event: "told", channel: Work.name, text: made[i]!.text })
      }
    }),
    line: () => publish(Line, item()),
    task: () => publish(Tasks, item()),
    flakyTask: () => publish(Tasks, item("flaky")),
    doomedTask: () => publish(Tasks, item("doomed"))
  }
  const names = [
    ...Object.keys(steps),
    "plain",
    "plain",
    "line",
    "line",
    "line",
    "task",
    "task",
    "task"
  ] as ReadonlyArray<keyof typeof steps>
  yield* Effect.gen(function*() {
    while (!isQuiet) {
      const step: Effect.Effect<unknown, never, Rotif.Services> = steps
        [names[yield* Random.nextIntBetween(0, names.length, { halfOpen: true })]!]()
      yield* step
      yield* Effect.sleep(everyMillis)
    }
  }).pipe(Random.withSeed(seed))
  say({ event: "quiet" })
})

// Handling ----------------------------------------------------------------------------------------------------------------

interface Delivered {
  readonly group: string
  readonly channel: string
  readonly id: string
  readonly attempt: number
  readonly deliveryCount: number
  readonly payload: Item
}

const aboutOf = ({ name }: Job, { channel, deliveryCount, group, id, payload: { kind, text } }: Delivered) => ({
  group,
  consumer: group === "ordered" ? group : name,
  channel,
  text: kind === "tick" ? id : text,
  deliveryCount,
  at: Date.now()
})

const handle = (job: Job) => (message: Delivered) =>
  Effect.andThen(Effect.sleep(2), Effect.sync(() => say({ event: "handled", ...aboutOf(job, message) })))

const tryToHandle = (job: Job) =>
  Effect.fnUntraced(function*(message: Delivered) {
    const { attempt, payload: { kind } } = message
    yield* Effect.sleep(20)
    if (kind === "flaky" && attempt < 3 || kind === "doomed" || kind === "final") {
      return yield* kind === "flaky" ? new Flaky() : kind === "doomed" ? new Doomed() : new Final()
    }
    say({ event: "handled", ...aboutOf(job, message) })
  })

const common = ({ lease, name }: Job) => ({
  consumer: name,
  lease,
  concurrency: 10,
  maxCrashes: 100_000,
  drainTimeout: "5 seconds"
} as const)

const crew = Effect.fnUntraced(function*(job: Job) {
  const options = { ...common(job), retry, handler: tryToHandle(job) }
  const remembered = { exactlyOnce: { ttl: "10 seconds" } } as const
  yield* Subscription.make(Work, { ...options, group: "plain" })
  yield* Subscription.make(Work, { ...options, ...remembered, group: "once" })
  yield* Subscription.make(Done, { ...options, group: "done" })
  yield* Subscription.make(Tasks, {
    ...options,
    ...remembered,
    group: "tx",
    transactional: true,
    handler: (message) =>
      Effect.andThen(
        tryToHandle(job)(message),
        Effect.orDie(Effect.gen(function*() {
          yield* Transaction.publish(Done, { ...message.payload, kind: "plain" })
          yield* Transaction.incrby(yield* Transaction.key(effects), 1)
        }))
      )
  })
})

/** Sends dead letters back with another payload, deletes some, keeps some. */
const clerk = DeadLetters.subscribe(Channel.union([Work, Tasks]), {
  name: "clerk",
  concurrency: 5,
  checkInterval: "1 second",
  retry: Retry.fixed("200 millis", { times: 1_000 }),
  handler: (letter) =>
    Effect.gen(function*() {
      const channel = letter.channel === Work.name ? Work : Tasks
      const made = yield* Channel.decode(channel, letter.raw)
      if (isKept(made)) return yield* letter.keep
      if (made.kind === "doomed") {
        yield* DeadLetters.requeue(letter.letterId, { channel, payload: { ...made, kind: "plain" } })
        return
      }
      say({ event: "buried", group: letter.group, channel: letter.channel, text: made.text })
      yield* letter.ack
    })
})

const steady = Effect.fnUntraced(function*(job: Job) {
  const options = { ...common(job), handler: handle(job) }
  yield* Scheduler.recurring(recurring.key, { every: recurring.everyMillis }, Ticks, { text: "", kind: "tick" }, {
    catchUp: { all: 1_000 }
  })
  yield* Subscription.make(Everything, { ...options, group: "all" })
  yield* Subscription.make(Line, { ...options, group: "ordered", concurrency: 1 })
  const pausing = yield* Subscription.make(Work, { ...options, group: "pausing" })
  yield* clerk
  yield* Effect.forkScoped(Effect.gen(function*() {
    while (!isQuiet) {
      yield* Effect.sleep(1_000)
      yield* pausing.pause
      yield* Effect.sleep(500)
      yield* pausing.resume
    }
  }))
  yield* Effect.forkScoped(Effect.gen(function*() {
    while (true) {
      const { heapUsed, rss } = process.memoryUsage()
      say({ event: "memory", rss: rss / 2 ** 20, heap: heapUsed / 2 ** 20 })
      yield* Effect.sleep(2_000)
    }
  }))
})

const program = (job: Job) =>
  Effect.gen(function*() {
    yield* job.role === "steady" ? steady(job) : crew(job)
    say({ event: "ready" })
    yield* publishing(job)
    yield* Effect.never
  }).pipe(Effect.scoped, Effect.provide(Rotif.layer(job.rotif)), Effect.provide(Logger.layer([])))

const fiber = Effect.runFork(program(JSON.parse(process.env["JOB"]!) as Job))
process.once("SIGTERM", () => fiber.interruptUnsafe())
process.once("SIGUSR2", () => {
  isQuiet = true
})
fiber.addObserver((exit) => {
  if (exit._tag === "Success" || Cause.hasInterruptsOnly(exit.cause)) return
  writeSync(2, Cause.pretty(exit.cause))
  process.exitCode = 1
})
