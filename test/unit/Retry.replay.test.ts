/**
 * A policy keeps no state but the attempt that is stored with the message: over any series of restarts its delays are those of one process.
 */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Pull, Schedule, Schema } from "effect"
import { Retry } from "rotif"

const millis = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5_000 }))
const times = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 8 }))

/** A schedule as data, so that each process can make its own of it. */
const Simple = Schema.Struct({
  kind: Schema.Literals(["exponential", "fibonacci", "linear", "spaced", "fixed", "windowed", "strategy"]),
  base: millis,
  factor: Schema.Finite.check(Schema.isBetween({ minimum: 1, maximum: 3 })),
  /** Most delays, and times; above their ranges they do not limit. */
  most: millis,
  times,
  limit: Schema.Literals(["none", "times", "duration", "cap", "times and cap"])
})
const Plan = Schema.Struct({
  one: Simple,
  other: Simple,
  join: Schema.Literals(["only one", "min", "max", "concat"])
})

const base = ({ base, factor, kind, most }: typeof Simple.Type): Schedule.Schedule<unknown> => {
  switch (kind) {
    case "exponential":
      return Schedule.exponential(base, factor)
    case "fibonacci":
      return Schedule.fibonacci(base)
    case "linear":
      return Retry.linear(base, { step: most })
    case "spaced":
      return Schedule.spaced(base)
    case "fixed":
      return Schedule.fixed(base)
    case "windowed":
      return Schedule.windowed(base)
    case "strategy":
      return Retry.exponential(base, { factor, max: most })
  }
}

const limited = (plan: typeof Simple.Type): Schedule.Schedule<unknown> => {
  const schedule = base(plan)
  const cap = (schedule: Schedule.Schedule<unknown>) => Schedule.min([schedule, Schedule.spaced(plan.most)])
  switch (plan.limit) {
    case "none":
      return schedule
    case "times":
      return Schedule.upTo(schedule, { times: plan.times })
    case "duration":
      return Schedule.upTo(schedule, { duration: plan.most })
    case "cap":
      return cap(schedule)
    case "times and cap":
      return Schedule.upTo(cap(schedule), { times: plan.times })
  }
}

const scheduleOf = ({ join, one, other }: typeof Plan.Type): Schedule.Schedule<unknown> => {
  switch (join) {
    case "only one":
      return limited(one)
    case "min":
      return Schedule.min([limited(one), limited(other)])
    case "max":
      return Schedule.max([limited(one), limited(other)])
    case "concat":
      return Schedule.concat(limited(one), limited(other))
  }
}

const attempts = 12
const publishedAt = DateTime.makeUnsafe("2026-01-02T03:04:05Z")
const message = (id: string): Retry.MessageInfo => ({ id, channel: "jobs", publishedAt, headers: {} })

const millisOf = (verdict: Retry.Verdict | undefined): number | string | undefined =>
  verdict?._tag === "Retry" ? Duration.toMillis(verdict.delay) : verdict?._tag

/** Delays of one process that keeps the schedule: it steps it from failure to failure. */
const inOneProcess = Effect.fnUntraced(function*(schedule: Schedule.Schedule<unknown>) {
  const step = yield* Schedule.toStep(schedule)
  const out: Array<number | string | undefined> = []
  let now = DateTime.toEpochMillis(publishedAt)
  while (out.length < attempts) {
    const next = yield* Pull.catchDone(step(now, "failed"), () => Effect.undefined)
    if (next === undefined) return [...out, ...Array.from({ length: attempts - out.length }, () => "Exhausted")]
    out.push(Duration.toMillis(next[1]))
    now += Duration.toMillis(next[1])
  }
  return out
})

/** Delays of processes that restart after each failure: each makes the schedule anew and knows only the attempt. */
const overRestarts = (policy: () => Retry.Policy<string>, id: string) =>
  Effect.forEach(
    Array.from({ length: attempts }, (_, i) => i + 1),
    (attempt) => Effect.map(Retry.decide(policy(), { attempt, error: "failed", message: message(id) }), millisOf)
  )

describe("Retry.decide: over restarts", () => {
  it.effect.prop(
    "the delays are those of one process, for any schedule",
    [Plan],
    ([plan]) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* overRestarts(() => scheduleOf(plan), "m"), yield* inOneProcess(scheduleOf(plan)))
      }),
    { arbitrary: { runs: 300 } }
  )

  const Jittered = Schema.Struct({
    jitter: Schema.Literals(["full", "equal", "proportional", "decorrelated", "Schedule.jittered"]),
    base: millis,
    times,
    id: Schema.String
  })
  const jitteredOf = ({ base, jitter, times }: typeof Jittered.Type): Schedule.Schedule<unknown> =>
    jitter === "decorrelated"
      ? Retry.decorrelated(base, { max: 100 * base, times })
      : jitter === "Schedule.jittered"
      ? Schedule.jittered(Schedule.exponential(base))
      : Retry.exponential(base, { jitter, times })

  it.effect.prop(
    "chance depends on the message only, so it is the same in every process",
    [Jittered],
    ([plan]) =>
      Effect.gen(function*() {
        const kept = jitteredOf(plan)
        const first = yield* overRestarts(() => jitteredOf(plan), plan.id)
        assert.deepStrictEqual(yield* overRestarts(() => kept, plan.id), first)
        // In any order, as when another message was asked about between.
        const last = yield* Retry.decide(jitteredOf(plan), { attempt: 3, error: "", message: message(plan.id) })
        assert.strictEqual(millisOf(last), first[2])
      }),
    { arbitrary: { runs: 100 } }
  )

  it.effect("messages that failed together do not come back together", () =>
    Effect.gen(function*() {
      const policy = () => Retry.exponential(1000, { jitter: "full" })
      const delays = yield* Effect.forEach(Array.from({ length: 50 }, (_, i) => String(i)), (id) =>
        Effect.map(overRestarts(policy, id), ([first]) => first))
      assert.isAbove(
        new Set(delays.map((delay) =>
          Math.round(Number(delay) / 10)
        )).size,
        25
      )
    }))
})

describe("Retry: named strategies", () => {
  const cases: ReadonlyArray<readonly [string, () => Retry.Policy<string>, ReadonlyArray<number | string>]> = [
    ["fixed", () => Retry.fixed(50), [50, 50, 50, 50, 50]],
    ["linear", () => Retry.linear(100), [100, 200, 300, 400, 500]],
    ["linear with a step and a limit", () => Retry.linear(100, { step: 30, max: 150 }), [100, 130, 150, 150, 150]],
    ["exponential", () => Retry.exponential(100), [100, 200, 400, 800, 1600]],
    ["exponential with a factor", () => Retry.exponential(10, { factor: 3, times: 4 }), [10, 30, 90, 270, "Exhausted"]],
    ["fibonacci", () => Retry.fibonacci(10, { max: 25 }), [10, 10, 20, 25, 25]],
    ["times 0", () => Retry.fixed(10, { times: 0 }), ["Exhausted", "Exhausted", "Exhausted", "Exhausted", "Exhausted"]]
  ]
  it.effect.each(cases)("%s", ([, policy, expected]) =>
    Effect.gen(function*() {
      assert.deepStrictEqual((yield* overRestarts(policy, "m")).slice(0, expected.length), [...expected])
    }))

  const bounds = Schema.Struct({
    id: Schema.String,
    attempt: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 9 }))
  })
  it.effect.prop("jitter keeps to its bounds", [bounds], ([{ attempt, id }]) =>
    Effect.gen(function*() {
      const plain = 100 * 2 ** (attempt - 1)
      const delayOf = (policy: Retry.Policy<string>) =>
        Effect.map(Retry.decide(policy, { attempt, error: "", message: message(id) }), (verdict) =>
          Number(millisOf(verdict)))
      for (
        const [jitter, least, most] of [["full", 0, 1], ["equal", 0.5, 1], ["proportional", 0.8, 1.2]] as const
      ) {
        const delay = yield* delayOf(Retry.exponential(100, { jitter }))
        assert.isAtLeast(delay, plain * least)
        assert.isAtMost(delay, plain * most)
      }
      const delay = yield* delayOf(Retry.decorrelated(100, { max: 2_000 }))
      assert.isAtLeast(delay, 100)
      assert.isAtMost(delay, Math.min(2_000, 100 * 3 ** attempt))
    }))
})
