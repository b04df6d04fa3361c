/**
 * Another program writes into every key of a namespace what does not belong there, while there is ordinary load. After each attack
 * ordinary messages still go all their ways: handled, scheduled, retried, buried, recurring, broadcast.
 */
import { Effect, Queue, Random, Schedule, Schema } from "effect"
import { Broadcast, Broker, Channel, DeadLetters, Publisher, Rotif, Scheduler, Stats, Subscription } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { type Attack, attacks } from "../hostile.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, until } from "../Run.ts"

const group = "all"
const Work = Channel.make("work", { payload: Schema.String })
const Any = Channel.pattern("**", { payload: Schema.String })

const all = attacks("{hostile:0}", Work.name, group)

const chunked = <A>(items: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size))

/** What JSON and bytes may do to a process. */
const polluted = () => "polluted" in {} || "polluted" in [] || Reflect.get(Object, "polluted") !== undefined

/** Attacks one after the other, or several at once, each time followed by ordinary messages. */
const withstand = Effect.fnUntraced(function*(plan: ReadonlyArray<ReadonlyArray<Attack>>) {
  const server = yield* RedisServer.make()
  const recorder = new Recorder()
  const recoveries: Array<number> = []
  const violations: Array<string> = []
  return yield* Effect.gen(function*() {
    const broker = yield* Broker.Broker
    let ticks = 0
    const buried = new Set<string>()
    const heard = yield* Queue.unbounded<string>()
    yield* Subscription.make(Any, {
      group,
      consumer: "c",
      concurrency: 4,
      retry: Schedule.spaced("5 millis").pipe(Schedule.upTo({ times: 3 })),
      handler: Effect.fnUntraced(function*(message) {
        const { attempt, channel, deliveryCount, headers, params, payload, publishedAt } = message
        recorder.handled({ group, consumer: "c", channel, text: payload, deliveryCount, at: Date.now() })
        // What a handler may do with what it gets.
        JSON.stringify({ headers, params, publishedAt, attempt })
        if (payload === "tick") ticks++
        if (payload === "fail" || (payload.startsWith("retry") && attempt === 1)) return yield* Effect.fail("no")
        if (payload.startsWith("term")) return yield* message.term("asked to")
      })
    })
    yield* DeadLetters.subscribe(Any, {
      name: "deaths",
      handler: (letter) => Effect.sync(() => void buried.add(letter.id))
    })
    yield* Broadcast.listen(Work, { handler: ({ payload }) => Queue.offer(heard, payload) })
    yield* Scheduler.recurring("often", { every: 100 }, Work, "tick")
    const isHandled = (text: string) =>
      Effect.sync(() => recorder.deliveries.some((delivery) => delivery.text === text))
    const again = Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 60 }))

    const probe = Effect.fnUntraced(function*(n: number) {
      const from = ticks
      for (const [kind, options] of [["plain", {}], ["delayed", { delay: 20 }], ["retry", {}], ["term", {}]] as const) {
        const text = `${kind}-${n}`
        yield* Publisher.publish(Work, text, { id: text, ...options }).pipe(Effect.retry(again))
        recorder.told(text)
      }
      yield* Effect.forEach(
        ["plain", "delayed", "retry", "term"],
        (kind) => until(`${kind} is handled`, isHandled(`${kind}-${n}`), 8_000)
      )
      const retries = Effect.sync(() =>
        recorder.deliveries.filter((delivery) => delivery.text === `retry-${n}`).length >= 2
      )
      yield* until("a retry is handled", retries, 8_000)
      yield* until("a dead letter is offered", Effect.sync(() => buried.has(`term-${n}`)), 8_000)
      yield* until("ticks are published", Effect.sync(() => ticks > from), 8_000)
      yield* until(
        "a broadcast is heard",
        Effect.andThen(
          Effect.ignore(Broadcast.publish(Work, `cast-${n}`)),
          Effect.map(Queue.clear(heard), (texts) => texts.includes(`cast-${n}`))
        ),
        8_000
      )
      // Whoever looks gets an answer, too.
      yield* DeadLetters.list()
      yield* Scheduler.list()
      yield* Scheduler.listRecurring
      yield* Stats.channels()
      yield* broker.trim(0)
    })

    yield* probe(0)
    for (const [i, together] of plan.entries()) {
      const name = together.map((attack) => attack.name).join(", ")
      yield* Effect.forEach(
        together.flatMap(({ commands }) => commands),
        (command) => Effect.ignore(server.command(...command)),
        { concurrency: 50 }
      )
      const from = performance.now()
      const exit = yield* Effect.exit(probe(i + 1))
      recoveries.push(performance.now() - from)
      if (exit._tag === "Failure") violations.push(`after "${name}": ${String(exit.cause).slice(0, 1_500)}`)
      if (polluted()) violations.push(`after "${name}": a prototype is polluted`)
      if (violations.length > 0) break
    }
    const account = recorder.account({ groups: [group] })
    return {
      ...account,
      faults: plan.flat().length,
      recoveries,
      // Who retries on purpose is handled again.
      repeated: 0,
      violations: [...account.violations, ...violations]
    }
  }).pipe(Effect.provide(Rotif.layer({ url: server.url, prefix: "hostile", graceMillis: 1_000 })))
})

export default {
  number: 10,
  title: "Malformed entries, payload bombs and hostile names in every key",
  memoryMiB: 700,
  body: Effect.fnUntraced(function*({ isShort }) {
    const shuffled = yield* Random.shuffle(all.slice(0, -1))
    // Of the many that write entries the short run takes a few.
    let entries = 0
    const plan = shuffled.filter(({ commands }) => !isShort || commands[0]![0] !== "xadd" || entries++ < 6)
    // The last leaves positions for which there is no time: everything after it follows them.
    const each = isShort ? 8 : 3
    return yield* withstand(chunked([...plan, all.at(-1)!], each))
  })
} satisfies Run
