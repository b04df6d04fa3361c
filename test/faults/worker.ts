/**
 * A process that publishes and handles, to be killed, stopped and continued: `node --conditions=rotif-source worker.ts` with a `Job` in
 * the environment variable JOB. It prints a line of JSON for everything that counts, in one write each, before it goes on: what was
 * printed has happened, whatever happens to the process then.
 */
import { Cause, DateTime, Effect, Logger, Schema } from "effect"
import { writeSync } from "node:fs"
import { Channel, Publisher, Rotif, Scheduler, Subscription } from "rotif"
import { trueNow } from "./clock.ts"
import type { Handled } from "./Recorder.ts"

export interface Job {
  /** Where Redis is, and any other option of the layer. */
  readonly rotif: Rotif.RedisOptions
  readonly consumer?: {
    readonly group: string
    readonly name: string
    /** Default: 10. */
    readonly concurrency?: number
    /** Milliseconds. Default: 1,000. */
    readonly lease?: number
    /** How long a handler takes. Default: 5. */
    readonly handlerMillis?: number
    readonly exactlyOnce?: boolean
    /** It says when a handler begins, too. */
    readonly tellsBegun?: boolean
  }
  /** Defines a recurring message, handled as `tick-0` by all groups. */
  readonly ticks?: { readonly everyMillis: number }
  readonly publisher?: {
    /** Its messages are `<name>-0`, `<name>-1`, … */
    readonly name: string
    /** The pause between two publishes. Default: 2. */
    readonly everyMillis?: number
    /** Every second message is delayed by so much. Default: none is. */
    readonly delayMillis?: number
    /** Every third message may be handled for so long, from when it is due. Default: none has an end. */
    readonly expiresMillis?: number
  }
}

export type Event =
  | { readonly event: "ready" }
  | { readonly event: "told"; readonly text: string; readonly at: number; readonly dueAt?: number }
  | { readonly event: "begun" } & Handled
  | { readonly event: "handled" } & Handled

export const Work = Channel.make("work", { payload: Schema.String })

const say = (event: Event) => void writeSync(1, `${JSON.stringify(event)}\n`)

/** Publishes until it is stored, as the errors say: with the id that an error names. */
export const insistOn = <S extends Schema.Codec<unknown, unknown>>(
  channel: Channel.Channel<string, S>,
  payload: NoInfer<S["Type"]>,
  options?: Publisher.PublishOptions
) =>
  Effect.gen(function*() {
    let id = options?.id
    while (true) {
      const result = yield* Effect.result(
        Publisher.publish(channel, payload, { ...options, ...(id === undefined ? {} : { id }) })
      )
      if (result._tag === "Success") return result.success
      const error = result.failure
      const isOpen = error._tag === "Unavailable" || error._tag === "PublishUncertain" ||
        error._tag === "DurabilityNotReached"
      if (!isOpen) return yield* Effect.die(error)
      id = error.id
      yield* Effect.sleep(20)
    }
  })

export const insist = (text: string, options?: Publisher.PublishOptions) => insistOn(Work, text, options)

const publishing = Effect.fnUntraced(function*(
  { delayMillis, everyMillis = 2, expiresMillis, name }: NonNullable<Job["publisher"]>
) {
  for (let n = 0;; n++) {
    const text = `${name}-${n}`
    const delay = delayMillis !== undefined && n % 2 === 1 ? delayMillis : undefined
    const from = trueNow()
    const expiresIn = n % 3 === 2 ? expiresMillis : undefined
    yield* insist(text, {
      ...(delay === undefined ? {} : { delay }),
      ...(expiresIn === undefined ? {} : { expiresIn })
    })
    say({ event: "told", text, at: trueNow(), ...(delay === undefined ? {} : { dueAt: from + delay }) })
    yield* Effect.sleep(everyMillis)
  }
})

const handling = (consumer: NonNullable<Job["consumer"]>) =>
  Subscription.make(Work, {
    group: consumer.group,
    consumer: consumer.name,
    concurrency: consumer.concurrency ?? 10,
    lease: consumer.lease ?? 1_000,
    maxCrashes: 100_000,
    exactlyOnce: consumer.exactlyOnce ?? false,
    handler: ({ channel, deliveryCount, group, payload: text, publishedAt }) => {
      const about = () => ({
        group,
        consumer: consumer.name,
        channel,
        text,
        deliveryCount,
        at: trueNow(),
        publishedAt: DateTime.toEpochMillis(publishedAt)
      })
      if (consumer.tellsBegun === true) say({ event: "begun", ...about() })
      return Effect.andThen(
        Effect.sleep(consumer.handlerMillis ?? 5),
        Effect.sync(() => say({ event: "handled", ...about() }))
      )
    }
  })

const program = (job: Job) =>
  Effect.gen(function*() {
    if (job.consumer !== undefined) yield* handling(job.consumer)
    if (job.ticks !== undefined) {
      yield* Scheduler.recurring("tick", { every: job.ticks.everyMillis }, Work, "tick-0")
    }
    say({ event: "ready" })
    yield* job.publisher === undefined ? Effect.never : publishing(job.publisher)
  }).pipe(Effect.scoped, Effect.provide(Rotif.layer(job.rotif)), Effect.provide(Logger.layer([])))

const job = process.env["JOB"]
if (import.meta.main && job !== undefined) {
  const fiber = Effect.runFork(program(JSON.parse(job) as Job))
  process.once("SIGTERM", () => fiber.interruptUnsafe())
  fiber.addObserver((exit) => {
    if (exit._tag === "Success" || Cause.hasInterruptsOnly(exit.cause)) return
    writeSync(2, Cause.pretty(exit.cause))
    process.exitCode = 1
  })
}
