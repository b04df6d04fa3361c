/**
 * Handlers that do not end, one after the other, while three processes' worth of consumers (with 1, 4 and 8 places, default options) work on
 * five channels in four shards. A short message waits for none of them while a place is free anywhere, nobody holds more than its options
 * say, and when the handlers end at last everything is handled once. Then slow work is shared as the ideal schedule would share it.
 */
import { Deferred, Effect, Exit, Layer, Logger, Random, Schema, Scope } from "effect"
import { Channel, Publisher, Rotif, Subscription } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, sound, until } from "../Run.ts"

const channels = Array.from({ length: 5 }, (_, i) => Channel.make(`work.${i}`, { payload: Schema.String }))
const Work = Channel.pattern("work.*", { payload: Schema.String })
const Slow = Channel.make("slow", { payload: Schema.String })

const places = [1, 4, 8]
/** The bound that is promised. */
const waitMillis = 500
/** What waits by default, at most. */
const mostPrefetched = 100
const slowMillis = 1_000

/** The time in which this process ran: on a machine that has other work it is held up, and so is whoever could begin a message. */
const makeAwake = Effect.gen(function*() {
  const stepMillis = 10
  let heldUp = 0
  let last = performance.now()
  const over = () => Math.max(0, performance.now() - last - stepMillis)
  const timer = setInterval(() => {
    heldUp += over()
    last = performance.now()
  }, stepMillis)
  yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(timer)))
  return () => performance.now() - heldUp - over()
})

export default {
  number: 16,
  title: "Handlers that do not end, among others of three consumers",
  recoveryWithin: waitMillis,
  body: Effect.fnUntraced(function*({ isShort, patience }) {
    const count = isShort ? 4 : 9
    const plan = yield* Effect.forEach(
      Array.from({ length: count }),
      () =>
        Effect.all({
          channel: Random.nextIntBetween(0, channels.length, { halfOpen: true }),
          // Some are begun by consumers that are used to fast handlers, some when all is quiet.
          burst: Random.nextIntBetween(0, 300),
          isOnce: Random.nextBoolean
        })
    )
    const server = yield* RedisServer.make()
    const options = { url: server.url, prefix: "hung", shards: 4 }
    const recorder = new Recorder()
    const violations = new Set<string>()
    const gate = yield* Deferred.make<void>()
    const awake = yield* makeAwake
    const publishedAt = new Map<string, number>()
    let waits: Array<number> = []
    let begun = 0
    let hanging = 0
    let isOver = false

    /** A consumer of each group on connections of its own; what it holds is looked at all the time. */
    const consume = Effect.fnUntraced(function*(concurrency: number, name: string) {
      const services = yield* Layer.build(Layer.fresh(Rotif.layer(options)))
      for (const [group, exactlyOnce] of [["plain", false], ["once", true]] as const) {
        let running = 0
        const subscription = yield* Subscription.make(Work, {
          group,
          concurrency,
          exactlyOnce,
          handler: Effect.fnUntraced(function*({ channel, deliveryCount, payload: text }) {
            const at = Date.now()
            if (++running > concurrency) violations.add(`${name} runs more than ${concurrency} handlers`)
            const hangs = text.startsWith("hung-")
            if (hangs && text.endsWith(exactlyOnce ? "1" : "0")) {
              begun++
              hanging++
              yield* Deferred.await(gate)
              hanging--
            } else if (!hangs) {
              waits.push(awake() - publishedAt.get(text)!)
              yield* Effect.sleep(1)
            }
            running--
            recorder.handled({ group, consumer: name, channel, text, deliveryCount, at })
          })
        }).pipe(Effect.provide(services))
        yield* Effect.forkScoped(Effect.gen(function*() {
          while (!isOver) {
            const { held, inFlight } = yield* subscription.stats
            if (held > concurrency + mostPrefetched) violations.add(`${name} holds ${held}`)
            if (inFlight > concurrency) violations.add(`${name} runs ${inFlight}`)
            yield* Effect.sleep(2)
          }
        }))
      }
    })

    const scope = yield* Scope.make()
    const services = yield* Layer.build(Rotif.layer(options))
    const recoveries: Array<number> = []
    let number = 0
    return yield* Effect.gen(function*() {
      for (const [i, concurrency] of places.entries()) yield* Scope.provide(consume(concurrency, `c${i}`), scope)
      const publish = Effect.fnUntraced(function*(channel: number, text: string) {
        publishedAt.set(text, awake())
        const from = Date.now()
        yield* Publisher.publish(channels[channel]!, text)
        recorder.told(text, undefined, from)
      })
      const short = Effect.suspend(() => publish(number % channels.length, `short-${number++}`))
      for (const [i, { burst, channel, isOnce }] of plan.entries()) {
        waits = []
        for (let n = 0; n < burst; n++) yield* Effect.forkChild(short)
        // How long a burst takes is a matter of the machine.
        yield* until("the burst is over", Effect.sync(() => waits.length >= 2 * burst))
        waits = []
        yield* publish(channel, `hung-${i}${isOnce ? "1" : "0"}`)
        // From now on nobody may wait, in the one group and in the other.
        for (let n = 0; n < 60; n++) {
          yield* Effect.forkChild(short)
          yield* Effect.sleep(10)
        }
        yield* until("the handler hangs", Effect.sync(() => begun === i + 1))
        yield* until("all short messages of both groups are begun", Effect.sync(() => waits.length >= 120))
        recoveries.push(Math.max(...waits))
      }
      if (hanging !== count) violations.add(`${hanging} of ${count} handlers hang`)
      yield* Deferred.succeed(gate, undefined)
      violations.add((yield* settled(Work)).join()).delete("")
      isOver = true
      yield* Scope.close(scope, Exit.void)

      // Slow work, on consumers that know nothing of it yet.
      const rounds = isShort ? 2 : 4
      const total = rounds * places.reduce((a, b) => a + b)
      let done = 0
      yield* Effect.scoped(Effect.gen(function*() {
        for (const concurrency of places) {
          const own = yield* Layer.build(Layer.fresh(Rotif.layer(options)))
          yield* Subscription.make(Slow, {
            group: "slow",
            concurrency,
            handler: ({ channel, deliveryCount, payload: text }) =>
              Effect.map(Effect.sleep(slowMillis), () => {
                done++
                recorder.handled({ group: "slow", consumer: "s", channel, text, deliveryCount, at: Date.now() })
              })
          }).pipe(Effect.provide(own))
        }
        const since = awake()
        yield* Publisher.publishAll(Slow, Array.from({ length: total }, (_, i) => `slow-${i}`))
        yield* until("the slow work is done", Effect.sync(() => done >= total))
        const took = awake() - since
        const ideal = rounds * slowMillis
        if (took > ideal * (isShort ? 1 + 0.1 * patience : 1.1)) {
          violations.add(`slow work took ${took} ms, ${ideal} would be ideal`)
        }
        for (const text of yield* settled(Slow)) violations.add(text)
      }))
      for (const text of yield* sound()) violations.add(text)
      const account = recorder.account({ groups: ["plain", "once"] })
      if (account.repeated > 0) violations.add(`${account.repeated} were handled twice`)
      return {
        ...account,
        messages: account.messages + total,
        faults: count,
        recoveries,
        violations: [...account.violations, ...violations]
      }
    }).pipe(Effect.provide(services))
  }, Effect.provide(Logger.layer([])))
} satisfies Run
