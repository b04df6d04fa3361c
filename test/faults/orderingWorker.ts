/**
 * A process that handles messages with ordering keys, and tells a second Redis of each beginning and end of a handler, in one order, before it
 * goes on: `node --conditions=rotif-source orderingWorker.ts` with a `Job` in the environment variable JOB.
 */
import { Cause, Data, Effect, Exit, Layer, Logger, Schema } from "effect"
import { Redis as Client } from "ioredis"
import { writeSync } from "node:fs"
import { Broker, Channel, RedisBroker, Rotif, Subscription } from "rotif"
import * as Flaws from "./flaws.ts"
import type { Flaw } from "./flaws.ts"
import { keyOf } from "./KeyOrder.ts"

export interface Job {
  readonly name: string
  readonly url: string
  readonly prefix: string
  /** The port of the Redis that records. */
  readonly recorder: number
  readonly lease: number
  /** How long a handler takes at most. */
  readonly handlerMillis: number
  readonly flaw?: Flaw | undefined
}

export const Texts = Channel.make("texts", { payload: Schema.String, orderingKey: keyOf })
export const group = "ordered"
export const stepsKey = "steps"

class Again extends Data.TaggedError("Again")<{}> {}

/** A number from 0 to 99 that depends on the text only. */
const chance = (text: string) => {
  let hash = 7
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash, 31) + text.charCodeAt(i) >>> 0
  return hash % 100
}

/** The output has events only. */
const toErrors = Logger.make(({ message }) => void writeSync(2, `${[message].flat().map(String).join(" ")}\n`))

/** Set by SIGUSR2: the process stops itself when the next handler has ended, and before that is acknowledged. */
let isStopping = false
process.on("SIGUSR2", () => {
  isStopping = true
})
const stop = Effect.sync(() => {
  if (!isStopping) return
  isStopping = false
  writeSync(1, "{\"event\":\"stopping\"}\n")
  process.kill(process.pid, "SIGSTOP")
})

const program = ({ flaw, handlerMillis, lease, name, prefix, recorder, url }: Job) =>
  Effect.gen(function*() {
    const client = new Client({ port: recorder })
    yield* Effect.addFinalizer(() => Effect.sync(() => client.disconnect()))
    const tell = (is: string, text: string) => Effect.promise(() => client.rpush(stepsKey, `${is} ${name} ${text}`))
    yield* Subscription.make(Texts, {
      group,
      consumer: name,
      concurrency: 50,
      lease,
      retryDelay: "20 millis",
      maxCrashes: 100_000,
      handler: ({ attempt, payload: text }) =>
        Effect.andThen(
          tell("begin", text),
          Effect.sleep(chance(text) % (handlerMillis + 1)).pipe(
            // Two of a hundred fail once.
            Effect.andThen(attempt === 1 && chance(text) < 2 ? Effect.fail(new Again()) : Effect.void),
            Effect.onExit((exit) => tell(Exit.hasInterrupts(exit) ? "lost" : "end", text)),
            Effect.andThen(stop)
          )
        )
    })
    writeSync(1, "{\"event\":\"ready\"}\n")
    return yield* Effect.never
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Rotif.layerBroker().pipe(
        Layer.provide(Layer.effect(Broker.Broker, RedisBroker.make({ prefix }))),
        Layer.provide(Flaws.layer({ url, commandTimeout: 1_500 }, flaw))
      )
    ),
    Effect.provide(Logger.layer([toErrors]))
  )

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
