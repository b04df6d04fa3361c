/** Retries: the policies of a subscription, as its messages see them. */
import { assert, describe } from "@effect/vitest"
import {
  Cause,
  Clock,
  Data,
  Deferred,
  Duration,
  Effect,
  Exit,
  type Layer,
  Queue,
  Schedule,
  Schema,
  Scope,
  Stream
} from "effect"
import type { Message } from "rotif"
import { Broker, Channel, DeadLetters, Publisher, Retry, Subscription } from "rotif"
import { withProgram } from "./middleware.ts"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}
class Busy extends Data.TaggedError("Busy")<{ readonly message: string }> {}

const declined = new Declined({ message: "card declined" })
const busy = new Busy({ message: "try later" })

type TextOptions<E> = Partial<Subscription.Options<typeof Text, E, never>>

/** A clock with a wrong time of day; time passes at its normal pace. */
const shifted = (clock: Clock.Clock, millis: number): Clock.Clock => {
  const wrong = Object.create(clock) as { -readonly [Name in keyof Clock.Clock]: Clock.Clock[Name] }
  wrong.currentTimeMillisUnsafe = () => clock.currentTimeMillisUnsafe() + millis
  wrong.currentTimeMillis = Effect.sync(wrong.currentTimeMillisUnsafe)
  return wrong
}

export const retriesSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  /** On Effect's clock long delays take no time. */
  const unit = backend.clock === "effect" ? 1_000 : 20

  /** Publishes one message, waits for this many deliveries, and gives the time of each and the messages left at the end. */
  const play = Effect.fnUntraced(function*<E>(handOuts: number, options: TextOptions<E>) {
    const times: Array<number> = []
    const { handler = () => Effect.void, ...rest } = options
    const { seen, subscription } = yield* listen(Text, {
      ...rest,
      handler: (message: Message.Message<typeof Text>) =>
        Effect.andThen(
          Effect.map(Clock.currentTimeMillis, (now) => times.push(now)),
          handler(message)
        )
    })
    const receipt = yield* Publisher.publish(Text, "x", { headers: { trace: "t-1" } })
    const messages = yield* soon(Queue.takeN(seen, handOuts))
    yield* soon(subscription.drain)
    assert.strictEqual(yield* Queue.size(seen), 0, "handed out too often")
    assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
    const gaps = times.slice(1).map((time, i) => time - times[i]!)
    return { messages, gaps, receipt, letters: yield* letters, stats: yield* subscription.stats }
  })

  const assertGaps = (gaps: ReadonlyArray<number>, expected: ReadonlyArray<number>) => {
    assert.strictEqual(gaps.length, expected.length)
    for (const [i, delay] of expected.entries()) {
      assert.isAtLeast(gaps[i]!, delay - 1)
      // On Effect's clock it is exact to the step in which the test lets it pass.
      if (backend.clock === "effect") assert.isAtMost(gaps[i]!, delay + 10)
    }
  }

  const attempts = (messages: ReadonlyArray<Message.Envelope>) => messages.map(({ attempt }) => attempt)

  describe("Retry.until", () => {
    const span = 10 * unit
    /** Clocks of the process that are wrong by an hour: the clock of the backend decides. */
    const clocks: ReadonlyArray<readonly [name: string, shiftMillis: number]> = [
      ["", 0],
      ...(backend.clock === "effect" ? [] : [
        [", in a process whose clock is an hour ahead", 3_600_000],
        [", in a process whose clock is an hour behind", -3_600_000]
      ] as const)
    ]
    for (const [name, shiftMillis] of clocks) {
      test(
        `tries until the time since the publish is over, and counts the time of attempts${name}`,
        Effect.gen(function*() {
          const times: Array<number> = []
          const monotonic = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos) / 1e6)
          yield* listen(Text, {
            maxRetries: 100,
            retry: Schedule.spaced(3 * unit).pipe(Retry.until(span)),
            handler: () =>
              Effect.map(monotonic, (now) => times.push(now)).pipe(
                Effect.andThen(Effect.sleep(unit)),
                Effect.andThen(Effect.fail(busy))
              )
          })
          const publishedAt = yield* monotonic
          yield* Publisher.publish(Text, "x")
          yield* until(backend, Effect.map(letters, ({ length }) => length === 1))
          const [letter] = yield* letters
          assert.strictEqual(letter?.failure.reason, "exhausted")
          const since = times.map((time) => time - publishedAt)
          // 0, 4, 8, and 10, because the last delay was shortened.
          assert.isAtLeast(since.length, 2)
          assert.isAtMost(since.length, 4)
          assert.isAtLeast(since.at(-1)! + unit, span - 2)
          if (backend.clock === "effect") assertGaps(since.slice(1), [4, 8, 10].map((at) => at * unit))
          assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        }).pipe(
          Effect.updateService(Clock.Clock, (clock) => shiftMillis === 0 ? clock : shifted(clock, shiftMillis))
        )
      )
    }
  })

  describe("Retry: schedules", () => {
    test(
      "fails five times with exponential backoff, then is dead",
      Effect.gen(function*() {
        const { gaps, letters, messages, receipt, stats } = yield* play(5, {
          group: "billing",
          retry: Retry.exponential(unit, { times: 4 }),
          handler: () => declined
        })
        assertGaps(gaps, [unit, 2 * unit, 4 * unit, 8 * unit])
        assert.deepStrictEqual(attempts(messages), [1, 2, 3, 4, 5])
        assert.deepStrictEqual(messages.map(({ deliveryCount }) => deliveryCount), [1, 2, 3, 4, 5])
        for (const message of messages) {
          assert.strictEqual(message.id, receipt.id)
          assert.deepStrictEqual({ ...message.headers }, { trace: "t-1" })
          assert.deepStrictEqual(message.publishedAt, messages[0]!.publishedAt)
          assert.strictEqual(message.crashes, 0)
        }
        assert.deepStrictEqual(letters.map(({ attempt, failure, group }) => [group, attempt, failure.reason]), [
          ["billing", 5, "exhausted"]
        ])
        assert.deepInclude(stats, { failed: 5, retried: 4, dead: 1, processed: 0 })
      })
    )

    test(
      "the delays go on where they were when another process has the message next",
      Effect.gen(function*() {
        const times: Array<number> = []
        for (const attempt of [1, 2, 3, 4]) {
          const scope = yield* Scope.make()
          const { seen, subscription } = yield* Scope.provide(
            listen(Text, {
              // A new policy each time, as in a new process.
              retry: Retry.fibonacci(unit),
              handler: () =>
                Effect.flatMap(Clock.currentTimeMillis, (now) => {
                  times.push(now)
                  return attempt === 4 ? Effect.void : Effect.fail(declined)
                })
            }),
            scope
          )
          if (attempt === 1) yield* Publisher.publish(Text, "x")
          assert.strictEqual((yield* soon(Queue.take(seen))).attempt, attempt)
          yield* soon(subscription.drain)
          yield* Scope.close(scope, Exit.void)
        }
        assertGaps(times.slice(1).map((time, i) => time - times[i]!), [unit, unit, 2 * unit])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "goes on for as long as the schedule does, beyond the default of maxRetries",
      Effect.gen(function*() {
        const { letters, messages } = yield* play(9, {
          retry: Schedule.spaced(1).pipe(Schedule.upTo({ times: 8 })),
          handler: () => declined
        })
        assert.strictEqual(messages.at(-1)?.attempt, 9)
        assert.strictEqual(letters[0]?.failure.reason, "exhausted")
      })
    )

    test(
      "maxRetries ends a schedule that would go on",
      Effect.gen(function*() {
        const { letters } = yield* play(3, { retry: Schedule.spaced(1), maxRetries: 2, handler: () => declined })
        assert.deepStrictEqual(letters.map(({ attempt, failure }) => [attempt, failure.reason]), [[3, "exhausted"]])
      })
    )

    test(
      "no retry at all with maxRetries 0",
      Effect.gen(function*() {
        const { letters } = yield* play(1, { maxRetries: 0, handler: () => declined })
        assert.strictEqual(letters[0]?.attempt, 1)
      })
    )
  })

  describe("Retry: defaults of the program", () => {
    test(
      "maxRetries holds for every subscription",
      Effect.gen(function*() {
        const { letters } = yield* play(2, { retryDelay: 1, handler: () => declined })
        assert.strictEqual(letters[0]?.attempt, 2)
      }),
      { maxRetries: 1 }
    )

    test(
      "a subscription has its own maxRetries",
      Effect.gen(function*() {
        const { letters } = yield* play(4, { retryDelay: 1, maxRetries: 3, handler: () => declined })
        assert.strictEqual(letters[0]?.attempt, 4)
      }),
      { maxRetries: 1 }
    )

    test(
      "the default policy decides where the subscription has none",
      Effect.gen(function*() {
        const { gaps } = yield* play(3, { handler: () => declined })
        assertGaps(gaps, [unit, 2 * unit])
      }),
      { retry: Retry.linear(unit, { times: 2 }) }
    )
  })

  describe("Retry.layer", () => {
    const testProgram = withProgram(backend)
    const policies = Retry.layer({
      default: Retry.fixed(2 * unit, { times: 2 }),
      policies: {
        gentle: Retry.linear(3 * unit, { times: 2 }),
        once: Schedule.spaced(unit).pipe(Schedule.upTo({ times: 1 }))
      }
    })

    testProgram(
      "the default decides where a subscription says nothing",
      policies,
      Effect.gen(function*() {
        const { gaps, letters } = yield* play(3, { handler: () => declined })
        assertGaps(gaps, [2 * unit, 2 * unit])
        assert.strictEqual(letters[0]?.failure.reason, "exhausted")
      })
    )

    testProgram(
      "the default decides about a defect, under any policy of the subscription",
      policies,
      Effect.gen(function*() {
        const { gaps } = yield* play(3, { retry: Retry.make({}), handler: () => Effect.die(new Error("bug")) })
        assertGaps(gaps, [2 * unit, 2 * unit])
      })
    )

    testProgram(
      "a subscription names its policy",
      policies,
      Effect.gen(function*() {
        const { gaps, letters } = yield* play(3, { retry: "gentle", handler: () => declined })
        assertGaps(gaps, [3 * unit, 6 * unit])
        assert.strictEqual(letters[0]?.failure.reason, "exhausted")
      })
    )

    testProgram(
      "a text that reads as a duration is a duration",
      policies,
      Effect.gen(function*() {
        const { gaps } = yield* play(2, { retry: `${unit} millis`, maxRetries: 1, handler: () => declined })
        assertGaps(gaps, [unit])
      })
    )

    testProgram(
      "a stream names its policy",
      policies,
      Effect.gen(function*() {
        const attempts: Array<number> = []
        const stream = yield* Subscription.stream(Text, { retry: "once" }).pipe(
          Stream.tap((message) => Effect.sync(() => attempts.push(message.attempt))),
          Stream.runForEach(({ fail }) => fail(declined)),
          Effect.forkScoped({ startImmediately: true })
        )
        yield* Publisher.publish(Text, "x")
        yield* until(backend, Effect.map(letters, ({ length }) => length === 1))
        assert.deepStrictEqual(attempts, [1, 2])
        assert.isUndefined(stream.pollUnsafe())
      })
    )

    testProgram(
      "a subscription to dead letters names its policy, and keeps the letter when it ends",
      policies,
      Effect.gen(function*() {
        const offers = yield* Queue.unbounded<number>()
        yield* DeadLetters.subscribe({
          retry: "once",
          handler: (letter) => Effect.andThen(Queue.offer(offers, letter.offerCount), Effect.fail(declined))
        })
        yield* listen(Text, { retry: Retry.make({ Declined: Retry.term }), handler: () => declined })
        yield* Publisher.publish(Text, "x")
        assert.deepStrictEqual(yield* soon(Queue.takeN(offers, 2)), [1, 2])
        assert.strictEqual((yield* letters).length, 1)
      })
    )

    testProgram(
      "an unknown name is refused at the start, with the nearest one that is known",
      policies,
      Effect.gen(function*() {
        const refused = yield* Effect.flip(listen(Text, { retry: "gentel" }))
        assert.deepInclude(refused, { _tag: "InvalidSubscription", option: "retry" })
        assert.include(refused.message, "did you mean \"gentle\"?")
        assert.include(refused.message, "gentel")
        const ofLetters = yield* Effect.flip(DeadLetters.subscribe({ retry: "ones", handler: () => Effect.void }))
        assert.deepInclude(ofLetters, { _tag: "InvalidDeadLetterOption", option: "retry" })
        assert.include(ofLetters.message, "did you mean \"once\"?")
        for (const name of ["toString", "__proto__", "5 secnds", ""]) {
          const unlike = yield* Effect.flip(listen(Text, { retry: name }))
          assert.deepInclude(unlike, { _tag: "InvalidSubscription", option: "retry" })
          assert.notInclude(unlike.message, "did you mean")
        }
      })
    )

    testProgram(
      "one around a subscription wins over that of the program, name by name",
      policies,
      Effect.gen(function*() {
        const inner = Retry.layer({
          default: Retry.fixed(unit, { times: 1 }),
          policies: { once: Retry.fixed(4 * unit, { times: 1 }) }
        })
        const gapsOf = (retry?: string) =>
          Effect.map(
            play(retry === "gentle" ? 3 : 2, { retry, handler: () => declined }),
            ({ gaps }) => gaps
          )
            .pipe(Effect.provide(inner))
        assertGaps(yield* gapsOf(), [unit])
        assertGaps(yield* gapsOf("once"), [4 * unit])
        assertGaps(yield* gapsOf("gentle"), [3 * unit, 6 * unit])
      })
    )

    test(
      "without one, a name is refused, and the default is that of the options",
      Effect.gen(function*() {
        const refused = yield* Effect.flip(listen(Text, { retry: "gentle" }))
        assert.deepInclude(refused, { _tag: "InvalidSubscription", option: "retry" })
        const { gaps } = yield* play(2, { handler: () => declined })
        assertGaps(gaps, [unit])
      }),
      { retry: Retry.fixed(unit, { times: 1 }) }
    )

    const unusable: ReadonlyArray<readonly [name: string, layer: Layer.Layer<never>, message: string]> = [
      ["a default that is no policy", Retry.layer({ default: Number.NaN }), "default must be a duration"],
      ["a policy that is none", Retry.layer({ policies: { gentle: -1 } }), "the policy \"gentle\" must be a duration"],
      ["a name that reads as a duration", Retry.layer({ policies: { "5 seconds": 1 } }), "the name of a policy"],
      ["an empty name", Retry.layer({ policies: { "": 1 } }), "the name of a policy"],
      ["an option that is not known", Retry.layer({ polices: 1 } as Retry.LayerOptions), "did you mean \"policies\"?"]
    ]
    for (const [name, layer, message] of unusable) {
      test(
        `${name} ends the layer with a word about it`,
        Effect.gen(function*() {
          const exit = yield* Effect.exit(Effect.provide(Effect.void, layer))
          assert(Exit.isFailure(exit))
          assert.include(String(Cause.squash(exit.cause)), message)
        })
      )
    }
  })

  describe("Retry: the default policy", () => {
    const never = Retry.make({ Declined: Retry.term })

    test(
      "a defect: retried, under any decision about errors, and marked",
      Effect.gen(function*() {
        const { letters, messages } = yield* play<Declined>(2, {
          retry: never,
          retryDelay: 1,
          maxRetries: 1,
          handler: () => Effect.die(new TypeError("undefined is not a function"))
        })
        assert.deepStrictEqual(attempts(messages), [1, 2])
        assert.deepInclude(letters[0]?.failure, {
          reason: "exhausted",
          errorTag: "TypeError",
          message: "undefined is not a function",
          isDefect: true
        })
      })
    )

    test(
      "a failure is not marked as a defect",
      Effect.gen(function*() {
        const { letters } = yield* play(1, { retry: never, handler: () => declined })
        assert.strictEqual(letters[0]?.failure.reason, "term")
        assert.isUndefined(letters[0]?.failure.isDefect)
      })
    )

    test(
      "a defect under an endless schedule is given up after the default number of retries",
      Effect.gen(function*() {
        const { letters } = yield* play(6, {
          retry: Schedule.spaced(1),
          retryDelay: 1,
          handler: () => Effect.die("bug")
        })
        assert.deepStrictEqual([letters[0]?.attempt, letters[0]?.failure.isDefect], [6, true])
      })
    )

    test(
      "an attempt that took too long; the handler's own TimeoutError is an error like any other",
      Effect.gen(function*() {
        const own = new Cause.TimeoutError("the gateway did not answer")
        const { letters, messages } = yield* play<Cause.TimeoutError>(2, {
          timeout: 50,
          retryDelay: 1,
          retry: Retry.make({ TimeoutError: Retry.term }),
          handler: ({ attempt }) => attempt === 1 ? Effect.never : Effect.fail(own)
        })
        assert.deepStrictEqual(attempts(messages), [1, 2])
        assert.deepInclude(letters[0]?.failure, { reason: "term", message: "the gateway did not answer" })
      })
    )

    test(
      "a policy that dies does not take the message with it",
      Effect.gen(function*() {
        const { letters, messages } = yield* play(2, {
          retry: () => {
            throw new Error("no policy today")
          },
          retryDelay: 1,
          maxRetries: 1,
          handler: () => declined
        })
        assert.deepStrictEqual(attempts(messages), [1, 2])
        assert.deepInclude(letters[0]?.failure, { reason: "exhausted", errorTag: "Declined" })
      })
    )
  })

  describe("Retry: failures that cost no attempt", () => {
    test(
      "interruption from outside",
      Effect.gen(function*() {
        const { messages, stats } = yield* play(3, {
          retryDelay: 1,
          maxRetries: 0,
          handler: ({ deliveryCount }) => deliveryCount < 3 ? Effect.interrupt : Effect.void
        })
        assert.deepStrictEqual(attempts(messages), [1, 1, 1])
        assert.deepInclude(stats, { processed: 1, failed: 0, dead: 0 })
      })
    )

    test(
      "a lease that ran out with its consumer",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const selector = Channel.selector(Text)
        const leaseMillis = 200
        yield* Publisher.publish(Text, "x")
        const member = yield* broker.join({
          shard: broker.shardsOf(selector)[0]!,
          group: "texts",
          consumer: "lost",
          selector,
          start: { _tag: "Earliest" },
          leaseMillis
        })
        assert.lengthOf(yield* soon(member.read(1, 1_000)), 1)
        const { seen, subscription } = yield* listen(Text, { group: "texts", lease: leaseMillis, maxRetries: 0 })
        const { attempt, crashes, deliveryCount } = yield* soon(Queue.take(seen))
        assert.deepStrictEqual({ attempt, crashes, deliveryCount }, { attempt: 1, crashes: 0, deliveryCount: 2 })
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* letters, [])
      })
    )

    test(
      "Retry.release: at once, as often as it takes",
      Effect.gen(function*() {
        const { messages, stats } = yield* play(8, {
          maxRetries: 0,
          retry: Retry.make({ Busy: Retry.release }),
          handler: ({ deliveryCount }) => deliveryCount < 8 ? Effect.fail(busy) : Effect.void
        })
        assert.deepStrictEqual(attempts(messages), Array.from({ length: 8 }, () => 1))
        assert.deepInclude(stats, { processed: 1, retried: 0 })
      })
    )
  })

  describe("Retry: decisions", () => {
    test(
      "a record decides by the tag of the error",
      Effect.gen(function*() {
        const { gaps, letters, messages } = yield* play(3, {
          retry: Retry.make({ Busy: Retry.nack(3 * unit), Declined: Retry.term }),
          handler: ({ attempt }): Effect.Effect<void, Busy | Declined> => Effect.fail(attempt < 3 ? busy : declined)
        })
        assertGaps(gaps, [3 * unit, 3 * unit])
        assert.deepStrictEqual(attempts(messages), [1, 2, 3])
        assert.deepInclude(letters[0]?.failure, { reason: "term", errorTag: "Declined" })
      })
    )

    test(
      "a schedule in a record follows the attempt, after any earlier failures",
      Effect.gen(function*() {
        const { gaps } = yield* play(4, {
          retry: Retry.make({ Busy: Retry.exponential(unit, { times: 3 }), Declined: Retry.nack(0) }),
          handler: ({ attempt }): Effect.Effect<void, Busy | Declined> =>
            attempt === 4 ? Effect.void : Effect.fail(attempt === 2 ? declined : busy)
        })
        assertGaps(gaps, [unit, 0, 4 * unit])
      })
    )

    test(
      "Retry.nack in a record ends with the default of maxRetries",
      Effect.gen(function*() {
        const { letters } = yield* play(6, { retry: Retry.make({ Busy: Retry.nack(1) }), handler: () => busy })
        assert.deepStrictEqual([letters[0]?.attempt, letters[0]?.failure.reason], [6, "exhausted"])
      })
    )

    test(
      "a function sees the attempt, the message with its payload, and the error",
      Effect.gen(function*() {
        const asked: Array<readonly [number, string, string]> = []
        const { gaps, letters } = yield* play(3, {
          retry: (attempt, message, error) => {
            asked.push([attempt, message.payload, error._tag])
            return attempt < 3 ? attempt * unit : Retry.term
          },
          handler: () => declined
        })
        assert.deepStrictEqual(asked, [[1, "x", "Declined"], [2, "x", "Declined"], [3, "x", "Declined"]])
        assertGaps(gaps, [unit, 2 * unit])
        assert.strictEqual(letters[0]?.failure.reason, "term")
      })
    )

    test(
      "RetryAfter: exactly this delay, as the next attempt",
      Effect.gen(function*() {
        const { gaps, messages } = yield* play(3, {
          retry: Retry.make({ Declined: Retry.term }),
          handler: ({ attempt }): Effect.Effect<void, Declined | Retry.RetryAfter> =>
            attempt === 3
              ? Effect.void
              : Effect.fail(new Retry.RetryAfter({ delay: attempt * 2 * unit, message: "429" }))
        })
        assertGaps(gaps, [2 * unit, 4 * unit])
        assert.deepStrictEqual(attempts(messages), [1, 2, 3])
      })
    )

    test(
      "RetryAfter ends when the schedule does",
      Effect.gen(function*() {
        const { gaps, letters } = yield* play(2, {
          retry: Schedule.spaced("1 hour").pipe(Schedule.upTo({ times: 1 })),
          handler: () => new Retry.RetryAfter({ delay: Duration.millis(1), message: "429" })
        })
        assertGaps(gaps, [1])
        assert.deepInclude(letters[0]?.failure, { reason: "exhausted", errorTag: "RetryAfter" })
      })
    )

    test(
      "a retry holds up no other message, and no other group sees it",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const failing = yield* listen(Text, {
          group: "failing",
          retry: Retry.fixed(5 * unit),
          handler: ({ attempt, payload }) =>
            payload === "a" && attempt === 1 ? Effect.fail(declined) : Deferred.succeed(gate, undefined)
        })
        const fine = yield* listen(Text, { group: "fine" })
        yield* Publisher.publishAll(Text, ["a", "b"])
        const order = yield* soon(Queue.takeN(failing.seen, 3))
        yield* soon(Deferred.await(gate))
        yield* soon(Queue.takeN(fine.seen, 2))
        yield* soon(Effect.all([failing.subscription.drain, fine.subscription.drain]))
        assert.deepStrictEqual(order.map(({ attempt, payload }) => [payload, attempt]), [["a", 1], ["b", 1], ["a", 2]])
        assert.strictEqual(yield* Queue.size(fine.seen), 0)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })
}
