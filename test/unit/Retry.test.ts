/** Decisions of retry policies, from the stored attempt of a message alone. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Data, DateTime, Duration, Effect, Fiber, Pull, Random, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Retry } from "rotif"

class Declined extends Data.TaggedError("Declined")<{}> {}
class Down extends Data.TaggedError("Down")<{}> {}

const failure = <E>(attempt: number, error: E): Retry.Attempt<E> => ({
  attempt,
  error,
  message: { id: "m", channel: "c", publishedAt: DateTime.makeUnsafe(1_700_000_000_000), headers: { tenant: "t" } }
})

/** A verdict as one word or as its delay in milliseconds. */
const shown = (verdict: Retry.Verdict | undefined) =>
  verdict === undefined ? "unknown" : verdict._tag === "Retry" ? Duration.toMillis(verdict.delay) : verdict._tag

const decide = <E>(policy: Retry.Policy<E>, attempt: number, error: E) =>
  Effect.map(Retry.decide(policy, failure(attempt, error)), shown)

/** The verdicts after attempts 1 to n, each asked for as if by another process. */
const verdicts = <E>(policy: Retry.Policy<E>, count: number, error: E) =>
  Effect.forEach(Array.from({ length: count }, (_, i) => i + 1), (attempt) => decide(policy, attempt, error))

/** The delays of a schedule that one process drives from beginning to end. */
const driven = Effect.fnUntraced(
  function*(schedule: Schedule.Schedule<unknown, unknown>, count: number, input: unknown) {
    const step = yield* Schedule.toStep(schedule)
    const delays: Array<number | string> = []
    let now = 1_700_000_000_000
    while (delays.length < count) {
      const next = yield* Pull.catchDone(step(now, input), () => Effect.undefined)
      if (next === undefined) {
        delays.push("Exhausted")
      } else {
        const millis = Duration.toMillis(next[1])
        delays.push(millis)
        now += millis
      }
    }
    return delays
  }
)

type Shape =
  | { readonly kind: "exponential" | "spaced" | "fibonacci" | "fixed"; readonly base: number }
  | { readonly kind: "linear"; readonly base: number }

interface Spec {
  readonly shape: Shape
  readonly cap: number | undefined
  readonly times: number | undefined
  readonly total: number | undefined
  readonly after: number | undefined
}

const build = ({ after, cap, shape, times, total }: Spec): Schedule.Schedule<unknown, unknown> => {
  const base = Duration.millis(shape.base)
  const shapes = {
    exponential: () => Schedule.exponential(base),
    spaced: () => Schedule.spaced(base),
    fibonacci: () => Schedule.fibonacci(base),
    fixed: () => Schedule.fixed(base),
    linear: () => Schedule.modifyDelay(Schedule.forever, ({ attempt }) => Effect.succeed(Duration.times(base, attempt)))
  }
  let schedule: Schedule.Schedule<unknown, unknown> = shapes[shape.kind]()
  if (cap !== undefined) schedule = Schedule.min([schedule, Schedule.spaced(Duration.millis(cap))])
  if (times !== undefined) schedule = Schedule.upTo(schedule, { times })
  if (total !== undefined) schedule = Schedule.upTo(schedule, { duration: Duration.millis(total) })
  if (after !== undefined) {
    schedule = Schedule.concat(schedule, Schedule.spaced(Duration.millis(after)).pipe(Schedule.upTo({ times: 3 })))
  }
  return schedule
}

const millis = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const specs: Arbitrary.Arbitrary<Spec> = Arbitrary.schema(Schema.Struct({
  shape: Schema.Struct({
    kind: Schema.Literals(["exponential", "spaced", "fibonacci", "fixed", "linear"]),
    base: millis(1, 5_000)
  }),
  cap: Schema.UndefinedOr(millis(1, 20_000)),
  times: Schema.UndefinedOr(millis(0, 12)),
  total: Schema.UndefinedOr(millis(1, 200_000)),
  after: Schema.UndefinedOr(millis(1, 1_000))
}))

describe("Retry.decide: a Schedule", () => {
  it.effect.prop(
    "replayed from the stored attempt it gives the delays of one that is driven in one process",
    [specs],
    ([spec]) =>
      Effect.gen(function*() {
        const schedule = build(spec)
        assert.deepStrictEqual(yield* verdicts(schedule, 15, "error"), yield* driven(schedule, 15, "error"))
      }),
    { arbitrary: { runs: 300 } }
  )

  it.effect("gives its delays one after the other and then comes to its end", () =>
    Effect.gen(function*() {
      const policy = Schedule.exponential("200 millis").pipe(Schedule.upTo({ times: 3 }))
      assert.deepStrictEqual(yield* verdicts(policy, 5, "error"), [200, 400, 800, "Exhausted", "Exhausted"])
    }))

  it.effect("Retry.until ends it when the message is older than that, and shortens the last delay", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(DateTime.toEpochMillis(failure(1, "error").message.publishedAt))
      const policy = Schedule.exponential("1 second").pipe(Retry.until("1 minute"))
      assert.strictEqual(yield* decide(policy, 3, "error"), 4_000)
      yield* TestClock.adjust("57 seconds")
      assert.strictEqual(yield* decide(policy, 3, "error"), 3_000)
      assert.strictEqual(yield* decide(policy, 1, "error"), 1_000)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* decide(policy, 1, "error"), "Exhausted")
      // It may be part of a longer one.
      const either = Schedule.concat(policy, Schedule.spaced("1 hour").pipe(Schedule.upTo({ times: 2 })))
      assert.deepStrictEqual(yield* verdicts(either, 3, "error"), [3_600_000, 3_600_000, "Exhausted"])
    }))

  it.effect("Retry.until refuses a value that is no duration above 0", () =>
    Effect.sync(() => {
      for (const wrong of [0, -1, NaN, Infinity, "soon", undefined, {}]) {
        assert.throws(() => Retry.until(wrong as never), Retry.InvalidRetry)
      }
    }))

  it.effect("is given the error as its input", () =>
    Effect.gen(function*() {
      const policy = Schedule.spaced("1 second").pipe(
        Schedule.setInputType<Declined | Down>(),
        Schedule.while(({ input }) => input._tag === "Down")
      )
      assert.strictEqual(yield* decide(policy, 2, new Down()), 1_000)
      assert.strictEqual(yield* decide(policy, 1, new Declined()), "Exhausted")
    }))

  it.effect("waits for nothing while it is replayed", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(decide(Schedule.spaced("1 hour"), 50, "error"), { startImmediately: true })
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* Fiber.join(fiber), 3_600_000)
    }))

  it.effect("keeps its jitter within its bounds", () =>
    Effect.gen(function*() {
      const policy = Schedule.exponential("1 second").pipe(Schedule.jittered)
      for (let attempt = 1; attempt <= 6; attempt++) {
        const delay = Number(yield* decide(policy, attempt, "error"))
        assert.isAtLeast(delay, 800 * 2 ** (attempt - 1))
        assert.isAtMost(delay, 1_200 * 2 ** (attempt - 1))
      }
    }).pipe(Random.withSeed("jitter")))
})

describe("Retry.decide: other policies", () => {
  it.effect("a fixed delay is the same after every attempt", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* verdicts("5 seconds", 3, "error"), [5_000, 5_000, 5_000])
      assert.deepStrictEqual(yield* verdicts(250, 2, "error"), [250, 250])
      assert.deepStrictEqual(yield* verdicts({ minutes: 1 }, 1, "error"), [60_000])
    }))

  it.effect("a function sees the attempt, the message and the error", () =>
    Effect.gen(function*() {
      const policy = (attempt: number, message: Retry.MessageInfo, error: string) =>
        attempt * 1_000 + error.length + (message.headers["tenant"] === "t" ? 0.5 : 0)
      assert.deepStrictEqual(yield* verdicts(policy, 3, "four"), [1_004.5, 2_004.5, 3_004.5])
    }))

  it.effect("a function that throws is a defect, not an error", () =>
    Effect.gen(function*() {
      const policy = (): Duration.Input => {
        throw new Error("no")
      }
      const exit = yield* Effect.exit(decide(policy, 1, "error"))
      assert(exit._tag === "Failure")
      assert.deepStrictEqual(exit.cause.reasons.map(({ _tag }) => _tag), ["Die"])
    }))
})

describe("Retry.make", () => {
  const policy = Retry.make({
    Declined: Retry.term,
    Down: Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 2 })),
    Busy: Retry.release,
    Later: Retry.nack("7 seconds"),
    Error: Retry.nack(1)
  })
  const known = (attempt: number, error: unknown) =>
    Effect.map(Retry.decide(policy as Retry.Policy<unknown>, failure(attempt, error)), shown)

  it.effect("decides by the tag of the error", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* known(1, new Declined()), "Term")
      assert.deepStrictEqual(yield* Effect.forEach([1, 2, 3], (n) => known(n, new Down())), [1_000, 2_000, "Exhausted"])
      assert.strictEqual(yield* known(9, { _tag: "Busy" }), "Release")
      assert.strictEqual(yield* known(9, { _tag: "Later" }), 7_000)
    }))

  it.effect("counts what has no tag as \"Error\"", () =>
    Effect.gen(function*() {
      for (const error of [new TypeError("x"), "text", null, undefined, 7, { _tag: 7 }]) {
        assert.strictEqual(yield* known(1, error), 1)
      }
    }))

  it.effect("does not know other tags, whatever they are called", () =>
    Effect.gen(function*() {
      for (const _tag of ["Other", "__proto__", "constructor", "toString"]) {
        assert.strictEqual(yield* known(1, { _tag }), "unknown")
      }
    }))
})

describe("Retry.RetryAfter", () => {
  const error = new Retry.RetryAfter({ delay: "90 seconds", message: "rate limited" })

  it.effect("is obeyed whatever delay the policy has", () =>
    Effect.gen(function*() {
      const policies: ReadonlyArray<Retry.Policy<Retry.RetryAfter>> = [
        Schedule.recurs(2),
        "1 second",
        () => 1,
        Retry.make({})
      ]
      for (const policy of policies) assert.deepStrictEqual(yield* verdicts(policy, 2, error), [90_000, 90_000])
    }))

  it.effect("ends with the schedule", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* verdicts(Schedule.recurs(1), 2, error), [90_000, "Exhausted"])
    }))
})

describe("Retry.decide: whether a schedule decided", () => {
  it.effect("holds for schedules, which come to an end by themselves", () =>
    Effect.gen(function*() {
      const policies: ReadonlyArray<Retry.Policy<unknown>> = [
        Schedule.recurs(1),
        Retry.make({ Error: Schedule.recurs(1) }),
        Retry.make({ Error: Retry.nack(5) }),
        "1 second",
        5,
        () => 5
      ]
      const decided = yield* Effect.forEach(policies, (policy) => Retry.decide(policy, failure(1, "error")))
      assert.deepStrictEqual(
        decided.map((verdict) => verdict?._tag === "Retry" && verdict.isScheduled === true),
        [true, true, false, false, false, false]
      )
    }))
})
