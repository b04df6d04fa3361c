/** Wrong values that functions of the program return at run time: each is refused with a type or costs an attempt, and none is taken for "at once". */
import { assert, describe } from "@effect/vitest"
import {
  Cause,
  Clock,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Layer,
  Logger,
  Queue,
  References,
  Result,
  Schedule,
  Schema
} from "effect"
import type { Message, Rotif } from "rotif"
import {
  Broadcast,
  Broker,
  Channel,
  DeadLetters,
  Deduplication,
  Middleware,
  Publisher,
  Retry,
  Scheduler,
  Subscription,
  Transaction
} from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

/** Passes a value that no type allows and JavaScript does. */
const any = (value: unknown) => value as never

/** Makes a new one each time: an unhandled rejected Promise ends the process. */
const rejected = () => Promise.reject(new Error("nobody waits for this"))

const noKeys: ReadonlyArray<readonly [name: string, make: () => unknown]> = [
  ["undefined", () => undefined],
  ["null", () => null],
  ["an empty text", () => ""],
  ["a number", () => 7],
  ["an object", () => ({ id: 1 })],
  ["a Promise", () => Promise.resolve("key")],
  ["a rejected Promise", rejected],
  ["half of a character", () => "a\ud800"],
  ["too much", () => "k".repeat(513)],
  ["an error", () => {
    throw new Error("no key")
  }]
]

const noDelays: ReadonlyArray<readonly [name: string, make: () => unknown]> = [
  ["NaN", () => Number.NaN],
  ["a negative number", () => -1],
  ["a negative span", () => "-5 seconds"],
  ["Infinity", () => Infinity],
  ["a text", () => "soon"],
  ["null", () => null],
  ["a flag", () => true],
  ["an empty object", () => ({})],
  ["a Date", () => new Date()],
  ["a Promise", () => Promise.resolve(5)],
  ["a rejected Promise", rejected]
]

/** Collects the warnings and errors of a program, one text each. */
const logged = () => {
  const lines: Array<string> = []
  const logger = Logger.make<unknown, void>(({ message }) => void lines.push([message].flat().map(String).join(" ")))
  return {
    lines,
    layer: Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "Warn"))
  }
}

export const runtimeValuesSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  /** Longer than all else in a test; on Effect's clock it takes no time. */
  const delayMillis = backend.clock === "effect" ? 5_000 : 150

  /** Measures the time between the first two deliveries of a message. */
  const gapsOf = Effect.fnUntraced(function*(
    handOuts: number,
    options: Omit<Parameters<typeof listen<typeof Text, unknown>>[1] & object, "handler">,
    handler: (message: Message.Message<typeof Text>) => Effect.Effect<unknown, unknown>
  ) {
    const times = yield* Queue.unbounded<number>()
    let left = handOuts
    yield* listen(Text, {
      ...options,
      handler: (message: Message.Message<typeof Text>) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          Queue.offerUnsafe(times, now)
          return --left > 0 ? handler(message) : message.ack
        })
    })
    yield* Publisher.publish(Text, "x")
    const seen = yield* soon(Queue.takeN(times, handOuts))
    yield* until(backend, Effect.map(leftover(Text), ({ pending, waiting }) => pending + waiting === 0))
    return seen.slice(1).map((time, i) => time - seen[i]!)
  }, Effect.scoped)

  /** On Redis promotion and the clocks of two machines may take a millisecond. */
  const assertAtLeast = (gaps: ReadonlyArray<number>, least: number) => {
    for (const gap of gaps) assert.isAtLeast(gap, least - 2)
  }

  describe("a key that is none", () => {
    for (const [name, make] of noKeys) {
      test(
        `idempotencyKey gives ${name}: every publish is refused by type, and nothing is stored`,
        Effect.gen(function*() {
          const Keyed = Channel.make("keyed", { payload: Schema.String, idempotencyKey: any(make) })
          for (const payload of ["a", "b"]) {
            const error = yield* Effect.flip(Publisher.publish(Keyed, payload))
            assert.strictEqual(error._tag, "InvalidPublishOptions")
            assert.include(error.message, "idempotencyKey")
          }
          assert.strictEqual(
            (yield* Effect.flip(Publisher.publishAll(Keyed, ["a", "b"])))._tag,
            "InvalidPublishOptions"
          )
          const broker = yield* Broker.Broker
          assert.deepStrictEqual((yield* broker.info(Channel.selector(Keyed))).channels, [])
        })
      )

      test(
        `exactlyOnce.key gives ${name}: the attempt fails, for each message by itself`,
        Effect.gen(function*() {
          yield* listen(Text, { exactlyOnce: { key: any(make) }, maxRetries: 0 })
          for (const payload of ["a", "b"]) yield* Publisher.publish(Text, payload)
          yield* until(backend, Effect.map(letters, ({ length }) => length === 2))
          const dead = yield* letters
          assert.sameMembers(dead.map(({ payload }) => payload), ["\"a\"", "\"b\""])
          for (const { failure } of dead) assert.match(failure.message, /exactlyOnce\.key|no key/)
        })
      )
    }

    test(
      "an idempotencyKey that looks like the id of a debounced message is refused as an id is, and is none of it",
      Effect.gen(function*() {
        const Keyed = Channel.make("keyed", { payload: Schema.String, idempotencyKey: (text) => text })
        yield* Publisher.publish(Keyed, "waits", { debounce: { key: "mine", delay: "1 hour" } })
        const error = yield* Effect.flip(Publisher.publish(Keyed, "debounce:mine", { delay: "1 minute" }))
        assert.strictEqual(error._tag, "InvalidPublishOptions")
        const { messages } = yield* Scheduler.list()
        assert.deepStrictEqual(messages.map(({ payload }) => payload), ["\"waits\""])
      })
    )

    test(
      "the id of a publish wins, and the key of its channel is not asked for",
      Effect.gen(function*() {
        const Keyed = Channel.make("keyed", { payload: Schema.String, idempotencyKey: any(rejected) })
        assert.strictEqual((yield* Publisher.publish(Keyed, "a", { id: "mine" })).id, "mine")
      })
    )

    test(
      "wrong ids, keys, names and functions for them are refused",
      Effect.gen(function*() {
        const refusals: ReadonlyArray<
          readonly [tag: string, Effect.Effect<unknown, { readonly _tag: string }, Rotif.Services>]
        > = [
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { id: any(rejected()) })],
          [
            "InvalidPublishOptions",
            Publisher.publish(Text, "x", { throttle: { key: any(rejected()), window: 1000 } })
          ],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { throttle: any(null) })],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { throttle: any("key") })],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { debounce: any(rejected()) })],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { id: "a", deduplicate: any(true) })],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { headers: { a: any(rejected()) } })],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", any("5 seconds"))],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", any({ dealy: 5 }))],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", any(null))],
          ["InvalidPublishOptions", Publisher.publish(any("texts"), any("x"), any(undefined))],
          ["InvalidPublishOptions", Publisher.publish(any(Channel.union([Text])), any("x"), any(undefined))],
          [
            "InvalidPublishOptions",
            Publisher.publish(any(Channel.pattern("*", { payload: Text.payload })), any("x"), any(undefined))
          ],
          [
            "InvalidPublishOptions",
            Publisher.publish(Text, "x", { throttle: any({ key: "k", window: 5, windw: 6 }) })
          ],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { debounce: any({ key: "k", delay: 5, max: 6 }) })],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { id: "a", deduplicate: any({ window: 5, ttl: 6 }) })],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { headers: any(new Map([["a", "b"]])) })],
          ["InvalidPublishOptions", Publisher.publish(Text, "x", { headers: any(new Headers({ a: "b" })) })],
          ["InvalidPublishOptions", Publisher.publishAll(Text, any(rejected()))],
          ["InvalidPublishOptions", Publisher.publishAll(Text, ["x"], any(null))],
          ["InvalidPublishOptions", Publisher.publishAll(Text, ["x"], () => any(null))],
          ["InvalidPublishOptions", Publisher.publishAll(Text, ["x"], () => any(rejected()))],
          ["InvalidPayload", Publisher.publish(Text, any(rejected()))],
          ["InvalidPayload", Broadcast.publish(Text, any(rejected()))],
          ["InvalidPublishOptions", Broadcast.publish(any("texts"), any("x"), any(undefined))],
          ["InvalidPublishOptions", Broadcast.publish(Text, "x", any(null))],
          ["InvalidPublishOptions", Broadcast.publish(Text, "x", any({ header: {} }))],
          ["InvalidKey", Deduplication.once(any(rejected()), "1 day", Effect.void)],
          ["InvalidKey", Deduplication.once("k", any(rejected()), Effect.void)],
          ["InvalidKey", Deduplication.once("k", "1 day", any(rejected()))],
          ["InvalidSchedule", Scheduler.recurring(any(rejected()), "* * * * *", Text, "x")],
          ["InvalidSchedule", Scheduler.recurring("k", any(null), Text, "x")],
          ["InvalidSchedule", Scheduler.recurring("k", any({ every: rejected() }), Text, "x")],
          ["InvalidSchedule", Scheduler.recurring("k", any({ evry: 5 }), Text, "x")]
        ]
        for (const [tag, effect] of refusals) assert.strictEqual((yield* Effect.flip(effect))._tag, tag)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        // The key is free: a value that is no Effect was not begun.
        assert.strictEqual((yield* Deduplication.once("k", "1 day", Effect.void))._tag, "Done")
      })
    )
  })

  describe("an id or a key that is none", () => {
    const InvalidSchedule = "InvalidSchedule"
    const InvalidDeadLetterOption = "InvalidDeadLetterOption"
    type Call = (value: never) => Effect.Effect<unknown, unknown, Scheduler.Scheduler | DeadLetters.DeadLetters>
    const calls: ReadonlyArray<readonly [name: string, tag: string, option: string, call: Call]> = [
      ["Scheduler.cancel", InvalidSchedule, "id", (id) => Scheduler.cancel(Text, id)],
      ["Scheduler.reschedule", InvalidSchedule, "id", (id) => Scheduler.reschedule(Text, id, { delay: 1 })],
      ["Scheduler.deliverNow", InvalidSchedule, "id", (id) => Scheduler.deliverNow(Text, id)],
      ["Scheduler.recurring", InvalidSchedule, "key", (key) => Scheduler.recurring(key, { every: "1 day" }, Text, "x")],
      ["Scheduler.removeRecurring", InvalidSchedule, "key", (key) => Scheduler.removeRecurring(key)],
      ["DeadLetters.get", InvalidDeadLetterOption, "letterId", (id) => DeadLetters.get(id)],
      ["DeadLetters.requeue", InvalidDeadLetterOption, "letterId", (id) => DeadLetters.requeue(id)],
      ["DeadLetters.remove", InvalidDeadLetterOption, "letterId", (id) => DeadLetters.remove(id)],
      [
        "DeadLetters.forgetSubscription",
        InvalidDeadLetterOption,
        "name",
        (name) => DeadLetters.forgetSubscription(name)
      ]
    ]
    const values: ReadonlyArray<() => unknown> = [
      () => undefined,
      () => null,
      () => "",
      () => 7,
      () => ({ id: 1 }),
      () => Promise.resolve("key"),
      rejected,
      () => "a\ud800",
      () => "a\nb",
      () => "k".repeat(1_025)
    ]
    for (const [name, tag, option, call] of calls) {
      test(
        `${name} refuses it by type`,
        Effect.gen(function*() {
          for (const make of values) {
            const error = yield* Effect.flip(call(any(make()))) as Effect.Effect<{ _tag: string; option: string }>
            assert.deepInclude(error, { _tag: tag, option })
          }
        })
      )
    }

    test(
      "a channel that is none is refused by type",
      Effect.gen(function*() {
        for (const channel of [null, "texts", {}, Channel.pattern("*", { payload: Schema.String })].map(any)) {
          const calls: ReadonlyArray<Effect.Effect<unknown, unknown, Scheduler.Scheduler>> = [
            Scheduler.cancel(channel, "id"),
            Scheduler.reschedule(channel, "id", { delay: 1 }),
            Scheduler.deliverNow(channel, "id"),
            Scheduler.recurring("key", { every: "1 day" }, channel as typeof Text, "x"),
            Scheduler.list({ channel }),
            Scheduler.count(channel)
          ]
          for (const call of calls) {
            assert.deepInclude(yield* Effect.flip(call), { _tag: InvalidSchedule, option: "channel" })
          }
        }
        for (const when of [undefined, null, 5].map(any)) {
          const error = yield* Effect.flip(Scheduler.reschedule(Text, "id", when))
          assert.deepInclude(error, { _tag: InvalidSchedule, option: "when" })
        }
      })
    )
  })

  describe("a time that never comes", () => {
    for (
      const at of [
        "2027-02-30",
        "2027-04-31T10:00:00Z",
        "February 30, 2027",
        { year: 2027, month: 2, day: 30 },
        { year: 2027, month: 2, day: 3, hour: 24 },
        { year: 2027, minute: -1 },
        "02/30/2027",
        "2/30/30",
        "2027-2-30",
        "30 Feb 2 10:00",
        {},
        true
      ]
    ) {
      test(
        `${JSON.stringify(at)} is refused`,
        Effect.gen(function*() {
          assert.include((yield* Effect.flip(Publisher.publish(Text, "x", { at: any(at) }))).message, "calendar")
          assert.strictEqual(
            (yield* Effect.flip(Scheduler.reschedule(Text, "x", { at: any(at) })))._tag,
            "InvalidSchedule"
          )
          assert.strictEqual(
            (yield* Effect.flip(DeadLetters.list({ from: any(at) })))._tag,
            "InvalidDeadLetterOption"
          )
          assert.strictEqual(
            (yield* Effect.flip(listen(Text, { startFrom: { time: any(at) } })))._tag,
            "InvalidSubscription"
          )
        })
      )
    }

    for (
      const [at, isoText] of [
        ["2/28/30", "2030-02-28T00:00:00.000Z"],
        ["30 Jan 2031 10:00 GMT", "2031-01-30T10:00:00.000Z"],
        ["Sat, 01 Feb 2031 23:30:30 -0030", "2031-02-02T00:00:30.000Z"],
        [{ year: 2031, month: 1, day: 31, hour: 23, minute: 59 }, "2031-01-31T23:59:00.000Z"]
      ] as const
    ) {
      test(
        `${JSON.stringify(at)} is taken`,
        Effect.gen(function*() {
          const receipt = yield* Publisher.publish(Text, "x", { at: any(at) })
          assert(receipt._tag === "Scheduled")
          assert.strictEqual(DateTime.formatIso(receipt.dueAt), isoText)
        })
      )
    }

    for (const cron of ["0 0 30 2 *", "0 0 31 2,4,6 *"]) {
      test(
        `the cron expression ${cron} is refused`,
        Effect.gen(function*() {
          const error = yield* Effect.flip(Scheduler.recurring("k", cron, Text, "x"))
          assert.strictEqual(error._tag, "InvalidSchedule")
          assert.deepStrictEqual(yield* Scheduler.listRecurring, [])
        })
      )
    }
  })

  describe("missing values, and values of another kind", () => {
    const others: ReadonlyArray<readonly [name: string, make: () => unknown]> = [
      ["a Promise", () => Promise.resolve({ group: "g" })],
      ["a rejected Promise", rejected],
      ["a Map", () => new Map([["group", "g"]])],
      ["a Date", () => new Date()],
      ["an Effect", () => Effect.succeed({ group: "g" })],
      ["a class without any", () => new (class Filter {})()]
    ]
    for (const [name, make] of others) {
      test(
        `${name} is no filter of dead letters: nothing is purged, requeued or counted`,
        Effect.gen(function*() {
          yield* listen(Text, { maxRetries: 0, handler: () => Effect.fail("no") })
          yield* Publisher.publish(Text, "x")
          yield* until(backend, Effect.map(letters, ({ length }) => length === 1))
          const calls: ReadonlyArray<
            (filter: never) => Effect.Effect<unknown, { readonly _tag: string }, DeadLetters.DeadLetters>
          > = [
            DeadLetters.purge,
            (filter) => DeadLetters.requeueAll(filter, { limit: 10 }),
            DeadLetters.count,
            DeadLetters.list
          ]
          for (const call of calls) {
            assert.strictEqual((yield* Effect.flip(call(any(make()))))._tag, "InvalidDeadLetterOption")
          }
          assert.strictEqual((yield* letters).length, 1)
        })
      )
    }

    test(
      "a value that is no channel does not mean all channels, and an unknown name is refused",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "x", { id: "a", delay: "1 hour" })
        for (const wrong of [{ channel: "texts" }, { limt: 5 }, { cursor: 5 }, { channel: null }, "texts", null]) {
          assert.strictEqual((yield* Effect.flip(Scheduler.list(any(wrong))))._tag, "InvalidSchedule")
        }
        assert.strictEqual((yield* Effect.flip(Scheduler.count(any("texts"))))._tag, "InvalidSchedule")
        for (const wrong of [undefined, null, "5 minutes", { delay: 5, att: 6 }, rejected()]) {
          const error = yield* Effect.flip(Scheduler.reschedule(Text, "a", any(wrong)))
          assert.strictEqual(error._tag, "InvalidSchedule")
        }
        const zoned = Scheduler.recurring("k", { every: "1 day" }, Text, "x", { timeZone: "Europe/Berlin" })
        assert.strictEqual((yield* Effect.flip(zoned))._tag, "InvalidSchedule")
        assert.strictEqual(
          (yield* Effect.flip(Subscription.make<typeof Text, never, never>(Text, any(undefined))))._tag,
          "InvalidSubscription"
        )
        const both = { position: "5", time: 5 }
        assert.strictEqual((yield* Effect.flip(listen(Text, { startFrom: any(both) })))._tag, "InvalidSubscription")
        assert.strictEqual((yield* Effect.flip(Broadcast.publishAll(Text, any(null))))._tag, "InvalidPublishOptions")
        assert.throws(() => Retry.decorrelated(5, any({ max: 9, jitter: 0.5 })), /jitter/)
      })
    )

    for (const wrong of [true, null, "yes", { remove: true }, { removeGroup: "yes" }, { removeGroup: 1 }]) {
      test(
        `unsubscribe(${JSON.stringify(wrong)}) is told, and is not taken for "keep the group" in silence`,
        Effect.gen(function*() {
          const { seen, subscription } = yield* listen(Text)
          assert.isTrue(Exit.hasDies(yield* Effect.exit(subscription.unsubscribe(any(wrong)))))
          yield* Publisher.publish(Text, "x")
          yield* soon(Queue.take(seen))
        })
      )
    }
  })

  describe("the options function of publishAll", () => {
    for (const middleware of [undefined, Middleware.publish((next) => next), Middleware.metrics()]) {
      test(
        `that throws midway is a refusal, and nothing is stored (${
          middleware === undefined ? "without" : "with"
        } middleware)`,
        Effect.gen(function*() {
          const Own = middleware === undefined ? Text : Middleware.forChannel(Text, middleware)
          const error = yield* Effect.flip(Publisher.publishAll(Own, ["a", "b", "c"], (_, i) => {
            if (i === 1) throw new Error("midway")
            return {}
          }))
          assert.strictEqual(error._tag, "InvalidPublishOptions")
          assert.include(error.message, "midway")
          const broker = yield* Broker.Broker
          assert.deepStrictEqual((yield* broker.info(Channel.selector(Text))).channels, [])
        })
      )
    }
  })

  describe("a delay that is none", () => {
    for (const [name, make] of noDelays) {
      const log = logged()
      test(
        `a retry function gives ${name}: retryDelay is waited, and the log says so`,
        Effect.gen(function*() {
          const gaps = yield* gapsOf(
            2,
            { retry: any(make), retryDelay: delayMillis },
            () => Effect.fail(new Error("no"))
          )
          assertAtLeast(gaps, delayMillis)
          assert.isTrue(
            log.lines.some((line) => line.includes("retry policy") && line.includes("duration of 0 or more"))
          )
        }).pipe(Effect.provide(log.layer))
      )
    }

    for (const [name, make] of noDelays.filter(([name]) => name !== "null")) {
      const log = logged()
      test(
        `nack takes ${name}: a second is waited, and the log says so`,
        Effect.gen(function*() {
          const gaps = yield* gapsOf(2, {}, (message) => message.nack({ delay: any(make()) }))
          assertAtLeast(gaps, 1_000)
          assert.isTrue(log.lines.some((line) => line.includes("nack") && line.includes("texts")))
        }).pipe(Effect.provide(log.layer))
      )
    }

    test(
      "RetryAfter, a schedule, and a decision of another shape: retryDelay is waited",
      Effect.gen(function*() {
        const after = new Retry.RetryAfter({ delay: Number.NaN, message: "later" })
        assertAtLeast(yield* gapsOf(2, { retryDelay: delayMillis }, () => after), delayMillis)
        const backwards = Schedule.modifyDelay(Schedule.recurs(5), () => Effect.succeed(Duration.millis(-5)))
        const failing = () => Effect.fail(new Error("no"))
        for (const retry of [backwards, () => any({ _tag: "Retry" }), () => any({ _tag: "Later" })]) {
          assertAtLeast(yield* gapsOf(2, { retry, retryDelay: delayMillis }, failing), delayMillis)
        }
      })
    )
  })

  describe("a schedule that never answers", () => {
    const never = Schedule.modifyDelay(Schedule.recurs(5), () => Effect.never)
    for (
      const [name, retry] of [
        ["waits for ever", never],
        ["cannot be interrupted", Schedule.modifyDelay(Schedule.recurs(5), () => Effect.uninterruptible(Effect.never))],
        [
          "ends the fiber that asks it",
          Schedule.modifyDelay(Schedule.recurs(5), () => Effect.flatMap(Effect.void, any))
        ]
      ] as const
    ) {
      const log = logged()
      test(
        `${name}: retryDelay is waited, and the log says so`,
        Effect.gen(function*() {
          const gaps = yield* gapsOf(
            2,
            { retry: any(retry), retryDelay: delayMillis },
            () => Effect.fail(new Error("no"))
          )
          assertAtLeast(gaps, delayMillis)
          assert.lengthOf(log.lines.filter((line) => line.includes("retry policy")), 1)
        }).pipe(Effect.provide(log.layer))
      )
    }
  })

  describe("at once", () => {
    /** The documented delays between rounds. */
    const pace = [0, 0, 0, 10, 20, 40, 80, 160]

    test(
      "a message that is always released comes at a bounded rate, without an attempt",
      Effect.gen(function*() {
        const gaps = yield* gapsOf(9, {}, (message) => message.release)
        for (const [i, least] of pace.entries()) assert.isAtLeast(gaps[i]!, least - 2)
      })
    )

    for (
      const [name, options, handler] of [
        ["nack without a delay", {}, (message: Message.Message<typeof Text>) => message.nack()],
        ["a retry function that gives 0", { retry: () => 0, maxRetries: 10 }, () => Effect.fail(new Error("no"))],
        ["Retry.release", { retry: () => Retry.release }, () => Effect.fail(new Error("no"))],
        ["retryDelay 0", { retryDelay: 0, maxRetries: 10 }, () => Effect.fail(new Error("no"))],
        ["a schedule without delays", { retry: Schedule.recurs(10) }, () => Effect.fail(new Error("no"))],
        [
          "a handler that interrupts itself",
          {},
          () => Effect.andThen(Effect.withFiber((fiber) => Effect.sync(() => fiber.interruptUnsafe())), Effect.yieldNow)
        ]
      ] as const
    ) {
      test(
        `${name}: the same`,
        Effect.gen(function*() {
          const gaps = yield* gapsOf(9, options, handler)
          for (const [i, least] of pace.entries()) assert.isAtLeast(gaps[i]!, least - 2)
        })
      )
    }

    test(
      "a second is the longest of it",
      Effect.gen(function*() {
        const gaps = yield* gapsOf(backend.clock === "effect" ? 12 : 2, {}, (message) => message.release)
        assert.isAtMost(Math.max(...gaps), 1_000 + (backend.clock === "effect" ? 10 : 1_000))
      })
    )

    test(
      "a dead letter that is always nacked is offered at a bounded rate",
      Effect.gen(function*() {
        const times = yield* Queue.unbounded<number>()
        yield* listen(Text, { maxRetries: 0, handler: () => Effect.fail(new Error("no")) })
        yield* DeadLetters.subscribe({
          handler: (letter) =>
            Effect.flatMap(Clock.currentTimeMillis, (now) => {
              Queue.offerUnsafe(times, now)
              return letter.nack(letter.offerCount === 8 ? { delay: any(rejected()) } : undefined)
            })
        })
        yield* Publisher.publish(Text, "x")
        const seen = yield* soon(Queue.takeN(times, 9))
        const gaps = seen.slice(1).map((time, i) => time - seen[i]!)
        for (const [i, least] of [...pace.slice(0, 7), 1_000].entries()) assert.isAtLeast(gaps[i]!, least - 2)
      })
    )
  })

  describe("an effect with something in it that is none", () => {
    /** Effect ends the fiber at once; no handler of errors catches it. */
    const broken = () => Effect.flatMap(Effect.void, () => any(undefined) as Effect.Effect<void>)

    test(
      "in a handler: its attempts are counted as defects, its scope is closed, and others go on",
      Effect.gen(function*() {
        let closed = 0
        const { seen } = yield* listen(Text, {
          maxRetries: 1,
          retryDelay: 1,
          handler: ({ payload }: Message.Message<typeof Text>): Effect.Effect<unknown> =>
            payload !== "bad" ? Effect.void : Effect.scoped(Effect.void).pipe(
              Effect.andThen(Effect.addFinalizer(() => Effect.sync(() => void closed++)) as Effect.Effect<void>),
              Effect.andThen(broken())
            )
        })
        yield* Publisher.publishAll(Text, ["bad", "good"])
        yield* until(backend, Effect.map(letters, ({ length }) => length === 1))
        assert.deepStrictEqual((yield* letters).map(({ failure }) => failure.reason), ["exhausted"])
        assert.strictEqual(closed, 2)
        const all = yield* soon(Queue.takeN(seen, 3))
        assert.sameMembers(all.map(({ payload }) => payload), ["bad", "bad", "good"])
      })
    )

    test(
      "in a listener of broadcasts: that message failed, and the next ones are heard",
      Effect.gen(function*() {
        const heard = yield* Queue.unbounded<string>()
        const listener = yield* Broadcast.listen(Text, {
          handler: ({ payload }) =>
            Effect.andThen(Queue.offer(heard, payload), payload === "bad" ? broken() : Effect.void)
        })
        yield* Broadcast.publishAll(Text, ["bad", "good", "bad", "last"])
        assert.deepStrictEqual(yield* soon(Queue.takeN(heard, 4)), ["bad", "good", "bad", "last"])
        yield* until(backend, Effect.map(listener.stats, ({ failed, handled }) => failed === 2 && handled === 4))
      })
    )

    test(
      "in a handler of dead letters: it is offered again later, and others come in between",
      Effect.gen(function*() {
        yield* listen(Text, { maxRetries: 0, handler: () => Effect.fail("no") })
        const offered = yield* Queue.unbounded<string>()
        yield* DeadLetters.subscribe(Text, {
          retry: "1 hour",
          handler: (letter) =>
            Effect.suspend(() => {
              const payload = Result.getOrElse(letter.payload, () => "")
              Queue.offerUnsafe(offered, payload)
              return payload === "bad" ? broken() : letter.ack
            })
        })
        yield* Publisher.publishAll(Text, ["bad", "good", "last"])
        assert.sameMembers(yield* soon(Queue.takeN(offered, 3)), ["bad", "good", "last"])
        yield* until(backend, Effect.map(letters, ({ length }) => length === 1))
      })
    )

    let archived = 0
    test(
      "in the archive of dead letters: what it does not take stays, and is offered to it again",
      Effect.gen(function*() {
        yield* listen(Text, { maxRetries: 0, handler: () => Effect.fail("no") })
        yield* Publisher.publish(Text, "x")
        yield* until(backend, Effect.sync(() => archived === 2))
        yield* until(backend, Effect.map(letters, ({ length }) => length === 0))
      }),
      {
        deadLetters: {
          maxAge: 1,
          interval: 50,
          archive: () => Effect.suspend(() => ++archived === 1 ? broken() : Effect.void)
        }
      }
    )
  })

  describe("code that is none", () => {
    test(
      "a handler, a middleware or a hook that gives a Promise fails its attempt, and others go on",
      Effect.gen(function*() {
        const throwing = Middleware.process(() => (): Effect.Effect<void> => {
          throw new Error("in a middleware")
        })
        const promising = Middleware.process(() => (): Effect.Effect<void> => any(rejected()))
        const hooked = Middleware.hooks<void, void, Effect.Effect<void>>({ beforeProcess: () => any(rejected()) })
        const cases = [
          { handler: any(rejected) },
          ...[throwing, promising, hooked].map((one) => ({ middleware: [one], handler: () => Effect.void }))
        ]
        for (const [i, options] of cases.entries()) {
          const Own = Channel.make(`own.${i}`, { payload: Schema.String })
          yield* Effect.scoped(Effect.gen(function*() {
            const subscription = yield* Subscription.make(Own, { maxRetries: 0, ...options })
            for (const payload of ["a", "b"]) yield* Publisher.publish(Own, payload)
            yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 2))
          }))
        }
      })
    )

    test(
      "a middleware of publishes that gives a Promise refuses the publish",
      Effect.gen(function*() {
        const Own = Middleware.forChannel(
          Text,
          Middleware.hooks<Effect.Effect<void>>({ beforePublish: () => any(rejected()) })
        )
        assert.instanceOf(yield* Effect.flip(Publisher.publish(Own, "x")), Middleware.InvalidMiddleware)
        const Other = Middleware.forChannel(
          Text,
          Middleware.publish(() => (): Effect.Effect<Publisher.Receipt> => any(rejected()))
        )
        const exit = yield* Effect.exit(Publisher.publish(Other, "x"))
        assert.isTrue(Exit.isFailure(exit) && Cause.pretty(exit.cause).includes("must return an Effect"))
        const broker = yield* Broker.Broker
        assert.deepStrictEqual((yield* broker.info(Channel.selector(Text))).channels, [])
      })
    )

    test(
      "a listener of Pub/Sub and a subscription to dead letters go on after it",
      Effect.gen(function*() {
        const heard = yield* Deferred.make<string>()
        yield* Broadcast.listen(Text, {
          handler: (message) => message.payload === "bad" ? any(rejected()) : Deferred.succeed(heard, message.payload)
        })
        for (const payload of ["bad", "good"]) yield* Broadcast.publish(Text, payload)
        assert.strictEqual(yield* soon(Deferred.await(heard)), "good")
        const offered = yield* Deferred.make<number>()
        yield* listen(Text, { maxRetries: 0, handler: () => Effect.fail(new Error("no")) })
        yield* DeadLetters.subscribe({
          retry: 1,
          handler: (letter) => letter.offerCount === 1 ? any(rejected()) : Deferred.succeed(offered, letter.offerCount)
        })
        yield* Publisher.publish(Text, "x")
        assert.strictEqual(yield* soon(Deferred.await(offered)), 2)
      })
    )

    test(
      "a transaction refuses keys and values that are none",
      Effect.gen(function*() {
        const tags = yield* Deferred.make<ReadonlyArray<string>>()
        yield* listen(Text, {
          transactional: true,
          handler: () =>
            Effect.gen(function*() {
              const key = yield* Transaction.key("k")
              const writes = [
                Transaction.set(any(rejected()), "v"),
                Transaction.set(key, any(rejected())),
                Transaction.hset(key, any(null)),
                Transaction.hset(key, any("abc")),
                Transaction.hset(key, { a: any(rejected()) }),
                Transaction.incrby(key, Number.NaN)
              ]
              const errors = yield* Effect.forEach(writes, Effect.flip)
              yield* Deferred.succeed(tags, errors.map(({ _tag }) => _tag))
            })
        })
        yield* Publisher.publish(Text, "x")
        assert.deepStrictEqual(yield* soon(Deferred.await(tags)), new Array(6).fill("KeyRefused"))
      })
    )
  })
}
