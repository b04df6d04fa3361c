/** Redis has no memory left (noeviction): again and again under load, until there is more, or until what is stored has been handled. */
import { Effect, Layer, Logger, Random, Schema } from "effect"
import { Broker, Channel, Publisher, Rotif, Subscription, Transaction } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { letters } from "../../contract/kit.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, until } from "../Run.ts"

const Work = Channel.make("work", { payload: Schema.String })
const groups = ["plain", "once"]
const padding = "x".repeat(4_000)
const textOf = (payload: string) => payload.slice(0, payload.indexOf(" "))

export default {
  number: 7,
  title: "maxmemory reached with noeviction, under load",
  // From the moment there is memory again until a message published after it has been handled by all.
  recoveryWithin: 2_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const rounds = isShort ? 3 : 10
    const plan = yield* Effect.all(
      Array.from(
        { length: rounds },
        () =>
          Effect.all({
            after: Random.nextIntBetween(100, 400),
            full: Random.nextIntBetween(500, 1_500),
            how: Random.next
          })
      )
    )
    const server = yield* RedisServer.make({ "maxmemory-policy": "noeviction" })
    const options = { url: server.url, prefix: "oom", graceMillis: 200, trimInterval: 200, retryDelay: 30 }
    const services = yield* Layer.build(Rotif.layer(options))
    const recorder = new Recorder()
    const violations: Array<string> = []
    const buried = new Set<string>()
    const attempts = new Map<string, number>()
    const told: Array<string> = []
    let refused = 0
    let isOver = false

    return yield* Effect.gen(function*() {
      const handle = Effect.fnUntraced(
        function*(group: string, { attempt, channel, deliveryCount, payload }: {
          readonly attempt: number
          readonly channel: string
          readonly deliveryCount: number
          readonly payload: string
        }) {
          const text = textOf(payload)
          attempts.set(`${group} ${text}`, (attempts.get(`${group} ${text}`) ?? 0) + 1)
          // Every third one has to be kept again, which needs memory; every seventh of one group dies.
          const number = Number(text.slice(text.indexOf("-") + 1))
          if (group === "plain" && number % 7 === 0) {
            buried.add(text)
            return yield* Effect.fail("never")
          }
          if (attempt === 1 && number % 3 === 0) return yield* Effect.fail("again")
          yield* Effect.sync(() =>
            recorder.handled({ group, consumer: group, channel, text, deliveryCount, at: Date.now() })
          )
        }
      )
      const plain = yield* Subscription.make(Work, {
        group: "plain",
        concurrency: 20,
        lease: "2 seconds",
        maxCrashes: 100_000,
        maxRetries: 1,
        handler: (message) => handle("plain", message)
      })
      const once = yield* Subscription.make(Work, {
        group: "once",
        concurrency: 20,
        lease: "2 seconds",
        maxCrashes: 100_000,
        transactional: true,
        handler: (message) =>
          Effect.andThen(
            handle("once", message),
            Effect.flatMap(Transaction.key(textOf(message.payload)), (key) => Transaction.incrby(key, 1))
          )
      })

      const storing = Effect.fnUntraced(function*(payload: string, options?: Publisher.PublishOptions) {
        while (true) {
          const outcome = yield* Effect.result(Publisher.publish(Work, payload, options))
          if (outcome._tag === "Success") return
          const error = outcome.failure
          if (error._tag !== "BrokerError" || error.reason !== "Overloaded") return yield* Effect.die(error)
          if (!error.message.includes("memory")) {
            violations.push(`the error does not say what is wrong: ${error.message}`)
          }
          refused++
          yield* Effect.sleep(20)
        }
      })
      const publisher = (name: string) =>
        Effect.gen(function*() {
          for (let n = 0; !isOver; n++) {
            const text = `${name}-${n}`
            const dueAt = n % 5 === 4 ? Date.now() + 100 : undefined
            yield* storing(`${text} ${padding}`, n % 5 === 3 ? { id: text } : dueAt === undefined ? {} : { delay: 100 })
            recorder.told(text, dueAt)
            told.push(text)
            yield* Effect.sleep(5)
          }
        })
      const publishing = yield* Effect.forkChild(
        Effect.forEach(["a", "b", "c", "d"], publisher, { concurrency: "unbounded", discard: true })
      )

      let faults = 0
      const recoveries: Array<number> = []
      const memory = Effect.map(
        server.command("info", "memory"),
        (text) => Number(/used_memory:(\d+)/.exec(String(text))![1])
      )
      for (const { after, full, how } of plan) {
        yield* Effect.sleep(after)
        const isDrained = how < 0.5
        if (isDrained) {
          // As much as is stored by now and a little: full soon, and free again when the backlog is handled and trimmed.
          yield* Effect.all([plain.pause, once.pause])
          yield* server.command("config", "set", "maxmemory", Math.floor((yield* memory) + 1_500_000))
        } else {
          yield* server.command("config", "set", "maxmemory", "1mb")
        }
        const before = refused
        yield* until("a publish is refused", Effect.sync(() => refused > before))
        faults++
        const handled = attempts.size
        const tries = [...attempts.values()].reduce((sum, count) => sum + count, 0)
        const from = Date.now()
        if (isDrained) yield* Effect.all([plain.resume, once.resume])
        yield* Effect.sleep(full)
        // What is to be kept again goes through, or waits: it does not spin.
        const spent = [...attempts.values()].reduce((sum, count) => sum + count, 0) - tries
        const fresh = attempts.size - handled
        if (spent > 3 * fresh + 20 * 50) violations.push(`${spent} attempts at ${fresh} messages in ${full} ms`)
        let freeAt = from
        if (!isDrained) {
          yield* server.command("config", "set", "maxmemory", 0)
          freeAt = Date.now()
        }
        // One that is handled at its first attempt.
        const text = `probe-${faults * 21 + 1}`
        if (isDrained) {
          yield* until(
            "there is memory again, by what was handled",
            Effect.map(
              Effect.result(Publisher.publish(Work, `${text} ${padding}`)),
              (outcome) => outcome._tag === "Success"
            )
          )
          freeAt = Date.now()
          yield* server.command("config", "set", "maxmemory", 0)
        } else {
          yield* storing(`${text} ${padding}`)
        }
        recorder.told(text)
        told.push(text)
        yield* until(
          "what was published then is handled",
          Effect.sync(() => recorder.deliveries.filter((one) => one.text === text).length >= groups.length)
        )
        recoveries.push(
          Math.max(...recorder.deliveries.filter((one) => one.text === text).map(({ at }) => at)) - freeAt
        )
      }
      isOver = true
      yield* until("the publishers have ended", Effect.sync(() => publishing.pollUnsafe() !== undefined))
      const left = yield* settled(Work)

      const broker = yield* Broker.Broker
      const dead = new Set<string>()
      const shown = yield* letters
      const { dead: count } = yield* broker.info(Channel.selector(Work))
      for (const { group, payload } of shown) dead.add(`${group} ${textOf(JSON.parse(payload) as string)}`)
      if (count !== buried.size) violations.push(`${buried.size} were given up, there are ${count} dead letters`)
      const effects = yield* Effect.forEach(told, (text) => broker.own.read(broker.own.keyFor(Work.name, text)), {
        concurrency: 100
      })
      const wrong = told.filter((_, i) => effects[i] !== "1")
      if (wrong.length > 0) {
        violations.push(`I2: ${wrong.length} effects did not happen once: ${wrong.slice(0, 5).join(", ")}`)
      }
      const account = recorder.account({
        groups,
        isKept: (group, text) => group === "plain" && buried.has(text)
      })
      return { ...account, faults, recoveries, violations: [...account.violations, ...violations, ...left] }
    }).pipe(Effect.provide(services))
  }, Effect.provide(Logger.layer([])))
} satisfies Run
