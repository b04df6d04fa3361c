/**
 * A process that publishes and handles, to be killed, stopped and continued: `node --conditions=rotif-source worker.ts` with a `Job` in
 * the environment variable JOB. It prints a line of JSON for each event, in one write, before it goes on: a printed
 * event has happened, whatever happens to the process afterwards.
 */
import { Cause, Data, DateTime, Effect, Logger, Schema } from "effect"
import { writeSync } from "node:fs"
import { setTimeout } from "node:timers/promises"
import { Channel, type Message, Publisher, Rotif, Scheduler, Subscription, Transaction } from "rotif"
import { NotificationManager } from "rotif/promise"
import { exactNow, trueNow } from "./clock.ts"
import type { Handled } from "./Recorder.ts"

export interface Job extends Role {
  /** The options of the layer, with the address of Redis. */
  readonly rotif: Rotif.RedisOptions
  /** What else the process does, on the same connections. */
  readonly also?: ReadonlyArray<Role>
}

export interface Role {
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
    /** Whether it also reports when a handler begins. */
    readonly tellsBegun?: boolean
    /** The effect of each message is a counter (`effectOf`) in its transaction, which is exactly once. */
    readonly transactional?: boolean
    /** Reads by a pattern, which has to find its channel. */
    readonly pattern?: boolean
    /** The first attempt at every message with a number that this divides fails. Default: none does. */
    readonly failEvery?: number
    /** Whether it reports the beginning of a message and acknowledges by hand; a refused acknowledgement is reported too. */
    readonly settles?: boolean
    /** The handler of this message kills its process. Default: none does. */
    readonly diesOf?: string
    /** Default: that of a subscription. */
    readonly prefetch?: number
    /** Handles messages in batches; `byPromise`: through the Promise API. */
    readonly batch?: { readonly size: number; readonly within: number; readonly byPromise?: boolean }
    /** A batch with this message fails. Default: none does. */
    readonly failsOf?: string
    /** Default: that of a subscription. */
    readonly maxRetries?: number
    /** Default: as good as none. */
    readonly maxCrashes?: number
  }
  /** Defines a recurring message, handled as `tick-0` by all groups. */
  readonly ticks?: { readonly everyMillis: number }
  readonly publisher?: {
    /** Its messages are `<name>-0`, `<name>-1`, … */
    readonly name: string
    /** The pause between two publishes. Default: 2. */
    readonly everyMillis?: number
    /** The delay of every second message. Default: no message is delayed. */
    readonly delayMillis?: number
    /** The time from when it is due in which every third message may be handled. Default: no message expires. */
    readonly expiresMillis?: number
    /** The limit of the channel, as this process defines it. Default: it defines none. */
    readonly maxLength?: number | undefined
  }
}

export type Event =
  | { readonly event: "ready" }
  /** `from`: when the publish began. */
  | {
    readonly event: "told"
    readonly text: string
    readonly from: number
    readonly at: number
    readonly dueAt?: number
  }
  /** A publish failed with this error after this many milliseconds; it is repeated. */
  | { readonly event: "refused"; readonly error: string; readonly millis: number }
  | { readonly event: "handled" } & Handled
  | { readonly event: "begun" } & Handled
  /** Its own acknowledgement was refused with `LeaseLost`. */
  | { readonly event: "late" } & Handled
  /** A warning or an error in the log. */
  | { readonly event: "log"; readonly text: string; readonly at: number }

export const Work = Channel.make("work", { payload: Schema.String })

/** All channels of the runs. */
const Everything = Channel.pattern("*", { payload: Schema.String })

/** The counter of each message of a transactional consumer. */
export const effectOf = (text: string) => `effect:${text}`

class BadMessage extends Data.TaggedError("BadMessage")<{}> {}

class FirstAttempt extends Data.TaggedError("FirstAttempt")<{}> {}

const say = (event: Event) => void writeSync(1, `${JSON.stringify(event)}\n`)

/** Publishes until the message is stored, with the id that an error names. */
export const insistOn = <S extends Schema.Codec<unknown, unknown>>(
  channel: Channel.Channel<string, S>,
  payload: NoInfer<S["Type"]>,
  options?: Publisher.PublishOptions
) =>
  Effect.gen(function*() {
    let id = options?.id
    while (true) {
      const began = performance.now()
      const result = yield* Effect.result(
        Publisher.publish(channel, payload, { ...options, ...(id === undefined ? {} : { id }) })
      )
      if (result._tag === "Success") return result.success
      const error = result.failure
      const isOpen = error._tag === "Unavailable" || error._tag === "PublishUncertain" ||
        error._tag === "DurabilityNotReached"
      if (!isOpen || error._tag === "PublishUncertain" && error.isLasting) return yield* Effect.die(error)
      id = error.id
      say({ event: "refused", error: error._tag, millis: performance.now() - began })
      yield* Effect.sleep(20)
    }
  })

export const insist = (text: string, options?: Publisher.PublishOptions) => insistOn(Work, text, options)

const publishing = Effect.fnUntraced(function*(
  { delayMillis, everyMillis = 2, expiresMillis, maxLength, name }: NonNullable<Job["publisher"]>
) {
  const channel = maxLength === undefined
    ? Work
    : Channel.make("work", { payload: Schema.String, limits: { maxLength } })
  for (let n = 0;; n++) {
    const text = `${name}-${n}`
    const delay = delayMillis !== undefined && n % 2 === 1 ? delayMillis : undefined
    const from = exactNow()
    const dueAt = delay === undefined ? {} : { dueAt: trueNow() + delay }
    const expiresIn = n % 3 === 2 ? expiresMillis : undefined
    yield* insistOn(channel, text, {
      ...(delay === undefined ? {} : { delay }),
      ...(expiresIn === undefined ? {} : { expiresIn })
    })
    say({ event: "told", text, from, at: trueNow(), ...dueAt })
    yield* Effect.sleep(everyMillis)
  }
})

/** The recipe of the predecessor, which collects a batch and processes it, as a subscription of the Promise API. */
const byPromiseApi = (
  consumer: NonNullable<Job["consumer"]>,
  rotif: Job["rotif"],
  sizes: { readonly size: number; readonly within: number },
  { concurrency, group, lease, maxRetries, retryDelay }: {
    readonly group: string
    readonly concurrency: number
    readonly lease: number
    readonly retryDelay: number
    readonly maxRetries: number | undefined
  }
) =>
  Effect.gen(function*() {
    const manager = yield* Effect.acquireRelease(
      Effect.sync(() =>
        new NotificationManager({ redis: (rotif as { readonly url: string }).url, prefix: rotif.prefix, logger })
      ),
      (manager) => Effect.promise(() => manager.stopAll())
    )
    yield* Effect.promise(() =>
      manager.subscribeBatch("work", async (messages) => {
        const described = messages.map(({ attempt, channel, payload, timestamp }) => ({
          group,
          consumer: consumer.name,
          channel,
          text: payload as string,
          deliveryCount: attempt,
          at: trueNow(),
          publishedAt: timestamp
        }))
        if (consumer.tellsBegun === true) { for (const one of described) say({ event: "begun", ...one }) }
        await setTimeout(consumer.handlerMillis ?? 5)
        if (described.some(({ text }) => text === consumer.failsOf)) throw new BadMessage()
        const settlingAt = trueNow()
        for (const one of described) say({ event: "handled", ...one, settlingAt })
      }, { group, consumerName: consumer.name, concurrency, lease, maxRetries, retryDelay, ...sizes })
    )
  })

const sayLine = (text: string) => say({ event: "log", text, at: trueNow() })
const logger = { debug: () => {}, info: () => {}, warn: sayLine, error: sayLine }

const handling = (consumer: NonNullable<Job["consumer"]>, rotif: Job["rotif"]) => {
  const { failEvery, transactional = false } = consumer
  const describe = (
    { channel, deliveryCount, group, payload: text, publishedAt }: Message.Message<typeof Everything>
  ) => ({
    group,
    consumer: consumer.name,
    channel,
    text,
    deliveryCount,
    at: trueNow(),
    publishedAt: DateTime.toEpochMillis(publishedAt)
  })
  const handle = Effect.fnUntraced(function*(message: Message.Message<typeof Everything>) {
    if (consumer.settles === true || consumer.tellsBegun === true) say({ event: "begun", ...describe(message) })
    if (message.payload === consumer.diesOf) process.kill(process.pid, "SIGKILL")
    yield* Effect.sleep(consumer.handlerMillis ?? 5)
    const number = Number(message.payload.slice(message.payload.lastIndexOf("-") + 1))
    if (failEvery !== undefined && number % failEvery === 0 && message.attempt === 1) return yield* new FirstAttempt()
    const settlingAt = trueNow()
    if (consumer.settles === true) {
      const settled = yield* Effect.result(message.ack)
      if (settled._tag === "Failure") return say({ event: "late", ...describe(message), settlingAt })
    }
    say({ event: "handled", ...describe(message), settlingAt })
  })
  const common = {
    group: consumer.group,
    consumer: consumer.name,
    concurrency: consumer.concurrency ?? 10,
    lease: consumer.lease ?? 1_000,
    retryDelay: 100,
    prefetch: consumer.prefetch,
    maxCrashes: consumer.maxCrashes ?? 100_000,
    maxRetries: consumer.maxRetries
  } as const
  const source = consumer.pattern === true ? Everything : Work
  const { batch } = consumer
  if (batch !== undefined) {
    const { byPromise, ...sizes } = batch
    type Batched = Parameters<typeof describe>[0]
    const handleBatch = Effect.fnUntraced(function*(messages: ReadonlyArray<Batched>) {
      if (consumer.tellsBegun === true) {
        for (const message of messages) say({ event: "begun", ...describe(message) })
      }
      if (messages.some(({ payload }) => payload === consumer.diesOf)) process.kill(process.pid, "SIGKILL")
      yield* Effect.sleep(consumer.handlerMillis ?? 5)
      if (messages.some(({ payload }) => payload === consumer.failsOf)) return yield* new BadMessage()
      const settlingAt = trueNow()
      for (const message of messages) say({ event: "handled", ...describe(message), settlingAt })
    })
    if (byPromise === true) return byPromiseApi(consumer, rotif, sizes, common)
    return transactional
      ? Subscription.batch(source, {
        ...common,
        ...sizes,
        transactional,
        handler: Effect.fnUntraced(function*(messages) {
          for (const { payload } of messages) {
            yield* Transaction.incrby(yield* Transaction.key(effectOf(payload)), 1)
          }
          yield* handleBatch(messages)
        })
      })
      : Subscription.batch(source, {
        ...common,
        ...sizes,
        exactlyOnce: consumer.exactlyOnce ?? false,
        handler: handleBatch
      })
  }
  return transactional
    ? Subscription.make(source, {
      ...common,
      transactional,
      handler: (message) =>
        Effect.andThen(
          Effect.flatMap(Transaction.key(effectOf(message.payload)), (key) => Transaction.incrby(key, 1)),
          handle(message)
        )
    })
    : Subscription.make(source, { ...common, exactlyOnce: consumer.exactlyOnce ?? false, handler: handle })
}

/** Warnings and errors, as operators see them. */
const saying = Logger.make(({ logLevel, message }) => {
  if (logLevel !== "Warn" && logLevel !== "Error") return
  const text = [message].flat().map(String).join(" ")
  say({ event: "log", text, at: trueNow() })
})

const program = (job: Job) =>
  Effect.gen(function*() {
    const roles: ReadonlyArray<Role> = [job, ...job.also ?? []]
    for (const { consumer } of roles) if (consumer !== undefined) yield* handling(consumer, job.rotif)
    if (job.ticks !== undefined) {
      yield* Scheduler.recurring("tick", { every: job.ticks.everyMillis }, Work, "tick-0")
    }
    say({ event: "ready" })
    yield* Effect.forEach(
      roles,
      ({ publisher }) => publisher === undefined ? Effect.never : publishing(publisher),
      { concurrency: "unbounded" }
    )
  }).pipe(Effect.scoped, Effect.provide(Rotif.layer(job.rotif)), Effect.provide(Logger.layer([saying])))

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
