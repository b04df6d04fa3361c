/**
 * Consumers are ended while they have work, from inside of their handlers and from outside at once, in any mixture of ways, and others take
 * over. Whoever asks has the end, nothing is handled twice, and a publish that has begun is finished.
 */
import { Effect, Fiber, Random, Schema } from "effect"
import { Channel, Publisher, Rotif } from "rotif"
import { ManagerStopped, NotificationManager, type Subscription } from "rotif/promise"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { type Run, settled, sound, until } from "../Run.ts"

const Work = Channel.make("work", { payload: Schema.Int })
const group = "workers"

const ways = ["unsubscribe", "unsubscribe twice", "stopAll", "unsubscribe, stopAll", "stopAll, unsubscribe"] as const
type Way = (typeof ways)[number]

const end = async (way: Way, manager: NotificationManager, subscription: Subscription): Promise<void> => {
  for (const step of way === "unsubscribe twice" ? ["unsubscribe", "unsubscribe"] : way.split(", ")) {
    await (step === "stopAll" ? manager.stopAll() : subscription.unsubscribe())
  }
}

/** An end takes as long as the longest handler, and a moment. */
const handlerMillis = 40
const endWithin = 2_000

export default {
  number: 22,
  title: "ends asked for from inside of handlers and from outside at once, under load",
  recoveryWithin: endWithin,
  body: Effect.fnUntraced(function*({ isShort }) {
    const rounds = isShort ? 8 : 40
    const way = Effect.map(Random.nextIntBetween(0, ways.length - 1), (i) => ways[i]!)
    const plan = yield* Effect.all(Array.from({ length: rounds }, () =>
      Effect.all({
        inside: Effect.all([way, way]),
        outside: Effect.all([way, way]),
        after: Random.nextIntBetween(3, 40),
        concurrency: Random.nextIntBetween(1, 16)
      })))
    const server = yield* RedisServer.make()
    const prefix = "ends"
    const handled = new Map<unknown, number>()
    const violations: Array<string> = []
    const recoveries: Array<number> = []
    let published = 0
    return yield* Effect.gen(function*() {
      const publisher = yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
        yield* Publisher.publish(Work, published)
        published++
        yield* Effect.sleep(2)
      })))
      for (const [round, { after, concurrency, inside, outside }] of plan.entries()) {
        const manager = new NotificationManager({ redis: server.url, prefix, drainTimeout: 30_000 })
        let taken = 0
        const asked: Array<Promise<unknown>> = []
        const { promise: isAsked, resolve } = Promise.withResolvers<number>()
        const subscription: Subscription = yield* Effect.promise(() =>
          manager.subscribe("work", async (message) => {
            const mine = taken++
            handled.set(message.payload, (handled.get(message.payload) ?? 0) + 1)
            if (mine === after || mine === after + 1) {
              resolve(performance.now())
              const ending = end(inside[mine - after]!, manager, subscription)
              asked.push(ending)
              await ending
            } else await new Promise((done) => setTimeout(done, mine % handlerMillis))
          }, { group, concurrency, startFrom: "earliest" })
        )
        const at = yield* Effect.promise(() => isAsked)
        const publishing = Promise.allSettled(Array.from({ length: 5 }, (_, i) => manager.publish("others", i)))
        for (const one of outside) asked.push(end(one, manager, subscription))
        yield* Effect.promise(() => Promise.all(asked))
        yield* Effect.promise(() => manager.stopAll())
        recoveries.push(performance.now() - at)
        const refused = (yield* Effect.promise(() => publishing)).filter((one) =>
          one.status === "rejected" && !(one.reason instanceof ManagerStopped)
        )
        if (refused.length > 0) violations.push(`round ${round}: ${refused.length} publishes were cut off`)
      }
      const last = yield* Effect.acquireRelease(
        Effect.sync(() => new NotificationManager({ redis: server.url, prefix })),
        (manager) => Effect.promise(() => manager.stopAll())
      )
      yield* Effect.promise(() =>
        last.subscribe("work", (message) => {
          handled.set(message.payload, (handled.get(message.payload) ?? 0) + 1)
        }, { group, concurrency: 16 })
      )
      yield* Fiber.interrupt(publisher)
      yield* until("all is handled", Effect.sync(() => handled.size >= published))
      violations.push(...(yield* settled(Work)))
      const repeated = [...handled.values()].filter((times) => times > 1).length
      if (repeated > 0) violations.push(`${repeated} messages were handled more than once`)
      return {
        messages: published,
        faults: rounds * 4,
        lost: Math.max(0, published - handled.size),
        repeated,
        recoveries,
        violations: [...violations, ...(yield* sound())]
      }
    }).pipe(Effect.provide(Rotif.layer({ url: server.url, prefix })))
  })
} satisfies Run
