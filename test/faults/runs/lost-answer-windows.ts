/**
 * Publishes lose their answers, and what could prove them ends before the connection is back: short windows of throttle and deduplicate, a
 * debounced message that is delivered or replaced, scheduled ones that are promoted, cancelled or delivered now, limits and the janitor that remove
 * what was stored. Each call has stored at most one message, and it is told the truth, or that nothing tells it any more.
 */
import { Effect, Random, Schema } from "effect"
import { Channel, Publisher, Rotif, Scheduler, Subscription } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as TcpProxy from "../../fixtures/TcpProxy.ts"
import { type Run, until } from "../Run.ts"

const Text = Channel.make("windows", { payload: Schema.String })
const Short = Channel.make("windows.short", { payload: Schema.String, limits: { maxLength: 10 } })

const kinds = [
  "plain",
  "plain, and a limit",
  "throttle",
  "deduplicate",
  "debounce",
  "debounce, and replaced",
  "delay",
  "delay, and cancelled",
  "delay, and delivered now"
] as const

type Kind = (typeof kinds)[number]

/** How long an answer is missed for: longer than every window. */
const windowMillis = 60

const optionsOf = (kind: Kind, text: string): Publisher.PublishOptions => {
  switch (kind) {
    case "throttle":
      return { throttle: { key: text, window: windowMillis } }
    case "deduplicate":
      return { id: text, deduplicate: { window: windowMillis } }
    case "debounce":
      return { debounce: { key: text, delay: windowMillis } }
    case "debounce, and replaced":
      return { debounce: { key: text, delay: 5_000 } }
    case "delay":
      return { delay: windowMillis }
    case "delay, and cancelled":
    case "delay, and delivered now":
      return { delay: "1 hour" }
    default:
      return {}
  }
}

export default {
  number: 19,
  title: "Lost answers, with what proves them gone before they are asked for",
  body: Effect.fnUntraced(function*({ isShort }) {
    const server = yield* RedisServer.make()
    const proxy = yield* TcpProxy.make(server)
    const prefix = "lostanswers"
    const violations: Array<string> = []
    const handled = new Map<string, number>()
    const common = { prefix, graceMillis: 50, trimInterval: 20 }
    const direct = Rotif.layer({ url: server.url, ...common })
    let rounds = 0

    /** What others do while the answer is missed. */
    const meanwhile = Effect.fnUntraced(function*(kind: Kind, text: string, isStored: boolean) {
      const { messages } = yield* Scheduler.list()
      const waiting = messages.find(({ payload }) => payload === JSON.stringify(text))
      switch (kind) {
        case "plain, and a limit":
          return yield* Publisher.publishAll(Short, Array.from({ length: 300 }, () => "other"))
        case "throttle":
        case "deduplicate":
          yield* Effect.sleep(2 * windowMillis)
          return yield* Publisher.publish(Text, `${text} other`, optionsOf(kind, text))
        case "debounce, and replaced":
          yield* Publisher.publish(Text, `${text} other`, optionsOf(kind, text))
          break
        case "delay, and cancelled":
          if (isStored && !(yield* Scheduler.cancel(Text, waiting!.id))) violations.push(`${text} was not cancelled`)
          return
        case "delay, and delivered now":
          if (isStored) yield* Scheduler.deliverNow(Text, waiting!.id)
      }
      if (isStored && kind !== "debounce, and replaced") {
        yield* until(`${text} is handled`, Effect.sync(() => handled.has(text)))
        // And removed by the janitor.
        yield* Effect.sleep(200)
      }
    })

    /** With such a short timeout on a busy machine it may need to be said again. */
    const before = <A, E extends { readonly _tag: string }, R>(publish: Effect.Effect<A, E, R>) =>
      Effect.retry(publish, { while: ({ _tag }) => _tag === "Unavailable" || _tag === "PublishUncertain" })

    const round = Effect.fnUntraced(function*(kind: Kind) {
      const text = `canary-${rounds++}`
      const channel = kind === "plain, and a limit" ? Short : Text
      const options = optionsOf(kind, text)
      yield* before(Publisher.publish(channel, "before"))
      yield* before(Publisher.publish(Text, "before", { delay: 1 }))
      const isStored = (yield* Random.nextInt) % 4 !== 0
      const match = (request: Buffer) => request.includes(`"${text}"`)
      const happened = yield* isStored ? proxy.dropReplyOnce(match) : proxy.cutRequestOnce(40, match)
      yield* proxy.refuse
      const error = yield* Effect.flip(Publisher.publish(channel, text, options))
      yield* happened
      if (error._tag !== "PublishUncertain") return yield* Effect.die(error)
      yield* Effect.provide(Effect.scoped(meanwhile(kind, text, isStored)), direct)
      yield* proxy.accept
      const again = { ...options, ...(options.debounce === undefined ? { id: error.id } : {}) }
      while (true) {
        const result = yield* Effect.result(Publisher.publish(channel, text, again))
        if (result._tag === "Success") {
          if (result.success._tag === "Duplicate") violations.push(`${text} (${kind}) is told a duplicate`)
          if (kind === "plain, and a limit") violations.push(`${text} (${kind}) is told as published`)
          break
        }
        if (result.failure._tag === "Unavailable") continue
        if (result.failure._tag !== "PublishUncertain") return yield* Effect.die(result.failure)
        if (!result.failure.isLasting) continue
        // Only the log tells of a plain message, and it was removed from it, or may have been.
        if (!kind.startsWith("plain")) violations.push(`${text} (${kind}) is not known`)
        break
      }
      return { text, kind, isStored }
    })

    const consumer = Subscription.make(Channel.union([Text, Short]), {
      group: "g",
      handler: ({ payload }) => Effect.sync(() => void handled.set(payload, (handled.get(payload) ?? 0) + 1))
    })

    const all = yield* Effect.gen(function*() {
      yield* Effect.forkScoped(Effect.andThen(consumer, Effect.never).pipe(Effect.scoped, Effect.provide(direct)))
      const done = []
      for (let i = 0; i < (isShort ? 1 : 5); i++) {
        for (const kind of kinds) done.push(yield* round(kind))
      }
      yield* until(
        "all is handled",
        Effect.map(server.command("zcount", `{${prefix}:0}:waiting`, "-inf", Date.now() + 60_000), (due) => due === 0)
      )
      yield* Effect.sleep(1_000)
      return done
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Rotif.layer({
          url: proxy.url,
          commandTimeout: 500,
          connectTimeout: 2_000,
          delayed: false,
          ...common,
          trimInterval: "1 hour"
        })
      )
    )

    for (const { isStored, kind, text } of all) {
      const times = handled.get(text) ?? 0
      const most = kind === "delay, and cancelled" ? 0 : 1
      if (times > 1 || isStored && times > most) violations.push(`${text} (${kind}) was handled ${times} times`)
      const others = handled.get(`${text} other`) ?? 0
      if (kind === "debounce, and replaced" && isStored && (times !== 0 || others !== 1)) {
        violations.push(`${text} (${kind}) took the place of what came later`)
      }
    }
    return { messages: all.length, faults: all.length, lost: 0, repeated: 0, recoveries: [], violations }
  })
} satisfies Run
