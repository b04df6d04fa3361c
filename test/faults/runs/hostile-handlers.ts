/** Handlers that do what a handler should not: each kind among messages that are handled as they should be. */
import { Effect, Exit, Layer, Logger, Random, Schema, Scope } from "effect"
import { Broker, Channel, Publisher, Rotif, Subscription } from "rotif"
import { NotificationManager } from "rotif/promise"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { letters } from "../../contract/kit.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, until } from "../Run.ts"

const Work = Channel.make("work", { payload: Schema.String })
const lease = 600

/** How each kind ends: handled in the end, or given up with a reason. */
const kinds = {
  fine: "handled",
  slow: "handled",
  blocks: "handled",
  dies: "exhausted",
  throws: "exhausted",
  "dies once": "handled",
  "settles twice": "handled",
  "settles late": "handled",
  "dies in a finalizer": "exhausted",
  "stays uninterruptible": "handled",
  "gives no Effect": "exhausted",
  "leaves a daemon": "handled",
  "fails with what cannot be shown": "exhausted",
  "interrupts itself": "handled"
} as const
type Kind = keyof typeof kinds

const block = (millis: number) => {
  for (const end = performance.now() + millis; performance.now() < end;);
}

const unshowable = {
  get _tag(): string {
    throw new Error("no")
  },
  toString: () => {
    throw new Error("no")
  }
}

export default {
  number: 11,
  title: "Handlers that block, die, never settle, settle twice, or are no Effects",
  body: Effect.fnUntraced(function*({ isShort }) {
    const names = Object.keys(kinds) as Array<Kind>
    const rounds = isShort ? 2 : 15
    const order: Array<Kind> = []
    for (let round = 0; round < rounds; round++) {
      order.push(...(yield* Random.shuffle([...names, "fine", "fine", "fine"] as Array<Kind>)))
    }
    const server = yield* RedisServer.make()
    const options = { url: server.url, prefix: "hostile", retryDelay: 20, maxRetries: 2, maxCrashes: 100_000 }
    const services = yield* Layer.build(Rotif.layer({ ...options, drainTimeout: 200 }))
    const recorder = new Recorder()
    const violations: Array<string> = []
    const told: Array<readonly [text: string, kind: Kind]> = []

    return yield* Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const daemons = yield* Scope.make()
      const handler = (message: {
        readonly ack: Effect.Effect<void, unknown>
        readonly attempt: number
        readonly channel: string
        readonly deliveryCount: number
        readonly group: string
        readonly payload: string
      }) => {
        const { ack, attempt, channel, deliveryCount, group, payload: text } = message
        const kind = text.slice(0, text.lastIndexOf("-")) as Kind
        if (kind === "throws") throw new Error("at once")
        if (kind === "gives no Effect") return 42 as unknown as Effect.Effect<void>
        const done = Effect.sync(() =>
          recorder.handled({ group, consumer: group, channel, text, deliveryCount, at: Date.now() })
        )
        return Effect.gen(function*() {
          switch (kind) {
            case "slow":
              yield* Effect.sleep(3 * lease)
              break
            case "blocks":
              // No timer, no renewal, no answer in this time.
              if (deliveryCount === 1) block(1.5 * lease)
              break
            case "dies":
              return yield* Effect.die(new Error("a bug"))
            case "dies once":
              if (attempt === 1) return yield* Effect.die("a bug")
              break
            case "settles twice":
              yield* done
              yield* ack
              yield* ack
              return
            case "settles late":
              yield* Effect.forkIn(Effect.andThen(Effect.sleep(100), Effect.ignore(ack)), daemons)
              break
            case "dies in a finalizer":
              return yield* Effect.ensuring(Effect.void, Effect.die(new Error("a bug while cleaning up")))
            case "stays uninterruptible":
              yield* Effect.uninterruptible(Effect.sleep(2 * lease))
              break
            case "leaves a daemon":
              yield* Effect.forkDetach(Effect.andThen(Effect.sleep(50), Effect.die(new Error("nobody waits for it"))))
              break
            case "fails with what cannot be shown":
              return yield* Effect.fail(unshowable)
            case "interrupts itself":
              if (deliveryCount === 1) return yield* Effect.interrupt
              break
          }
          yield* done
        })
      }
      yield* Subscription.make(Work, { group: "hostile", concurrency: 20, lease, handler })

      // With Promises: handlers that throw, reject, and of which one never ends.
      const said: Array<string> = []
      const manager = new NotificationManager({
        redis: server.url,
        prefix: options.prefix,
        maxRetries: 1,
        retryDelay: 20,
        logger: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
      })
      yield* Effect.addFinalizer(() => Effect.promise(() => manager.stopAll()))
      yield* Effect.promise(() =>
        manager.subscribe("work", (message) => {
          const text = String(message.payload)
          if (text.startsWith("throws")) throw new Error("at once")
          if (text.startsWith("dies-")) return Promise.reject(new Error("rejected"))
          said.push(text)
          return Promise.resolve()
        }, { group: "promises", concurrency: 10 })
      )

      for (const [i, kind] of order.entries()) {
        const text = `${kind}-${i}`
        yield* Publisher.publish(Work, text)
        recorder.told(text)
        told.push([text, kind])
        yield* Effect.sleep(10)
      }

      const left = yield* settled(Work, { within: 20_000 })
      const dead = new Map((yield* letters).map(({ failure, group, payload }) => [
        `${group} ${JSON.parse(payload) as string}`,
        failure.reason
      ]))
      const handled = new Set(recorder.deliveries.map(({ text }) => text))
      for (const [text, kind] of told) {
        const expected = kinds[kind]
        const found = dead.get(`hostile ${text}`) ?? (handled.has(text) ? "handled" : "lost")
        if (found !== expected) violations.push(`"${text}" ended as ${found}, not as ${expected}`)
        const byPromise = dead.get(`promises ${text}`) ?? (said.includes(text) ? "handled" : "lost")
        const isBad = kind === "throws" || kind === "dies"
        if (byPromise !== (isBad ? "exhausted" : "handled")) {
          violations.push(`"${text}" ended with Promises as ${byPromise}`)
        }
      }

      // Manual settlement that never comes: held as long as the subscription lives, and given back at its end.
      const scope = yield* Scope.make()
      const Forgotten = Channel.make("forgotten", { payload: Schema.String })
      const held: Array<number> = []
      const forgetful = (handle: (deliveryCount: number) => Effect.Effect<unknown>) =>
        Subscription.make(Forgotten, {
          group: "forgetful",
          lease,
          ackMode: "manual",
          handler: ({ deliveryCount }) => handle(deliveryCount)
        })
      yield* Scope.provide(forgetful((count) => Effect.sync(() => held.push(count))), scope)
      yield* Publisher.publish(Forgotten, "x")
      yield* until("it is held", Effect.sync(() => held.length > 0))
      yield* Effect.sleep(2.5 * lease)
      if (held.length !== 1) {
        violations.push(`what nobody settled was handed out ${held.length} times while it was held`)
      }
      yield* Scope.close(scope, Exit.void)
      yield* Effect.scoped(Effect.gen(function*() {
        const again: Array<number> = []
        const next = yield* Subscription.make(Forgotten, {
          group: "forgetful",
          lease,
          handler: ({ attempt }) => Effect.sync(() => again.push(attempt))
        })
        yield* until("it came back", Effect.map(next.stats, ({ processed }) => processed === 1))
        if (again.join() !== "1") violations.push(`what was given back came as the attempts ${again.join()}`)
      }))
      yield* Scope.close(daemons, Exit.void)
      const after = yield* broker.info(Channel.selector(Forgotten))
      if (after.waiting !== 0) violations.push("something of the forgotten message still waits")
      const account = recorder.account({ groups: ["hostile"], isKept: (group, text) => dead.has(`${group} ${text}`) })
      return {
        ...account,
        faults: order.filter((kind) => kind !== "fine").length + 1,
        recoveries: [],
        violations: [...account.violations, ...violations, ...left]
      }
    }).pipe(Effect.provide(services))
  }, Effect.provide(Logger.layer([])))
} satisfies Run
