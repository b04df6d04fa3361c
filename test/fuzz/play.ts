/**
 * Plays a history on a backend, and gives its outcome: answers, deliveries to handlers, dead letters, and totals. After each step all
 * work is finished, so that the outcome does not depend on which part was faster.
 */
import { Clock, Data, DateTime, Effect, Exit, type Layer, Schedule, Schema, Scope } from "effect"
import {
  Broker,
  Channel,
  type DeadLetter,
  DeadLetters,
  type Message,
  Publisher,
  Retry,
  type Rotif,
  Scheduler,
  Stats,
  Subscription,
  Transaction
} from "rotif"
import { errorTagOf } from "../../src/internal/failure.ts"
import type { Action, ChannelName, Content, Group, History, Publish, Step } from "./history.ts"

const Payload = Schema.Struct({ n: Schema.Int, plan: Schema.Array(Schema.String) })

const One = Channel.make("a.one", { payload: Payload })
const Two = Channel.make("a.two", { payload: Payload })
const Other = Channel.make("b.one", { payload: Payload })
/** A limit that is never reached: a log on Redis keeps about this many messages, in memory exactly this many. */
const Capped = Channel.make("capped", { payload: Payload, limits: { maxLength: 1_000 } })
const Notes = Channel.make("users.:user.notes", { payload: Payload })
/** The channel that transactions publish to. */
const Out = Channel.make("out", { payload: Payload })

const plain = { "a.one": One, "a.two": Two, "b.one": Other, capped: Capped }
const Everything = Channel.pattern("**", { payload: Payload })

const sources = {
  "a.one": One,
  "a.two": Two,
  capped: Capped,
  notes: Notes,
  both: Channel.union([One, Two]),
  "a.*": Channel.pattern("a.*", { payload: Payload }),
  "**": Everything
} satisfies Record<Group["source"], Channel.Source>

const reads: Record<Group["source"], (channel: string) => boolean> = {
  "a.one": (channel) => channel === "a.one",
  "a.two": (channel) => channel === "a.two",
  capped: (channel) => channel === "capped",
  notes: (channel) => channel === Notes.name,
  both: (channel) => channel === "a.one" || channel === "a.two",
  "a.*": (channel) => channel === "a.one" || channel === "a.two",
  "**": () => true
}

class Again extends Data.TaggedError("Again")<{ readonly n: number }> {}
class Fatal extends Data.TaggedError("Fatal")<{ readonly n: number }> {}

/** Quick policies with few attempts. */
export const options = { maxRetries: 2, retryDelay: "2 millis" } as const

const again = Schedule.spaced("2 millis")
const retry = Retry.make({ Again: again, Fatal: Retry.term, LeaseLost: again })

/**
 * Messages that are due in the same millisecond have no order: those of a call become due one after the other, and not before the call
 * has ended on a busy machine.
 */
const shortMillis = (place: number) => 150 + 5 * place
const longestShortMillis = shortMillis(10)
/** Long enough for a reader on a busy machine. */
const expiresMillis = 1_500
const long = "1 hour"

export interface Outcome {
  /** The answer of each step. */
  readonly answers: ReadonlyArray<unknown>
  /** For each group, channel and message: the attempts that a handler saw, and its actions. */
  readonly handled: Readonly<Record<string, ReadonlyArray<string>>>
  /** For groups that handle one message at a time of one channel: the order of the beginnings. */
  readonly order: Readonly<Record<string, ReadonlyArray<number>>>
  readonly letters: ReadonlyArray<unknown>
  readonly scheduled: ReadonlyArray<unknown>
  readonly accounts: Readonly<Record<string, unknown>>
  readonly effects: Readonly<Record<string, unknown>>
}

interface Running {
  readonly options: Group
  readonly subscription: Subscription.Subscription
  readonly end: Effect.Effect<void>
  isPaused: boolean
}

const letterKey = (letter: DeadLetter.DeadLetter) => `${letter.channel} ${letter.raw} ${letter.failure.reason}`

const byKey = (a: DeadLetter.DeadLetter, b: DeadLetter.DeadLetter) => {
  const [x, y] = [letterKey(a), letterKey(b)]
  return x < y ? -1 : x > y ? 1 : 0
}

/** Repeats a check until it holds; after its time it dies with the name of the condition. */
const until = (what: () => string, isSo: Effect.Effect<boolean, unknown, Rotif.Services>) =>
  Effect.gen(function*() {
    while (!(yield* isSo)) yield* Effect.sleep(2)
  }).pipe(
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.die(new Error(`within 20 seconds it did not come to rest: ${what()}`))
    })
  )

const run = Effect.fnUntraced(function*({ steps }: History): Effect.fn.Return<
  Outcome,
  unknown,
  Rotif.Services | Scope.Scope
> {
  const broker = yield* Broker.Broker
  const groups = new Map<string, Running>()
  const handled = new Map<string, Array<string>>()
  const order = new Map<string, Array<number>>()
  const calls = new Map<string, number>()
  /** When messages that expire soon have certainly expired. */
  let expiredAt = 0

  const act = (
    name: string,
    group: Group,
    message: Message.Message<typeof Everything>,
    isTransactional: boolean
  ): Effect.Effect<unknown, Again | Fatal | Message.LeaseLost> => {
    const { attempt, channel, payload } = message
    const { n } = payload
    const plan = payload.plan as ReadonlyArray<Action>
    const key = `${name} ${channel} ${n}`
    const call = calls.get(key) ?? 0
    calls.set(key, call + 1)
    // Publishes of transactions arrive when these end.
    if (call === 0 && group.concurrency === 1 && channel !== Out.name) {
      const line = `${name} ${channel}`
      order.set(line, [...(order.get(line) ?? []), n])
    }
    // Groups act differently on a message, and all of them finish it.
    const wanted = call < plan.length ? plan[(call + name.charCodeAt(1)) % plan.length]! : "ok"
    // A transaction acknowledges with its success, and in no other way.
    const action = isTransactional && (wanted === "ack-then-fail" || wanted === "nack") ? "ok" : wanted
    handled.set(key, [...(handled.get(key) ?? []), `${attempt} ${action}`])
    switch (action) {
      case "ok":
        return Effect.void
      case "fail":
        return Effect.fail(new Again({ n }))
      case "fatal":
        return Effect.fail(new Fatal({ n }))
      case "die":
        return Effect.die(new Error(`defect ${n}`))
      case "nack":
        return message.nack({ delay: 2 })
      case "release":
        return message.release
      case "term":
        return message.term(`enough of ${n}`)
      case "ack-then-fail":
        return Effect.andThen(message.ack, Effect.fail(new Again({ n })))
      case "interrupt":
        return Effect.interrupt
    }
  }

  const subscribe = Effect.fnUntraced(function*(name: string, group: Group): Effect.fn.Return<
    void,
    unknown,
    Rotif.Services | Scope.Scope
  > {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const common = {
      group: name,
      startFrom: group.from,
      concurrency: group.concurrency,
      expired: group.expired,
      retry
    }
    // The sources differ in their types only by their names.
    const source = sources[group.source] as typeof Everything
    const subscription = yield* (group.mode === "transactional"
      ? Subscription.make(source, {
        ...common,
        transactional: true,
        handler: (message) =>
          Effect.gen(function*() {
            const { n } = message.payload
            // Its effects are applied only with a success.
            yield* Effect.orDie(Transaction.incrby(yield* Transaction.key(`count:${name}:${n}`), 1))
            if (message.channel !== Out.name && n % 3 === 0) {
              yield* Effect.orDie(Transaction.publish(Out, { n: 10_000 + n, plan: ["ok"] }))
            }
            yield* act(name, group, message, true)
          })
      })
      : Subscription.make(source, {
        ...common,
        exactlyOnce: group.mode === "exactlyOnce",
        handler: (message) => act(name, group, message, false)
      })).pipe(Scope.provide(scope))
    groups.set(name, { options: group, subscription, end: Scope.close(scope, Exit.void), isPaused: false })
  })

  const shards = Array.from({ length: broker.shards }, (_, shard) => shard)

  /** Waits until no running group has work left and nothing becomes due soon. */
  let seen: unknown
  const isQuiet = Effect.gen(function*() {
    // Messages in an outbox move to their shards meanwhile.
    for (const shard of broker.shards > 1 ? shards : []) {
      if ((yield* broker.relay(shard, 1_000)) > 0) {
        seen = { outbox: shard }
        return false
      }
    }
    for (const { subscription } of groups.values()) {
      const { held } = yield* subscription.stats
      if (held > 0) {
        seen = { group: subscription.group, held }
        return false
      }
    }
    for (const { channel, groups: all } of yield* Stats.channels()) {
      for (const { due, group, lag, pending, ready } of all) {
        if (due > 0) {
          seen = { group, channel, due }
          return false
        }
        const running = groups.get(group)
        const isReading = running !== undefined && !running.isPaused && reads[running.options.source](channel)
        if (pending > 0 || (isReading && (ready > 0 || (lag ?? 0) > 0))) {
          seen = { group, channel, lag, pending, ready }
          return false
        }
      }
    }
    const nowMillis = yield* Clock.currentTimeMillis
    const { messages } = yield* Scheduler.list({ limit: 1 })
    const [first] = messages
    seen = { first }
    return first === undefined || DateTime.toEpochMillis(first.dueAt) > nowMillis + 600_000
  })
  // Twice: the counts are not taken at one moment.
  const quiet = until(
    () => JSON.stringify(seen),
    Effect.gen(function*() {
      return (yield* isQuiet) && (yield* isQuiet)
    })
  )

  const publishOptions = (message: Publish, place = 0): Publisher.PublishOptions => ({
    ...(message.id === undefined ? {} : { id: message.id }),
    ...(message.deduplicate === undefined ? {} : { deduplicate: { window: long } }),
    ...(message.throttle === undefined ? {} : { throttle: { key: message.throttle, window: long } }),
    ...(message.debounce === undefined
      ? {}
      : {
        debounce: { key: message.debounce, delay: message.debounce === "d1" ? shortMillis(place) : long }
      }),
    ...(message.when === "short" ? { delay: shortMillis(place) } : {}),
    ...(message.when === "long" ? { delay: long } : {}),
    ...(message.when === "past" ? { at: DateTime.makeUnsafe(1_000_000) } : {}),
    ...(message.expires === "short" ? { expiresIn: expiresMillis } : {}),
    ...(message.expires === "long" ? { expiresIn: long } : {}),
    ...(message.headers === undefined ? {} : { headers: { one: "1" } })
  })

  const noteExpiry = (messages: ReadonlyArray<Publish>) =>
    Effect.gen(function*() {
      if (!messages.some(({ expires }) => expires === "short")) return
      expiredAt = (yield* Clock.currentTimeMillis) + longestShortMillis + expiresMillis + 100
    })

  /** Waits until unread messages that expire have expired, before a group reads them. */
  const untilExpired = Effect.gen(function*() {
    const left = expiredAt - (yield* Clock.currentTimeMillis)
    if (left > 0) yield* Effect.sleep(left)
  })

  /** Names the message of a receipt: ids that Rotif made differ between backends. */
  const names = new Map<string, string>()
  const receiptOf = (receipt: Publisher.Receipt, { n }: Content) => {
    const known = names.get(`${receipt.channel} ${receipt.id}`)
    if (receipt._tag === "Duplicate") return `duplicate of ${known}`
    if (known === undefined) names.set(`${receipt.channel} ${receipt.id}`, `${n}`)
    return receipt._tag
  }

  const answerOf = <A>(effect: Effect.Effect<A, unknown, Rotif.Services>) =>
    Effect.match(effect, {
      onFailure: (error) => `error ${errorTagOf(error)}`,
      onSuccess: (value): unknown => value
    })

  const publish = Effect.fnUntraced(function*(message: Publish) {
    yield* noteExpiry([message])
    if (message.malformed === true && message.channel !== Notes.name) {
      // Another program, with another definition of the channel.
      const foreign = Channel.make(message.channel as "a.one", { payload: Schema.String })
      const receipt = yield* Publisher.publish(foreign, `not ${message.content.n}`, publishOptions(message))
      return receiptOf(receipt, message.content)
    }
    const receipt = message.channel === Notes.name
      ? yield* Publisher.publish(Notes, message.content, {
        ...publishOptions(message),
        params: { user: `u${message.content.n % 3}` }
      })
      : yield* Publisher.publish(plain[message.channel as keyof typeof plain], message.content, publishOptions(message))
    return receiptOf(receipt, message.content)
  })

  const publishAll = Effect.fnUntraced(function*(channel: ChannelName, messages: ReadonlyArray<Publish>) {
    yield* noteExpiry(messages)
    const contents = messages.map(({ content }) => content)
    const at = (content: Content) => {
      const place = contents.indexOf(content)
      return publishOptions(messages[place]!, place)
    }
    const receipts = channel === Notes.name
      ? yield* Publisher.publishAll(Notes, contents, (content) => ({
        ...at(content as Content),
        params: { user: `u${content.n % 3}` }
      }))
      : yield* Publisher.publishAll(
        plain[channel as keyof typeof plain],
        contents,
        (content) => at(content as Content)
      )
    return receipts.map((receipt, i) => receiptOf(receipt, contents[i]!))
  })

  const channelOf = (name: ChannelName): Channel.Any => name === Notes.name ? Notes : plain[name as keyof typeof plain]

  const lettersOf = (group?: string) =>
    Effect.map(
      DeadLetters.list(group === undefined ? {} : { group }, { limit: 1_000 }),
      ({ letters }) => [...letters].sort(byKey)
    )

  const play = (step: Step): Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope> => {
    switch (step._tag) {
      case "Subscribe":
        if (groups.has(step.group)) return Effect.succeed("runs already")
        return Effect.andThen(untilExpired, subscribe(step.group, step.options))
      case "End": {
        const running = groups.get(step.group)
        if (running === undefined) return Effect.succeed("does not run")
        groups.delete(step.group)
        return Effect.andThen(running.subscription.unsubscribe({ removeGroup: step.remove }), running.end)
      }
      case "Pause": {
        const running = groups.get(step.group)
        if (running === undefined) return Effect.succeed("does not run")
        running.isPaused = true
        return running.subscription.pause
      }
      case "Resume": {
        const running = groups.get(step.group)
        if (running === undefined) return Effect.succeed("does not run")
        running.isPaused = false
        return Effect.andThen(untilExpired, running.subscription.resume)
      }
      case "Publish":
        return answerOf(publish(step.message))
      case "PublishAll":
        return answerOf(publishAll(step.channel, step.messages))
      case "Cancel":
        return answerOf(Scheduler.cancel(channelOf(step.channel), step.id))
      case "Reschedule":
        return answerOf(
          Scheduler.reschedule(channelOf(step.channel), step.id, {
            delay: step.when === "short" ? longestShortMillis : long
          })
        )
      case "DeliverNow":
        return answerOf(Scheduler.deliverNow(channelOf(step.channel), step.id))
      case "Requeue":
        return Effect.gen(function*() {
          const [letter] = yield* lettersOf(step.group)
          if (letter === undefined) return "no letter"
          const channel = letter.channel === Notes.name
            ? Notes
            : letter.channel === Out.name
            ? Out
            : plain[letter.channel as keyof typeof plain]
          yield* DeadLetters.requeue(
            letter.letterId,
            ...(step.edit === undefined ? [] : [{ channel: channel as typeof One, payload: step.edit }])
          )
          return letterKey(letter)
        })
      case "RequeueAll":
        return Effect.map(DeadLetters.requeueAll({ group: step.group }, { limit: 1_000 }), (result) => result)
      case "RemoveLetter":
        return Effect.gen(function*() {
          const [letter] = yield* lettersOf(step.group)
          return letter === undefined ? "no letter" : yield* DeadLetters.remove(letter.letterId)
        })
      case "Purge":
        return DeadLetters.purge({ group: step.group })
      case "Expire":
        return DeadLetters.applyRetention
      case "Trim":
        return Effect.forEach(shards, (shard) => broker.trim(shard), { discard: true })
    }
  }

  const answers: Array<unknown> = []
  for (const step of steps) {
    answers.push(yield* play(step))
    yield* quiet
  }

  const letters = (yield* lettersOf()).map((
    { attempt, channel, failure, group, headers, history, malformed, params, raw }
  ) => ({
    group,
    channel,
    raw,
    reason: failure.reason,
    errorTag: failure.errorTag,
    message: failure.message,
    attempt,
    headers,
    params,
    isMalformed: malformed !== undefined,
    past: history.map(({ reason }) => reason)
  }))
  letters.sort((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)
  const { messages } = yield* Scheduler.list({ limit: 1_000 })
  const scheduled = messages.map(({ channel, headers, params, ...message }) => ({
    channel,
    headers,
    params,
    payload: "payload" in message ? message.payload : undefined
  }))
  scheduled.sort((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)

  const accounts: Record<string, unknown> = {}
  const effects: Record<string, unknown> = {}
  for (const { channel, groups: all, published, scheduled } of yield* Stats.channels()) {
    accounts[channel] = { published, scheduled }
    for (const { dead, due, group, lag, lost, pending, ready, removed, skipped, totals } of all) {
      accounts[`${channel} ${group}`] = {
        dead,
        due,
        pending,
        removed,
        totals,
        // How much a consumer reads before it is paused differs between backends, and so does whether lag is known.
        open: lag === undefined ? undefined : lag + ready,
        skipped,
        lost
      }
    }
  }
  for (const key of handled.keys()) {
    const [group, channel, n] = key.split(" ") as [string, string, string]
    if (groups.get(group)?.options.mode !== "transactional" && !key.startsWith("t")) continue
    const own = broker.own.keyFor(channel, `count:${group}:${n}`)
    effects[key] = yield* broker.own.read(own)
  }
  return {
    answers,
    handled: Object.fromEntries(handled),
    order: Object.fromEntries(order),
    letters,
    scheduled,
    accounts,
    effects
  }
})

export const play = (history: History, layer: Layer.Layer<Rotif.Services, unknown>): Effect.Effect<Outcome, unknown> =>
  run(history).pipe(Effect.scoped, Effect.provide(layer))
