/**
 * Redis is full (noeviction) and stays so, while all there is to do waits: scheduled messages, retries, and dead letters that are sent back. They are
 * moved and handled all the same, and that is what frees memory.
 */
import { Effect, Layer, Logger, Random, Schema } from "effect"
import { Channel, DeadLetters, Publisher, Rotif, Subscription } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { Recorder } from "../Recorder.ts"
import { happens, type Run, settled, until } from "../Run.ts"

const Work = Channel.make("work", { payload: Schema.String })
const padding = "x".repeat(20_000)
const textOf = (payload: string) => payload.slice(0, payload.indexOf(" "))
const group = "g"

export default {
  number: 18,
  title: "maxmemory reached while all waits: delays, retries, dead letters that are requeued",
  // From when it is due until it is handled by all.
  recoveryWithin: 3_000,
  body: Effect.fnUntraced(function*({ isShort, patience }) {
    const count = isShort ? 40 : 300
    const delay = yield* Random.nextIntBetween(800, 1_500)
    const server = yield* RedisServer.make({ "maxmemory-policy": "noeviction" })
    const options = { url: server.url, prefix: "full", graceMillis: 200, trimInterval: 200 }
    const services = yield* Layer.build(Rotif.layer(options))
    const recorder = new Recorder()
    const violations: Array<string> = []
    const tried = new Map<string, number>()

    return yield* Effect.gen(function*() {
      const subscription = yield* Subscription.make(Work, {
        group,
        concurrency: 10,
        maxRetries: 1,
        retryDelay: delay,
        handler: Effect.fnUntraced(function*({ attempt, channel, deliveryCount, payload }) {
          const text = textOf(payload)
          const times = (tried.get(text) ?? 0) + 1
          tried.set(text, times)
          // Of the retried ones the first attempt fails; of the dying ones the first life does.
          if (text.startsWith("retried") && attempt === 1) return yield* Effect.fail("again")
          if (text.startsWith("dying") && times <= 2) return yield* Effect.fail("never")
          recorder.handled({ group, consumer: group, channel, text, deliveryCount, at: Date.now() })
        })
      })
      const publish = Effect.fnUntraced(function*(kind: string, delay?: number) {
        for (let n = 0; n < count; n++) {
          const text = `${kind}-${n}`
          yield* Publisher.publish(Work, `${text} ${padding}`, delay === undefined ? {} : { delay })
          recorder.told(text)
        }
      })
      yield* publish("dying")
      yield* until("all of them are dead", Effect.map(DeadLetters.count(), (dead) => dead === count))
      yield* publish("scheduled", 3 * delay + 20 * count)
      yield* publish("retried")
      yield* until("all are tried", Effect.sync(() => tried.size >= 2 * count))
      // Far below what is stored: no command that takes memory passes any more.
      yield* server.command("config", "set", "maxmemory", "1mb")
      const refused = yield* Effect.result(Publisher.publish(Work, `refused ${padding}`))
      if (refused._tag === "Success") violations.push("a publish was taken although memory was full")
      const { moved } = yield* DeadLetters.requeueAll({ group }, { limit: 10_000 })
      if (moved !== count) violations.push(`${moved} of ${count} dead letters were requeued`)
      const from = Date.now()
      const isHandled = yield* happens(
        Effect.sync(() => recorder.deliveries.length >= 3 * count),
        3 * delay + 20 * count + 3_000 * patience
      )
      if (!isHandled) violations.push(`${recorder.deliveries.length} of ${3 * count} are handled while memory is full`)
      const recoveries = [Math.max(0, Date.now() - from - 3 * delay - 20 * count)]
      yield* server.command("config", "set", "maxmemory", 0)
      const left = yield* settled(Work)
      yield* subscription.drain
      const account = recorder.account({ groups: [group], isKept: () => false })
      return { ...account, faults: 1, recoveries, violations: [...account.violations, ...violations, ...left] }
    }).pipe(Effect.provide(services))
  }, Effect.provide(Logger.layer([])))
} satisfies Run
