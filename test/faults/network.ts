/**
 * The ways a network fails, one after the other in random order, between a program and its Redis: single messages, batches, ids and
 * scheduled ones are published all the while, and handled by a group that keeps the order and by one that counts its effects in transactions.
 */
import type { Scope } from "effect"
import { Effect, Layer, Logger, Random, Schema } from "effect"
import { Broker, Channel, type Message, Publisher, Rotif, Subscription, Transaction } from "rotif"
import type { TcpProxy } from "../fixtures/TcpProxy.ts"
import { letters } from "../contract/kit.ts"
import { Recorder } from "./Recorder.ts"
import { type Outcome, type Setting, settled, until } from "./Run.ts"

/** The addresses of Redis: through the proxies, and direct. */
export interface Place {
  readonly proxies: ReadonlyArray<TcpProxy>
  readonly through: Rotif.RedisOptions
  readonly direct: Rotif.RedisOptions
}

const blockInterval = 500
const commandTimeout = 1_500

/** After this long beyond its block time the reader gives up a silent connection. */
const readGraceMillis = 3_000

/** A half-open connection shows only by silence: the reader notices it at the latest, and connects again. */
export const recoveryWithin = blockInterval + readGraceMillis + 2_000

/** Where the end of a connection is seen, or the fault ends. */
const recoveryWithinSeen = 2_000

const channels = Array.from({ length: 6 }, (_, i) => Channel.make(`work.p${i}`, { payload: Schema.String }))
const source = Channel.union(channels)
const groups = ["ordered", "once"]

/** Publishes one after the other until all are stored, as the errors ask. */
const insist = (channel: (typeof channels)[number], text: string, options?: Publisher.PublishOptions) =>
  Effect.gen(function*() {
    let id = options?.id
    while (true) {
      const outcome = yield* Effect.result(
        Publisher.publish(channel, text, { ...options, ...(id === undefined ? {} : { id }) })
      )
      if (outcome._tag === "Success") return outcome.success
      const error = outcome.failure
      if (error._tag !== "Unavailable" && error._tag !== "PublishUncertain") return yield* Effect.die(error)
      if (error._tag === "PublishUncertain" && error.isLasting) return yield* Effect.die(error)
      id = error.id
      yield* Effect.sleep(20)
    }
  })

const insistAll = Effect.fnUntraced(function*(
  channel: (typeof channels)[number],
  texts: ReadonlyArray<string>,
  optionsOf: (text: string) => Publisher.PublishOptions
) {
  const outcome = yield* Effect.result(Publisher.publishAll(channel, texts, optionsOf))
  if (outcome._tag === "Success") return
  const error = outcome.failure
  if (error._tag !== "PublishIncomplete") return yield* Effect.die(error)
  for (const [i, one] of error.outcomes.entries()) {
    if (!(one instanceof Error)) continue
    if (one._tag !== "Unavailable" && one._tag !== "PublishUncertain") return yield* Effect.die(one)
    yield* insist(channel, texts[i]!, { ...optionsOf(texts[i]!), id: one.id })
  }
})

const kinds = [
  "cut",
  "cut in a command",
  "cut in an answer",
  "answer lost",
  "throttled",
  "1 % dropped",
  "half-open",
  "held",
  "500 ms latency"
] as const

export const body =
  (make: Effect.Effect<Place, unknown, Scope.Scope>) =>
  ({ isShort, patience }: Setting): Effect.Effect<Outcome, unknown, Scope.Scope> =>
    Effect.gen(function*() {
      const rounds = isShort ? 1 : 2
      const order: Array<(typeof kinds)[number]> = []
      for (let round = 0; round < rounds; round++) order.push(...(yield* Random.shuffle(kinds)))
      const draw = (count: number) => Effect.all(Array.from({ length: count }, () => Random.next))
      const plan = yield* Effect.forEach(order, (kind) => Effect.map(draw(4), (chances) => ({ kind, chances })))
      const coins = yield* draw(2_000)
      let tossed = 0
      const toss = () => {
        const coin = coins[tossed++ % coins.length]!
        return coin < 0.005 ? "before" : coin < 0.01 ? "after" : undefined
      }

      const { direct, proxies, through } = yield* make
      const shared = { prefix: "net", graceMillis: 3_600_000, retryDelay: 50, maxRetries: 50 }
      const layer = () =>
        Layer.build(Rotif.layer({ ...through, ...shared, commandTimeout, connectTimeout: 1_000, blockInterval }))
      const consuming = yield* layer()
      const publishing = yield* layer()
      const watching = yield* Layer.build(Rotif.layer({ ...direct, ...shared, delayed: false }))

      const recorder = new Recorder()
      const record = (consumer: string, message: Message.Message<typeof source>) =>
        Effect.sync(() => {
          const { channel, deliveryCount, group, payload: text } = message
          recorder.handled({ group, consumer, channel, text, deliveryCount, at: Date.now() })
        })
      yield* Effect.gen(function*() {
        yield* Subscription.make(source, {
          group: "ordered",
          prefetch: 50,
          lease: "5 seconds",
          maxCrashes: 100_000,
          handler: (message) => record("one", message)
        })
        yield* Subscription.make(source, {
          group: "once",
          lease: "5 seconds",
          maxCrashes: 100_000,
          concurrency: 10,
          transactional: true,
          handler: Effect.fnUntraced(function*(message) {
            if (message.attempt === 1 && message.payload.endsWith("7")) return yield* Effect.fail("again")
            yield* Transaction.incrby(yield* Transaction.key(message.payload), 1)
            yield* record("many", message)
          })
        })
      }).pipe(Effect.provide(consuming))

      const told = new Map<string, Array<string>>(channels.map(({ name }) => [name, []]))
      const tell = (channel: string, text: string, dueAt?: number) => {
        recorder.told(text, dueAt)
        told.get(channel)!.push(text)
      }
      let isOver = false
      const publisher = Effect.fnUntraced(function*(channel: (typeof channels)[number], index: number) {
        const name = `p${index}`
        for (let n = 0; !isOver;) {
          const kind = n % 7
          if (kind === 3) {
            // They come when they are due, each by itself: no order is promised among them.
            const text = `${name}d${n++}-0`
            const from = Date.now()
            yield* insist(channel, text, { delay: 150 })
            tell(channel.name, text, from + 150)
          } else if (kind === 5) {
            const batch = Array.from({ length: 5 }, () => `${name}-${n++}`)
            yield* insistAll(channel, batch, (text) => n % 2 === 0 ? {} : { id: text })
            for (const text of batch) tell(channel.name, text)
          } else {
            const text = `${name}-${n++}`
            yield* insist(channel, text, kind === 1 ? { id: text } : {})
            tell(channel.name, text)
          }
          yield* Effect.sleep(40)
        }
      })
      const publishers = yield* Effect.forkChild(
        Effect.forEach(channels, publisher, { concurrency: "unbounded", discard: true }).pipe(
          Effect.provide(publishing)
        )
      )

      let faults = 0
      const recoveries: Array<number> = []
      const violations: Array<string> = []
      const all = (change: (proxy: TcpProxy) => Effect.Effect<void>) =>
        Effect.forEach(proxies, change, { discard: true })
      const inject = Effect.fnUntraced(function*(
        kind: (typeof kinds)[number],
        [where = 0, what = 0, far = 0]: ReadonlyArray<number>
      ) {
        const proxy = proxies[Math.floor(where * proxies.length)]!
        const command = ["xadd", "eval", "xreadgroup", ""][Math.floor(what * 4)]!
        const match = (request: Buffer) => request.includes(command)
        const trap = (set: Effect.Effect<Effect.Effect<void>>) =>
          Effect.flatMap(set, (done) => Effect.timeoutOption(done, "3 seconds"))
        switch (kind) {
          case "cut":
            return yield* proxy.cut
          case "cut in a command":
            return yield* trap(proxy.cutRequestOnce(1 + Math.floor(far * 60), match))
          case "cut in an answer":
            return yield* trap(proxy.cutReplyOnce(1 + Math.floor(far * 30), match))
          case "answer lost":
            return yield* trap(proxy.dropReplyOnce(match))
          case "throttled":
            yield* all((proxy) => proxy.throttle(5_000 + Math.floor(far * 40_000)))
            yield* Effect.sleep(500)
            return yield* all((proxy) => proxy.throttle(Infinity))
          case "1 % dropped":
            yield* all((proxy) => proxy.drop(toss))
            yield* Effect.sleep(isShort ? 1_000 : 3_000)
            return yield* all((proxy) => proxy.drop(undefined))
          case "half-open":
            return yield* proxy.stall
          case "held":
            yield* all((proxy) => proxy.pause)
            yield* Effect.sleep(200 + far * 2_000)
            return yield* all((proxy) => proxy.resume)
          case "500 ms latency":
            yield* all((proxy) => proxy.delay(500))
            yield* Effect.sleep(isShort ? 1_500 : 4_000)
            return yield* all((proxy) => proxy.delay(0))
        }
      })

      for (const [i, { chances, kind }] of plan.entries()) {
        yield* Effect.sleep(50 + chances[3]! * (isShort ? 100 : 400))
        yield* inject(kind, chances)
        faults++
        // From its end, or from its beginning where it has none, until what is published then is handled by all.
        const from = Date.now()
        yield* Effect.forEach(channels, (channel, p) => {
          const text = `probe${i}p${p}-0`
          return Effect.provide(
            Effect.andThen(insist(channel, text), Effect.sync(() => tell(channel.name, text))),
            publishing
          )
        }, { concurrency: "unbounded", discard: true })
        let last = 0
        yield* until(
          `what was published after "${kind}" is handled`,
          Effect.sync(() => {
            const seen = recorder.deliveries.filter(({ text }) => text.startsWith(`probe${i}p`))
            last = Math.max(...seen.map(({ at }) => at))
            return new Set(seen.map(({ group, text }) => `${group} ${text}`)).size === groups.length * channels.length
          })
        )
        recoveries.push(last - from)
        if (kind !== "half-open" && last - from > recoveryWithinSeen * patience) {
          violations.push(`I8: recovered ${last - from} ms after "${kind}", more than ${recoveryWithinSeen}`)
        }
      }
      isOver = true
      yield* until("the publishers have ended", Effect.sync(() => publishers.pollUnsafe() !== undefined))

      return yield* Effect.gen(function*() {
        const left = yield* settled(source)
        const broker = yield* Broker.Broker
        const { channels: found } = yield* broker.info(Channel.selector(source))
        for (const { channel, length } of found) {
          const expected = told.get(channel)!.length
          if (length !== expected) violations.push(`${expected} were told as stored in ${channel}, there are ${length}`)
        }
        for (const { failure, group, payload } of yield* letters) {
          violations.push(`a dead letter: ${payload} for ${group}: ${failure.reason}, ${failure.message}`)
        }
        for (const [channel, texts] of told) {
          const effects = yield* Effect.forEach(
            texts,
            (text) => broker.own.read(broker.own.keyFor(channel, text)),
            { concurrency: 100 }
          )
          const wrong = texts.filter((_, i) => effects[i] !== "1")
          if (wrong.length > 0) {
            violations.push(`I2: ${wrong.length} effects did not happen once: ${wrong.slice(0, 5).join(", ")}`)
          }
        }
        const account = recorder.account({ groups, ordered: ["one"] })
        return { ...account, faults, recoveries, violations: [...account.violations, ...violations, ...left] }
      }).pipe(Effect.provide(watching))
    }).pipe(Effect.provide(Logger.layer([])))
