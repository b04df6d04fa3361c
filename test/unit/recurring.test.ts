/** Recurring messages over days and changes of the clocks, on TestClock; and the arithmetic of ticks. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Cron, DateTime, Effect, Queue, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Channel, Rotif, Scheduler } from "rotif"
import * as Recurrence from "../../src/internal/recurrence.ts"
import { listen } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

const at = (text: string) => DateTime.toEpochMillis(DateTime.makeUnsafe(text))

/** The times of the ticks of a recurring message while the clock goes from one time to another. */
const ticksOf = (recurs: Scheduler.Recurs, timeZone: string, from: string, to: string) =>
  Effect.gen(function*() {
    yield* TestClock.setTime(at(from))
    const { seen } = yield* listen(Text, { prefetch: 100, lease: "20 days", blockInterval: "20 days" })
    yield* Scheduler.recurring("k", recurs, Text, "tick", { timeZone })
    yield* TestClock.adjust(at(to) - at(from))
    const messages = yield* Queue.takeN(seen, yield* Queue.size(seen))
    // Each came at its time: nothing held up the clock.
    for (const { id, publishedAt } of messages) assert.strictEqual(DateTime.formatIso(publishedAt), id.slice(2))
    return messages.map(({ id }) => id.slice(2, -8))
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Rotif.layerMemoryWith({ checkInterval: "20 days", trimInterval: "20 days", deadLetters: { interval: "1 day" } })
    )
  )

describe("Scheduler.recurring with cron", () => {
  it.effect("ticks over days, on the weekdays it names", () =>
    Effect.gen(function*() {
      const ticks = yield* ticksOf("0 9 * * 1-5", "UTC", "2026-01-01T12:00:00Z", "2026-01-09T12:00:00Z")
      assert.deepStrictEqual(ticks, [
        "2026-01-02T09:00",
        "2026-01-05T09:00",
        "2026-01-06T09:00",
        "2026-01-07T09:00",
        "2026-01-08T09:00",
        "2026-01-09T09:00"
      ])
    }))

  it.effect("keeps to the local time of its zone when clocks change", () =>
    Effect.gen(function*() {
      const ticks = yield* ticksOf("30 9 * * *", "America/New_York", "2026-03-06T18:00:00Z", "2026-03-09T18:00:00Z")
      assert.deepStrictEqual(ticks, ["2026-03-07T14:30", "2026-03-08T13:30", "2026-03-09T13:30"])
    }))

  it.effect("ticks once on a day whose hour is left out", () =>
    Effect.gen(function*() {
      const ticks = yield* ticksOf("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z")
      assert.deepStrictEqual(ticks, ["2026-03-28T01:30", "2026-03-29T01:30", "2026-03-30T00:30"])
    }))

  it.effect("ticks once on a day whose hour comes twice", () =>
    Effect.gen(function*() {
      const ticks = yield* ticksOf("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z")
      assert.deepStrictEqual(ticks, ["2026-10-25T00:30", "2026-10-26T01:30"])
    }))

  it.effect("leaves out an hour that comes the second time, also where it ticks all the time, unless the Cron says both", () =>
    Effect.gen(function*() {
      const span = ["Europe/Berlin", "2026-10-24T23:45:00Z", "2026-10-25T02:15:00Z"] as const
      assert.deepStrictEqual(
        yield* ticksOf("*/30 * * * *", ...span),
        ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T02:00"]
      )
      assert.deepStrictEqual(
        yield* ticksOf(Cron.parseUnsafe("*/30 * * * *", "Europe/Berlin", { onDstOverlap: "both" }), ...span),
        ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"]
      )
    }))

  it.effect("ticks on where an hour is left out and it ticks all the time", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        yield* ticksOf("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", "2026-03-29T02:15:00Z"),
        ["2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30", "2026-03-29T02:00"]
      )
    }))

  it.effect("ticks twice then, where the Cron says so", () =>
    Effect.gen(function*() {
      const cron = Cron.parseUnsafe("30 2 * * *", "Europe/Berlin", { onDstOverlap: "both" })
      const ticks = yield* ticksOf(cron, "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z")
      assert.deepStrictEqual(ticks, ["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-26T01:30"])
    }))

  it.effect("keeps day and weekday together, where the Cron says so", () =>
    Effect.gen(function*() {
      const cron = Cron.make({ minutes: [0], hours: [0], days: [13], months: [], weekdays: [5], and: true })
      const ticks = yield* ticksOf(cron, "UTC", "2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z")
      assert.deepStrictEqual(ticks, ["2026-02-13T00:00", "2026-03-13T00:00", "2026-11-13T00:00"])
    }))
})

describe("the plan of a recurrence", () => {
  const start = at("2026-03-28T00:00:00Z")
  const recurrences = [
    { everyMillis: 7_001, catchUp: { all: 1_000_000 } },
    { cron: "*/20 * * * * *", and: false, zone: "Europe/Berlin", overlap: "earlier", catchUp: { all: 1_000_000 } },
    { cron: "0 */7 * * * *", and: false, zone: "America/New_York", overlap: "both", catchUp: { all: 1_000_000 } }
  ] as const satisfies ReadonlyArray<Recurrence.Recurrence>
  const pauses = Arbitrary.schema(Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 900_000 }))))

  it.prop("publishes each tick once and none early, whenever somebody looks", [pauses], ([pauses]) => {
    for (const recurrence of recurrences) {
      const ticks = Result.getOrThrow(Recurrence.ticksOf(recurrence))
      let from = Result.getOrThrow(ticks.after(start))
      const expected: Array<number> = []
      const published: Array<number> = []
      let now = start
      for (const pause of pauses) {
        now += pause
        if (from > now) continue
        const plan = Result.getOrThrow(Recurrence.plan(ticks, from, now))
        published.push(...plan.due)
        assert.isAbove(plan.next, now)
        from = plan.next
      }
      for (let tick = Result.getOrThrow(ticks.after(start)); tick <= now; tick = Result.getOrThrow(ticks.after(tick))) {
        expected.push(tick)
      }
      assert.deepStrictEqual(published, expected)
    }
  }, { arbitrary: { runs: 25 } })

  it("names the error in a stored definition", () => {
    for (
      const text of [
        "",
        "null",
        "{}",
        "[]",
        "{\"cron\":\"61 * * * *\",\"zone\":\"UTC\"}",
        "{\"cron\":\"* * * * *\",\"zone\":\"Mars\"}",
        "{\"everyMillis\":0}"
      ]
    ) {
      assert.isTrue(Result.isFailure(Recurrence.decode(text)), text)
    }
  })
})
