/**
 * 4. Testing: the same subscription on `Rotif.layerMemory`, where `TestClock` controls the time.
 *
 * Nothing really waits: an hour passes when the test says so. With `@effect/vitest` the body of such a test goes into `it.effect`,
 * which provides `TestClock` (docs/testing.md); here it is provided by hand, and no test framework is needed.
 *
 *     node --conditions=rotif-source examples/04-testing.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Data, Effect, Layer, Ref, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as assert from "node:assert/strict"
import { Channel, DeadLetters, Publisher, Rotif, Subscription } from "rotif"

// The program under test: a channel, a service, a subscription. --------------------------------------------------------

const Reminder = Channel.make("reminders", { payload: Schema.Struct({ to: Schema.String }) })

class MailServerDown extends Data.TaggedError("MailServerDown")<{}> {}

class Mailer extends Context.Service<Mailer, { readonly send: (to: string) => Effect.Effect<void, MailServerDown> }>()(
  "example/Mailer"
) {}

const Reminders = Subscription.layer(Reminder, {
  group: "mail",
  handler: ({ payload }) => Mailer.use((mailer) => mailer.send(payload.to)),
  retry: Schedule.exponential("1 hour").pipe(Schedule.upTo({ times: 2 }))
})

// The test. ------------------------------------------------------------------------------------------------------------

/** A mail server that is down for the first `failures` mails, and records when it was called. */
const fakeMailer = (failures: number, asked: Ref.Ref<ReadonlyArray<string>>) =>
  Layer.succeed(Mailer, {
    send: Effect.fnUntraced(function*(to) {
      const sent = yield* Ref.updateAndGet(asked, (before) => [...before, to])
      if (sent.length <= failures) return yield* new MailServerDown()
    })
  })

const retriesForHours = Effect.gen(function*() {
  const asked = yield* Ref.make<ReadonlyArray<string>>([])
  yield* Effect.gen(function*() {
    yield* Publisher.publish(Reminder, { to: "ada" })

    yield* TestClock.adjust("1 second")
    assert.deepEqual(yield* Ref.get(asked), ["ada"])
    yield* TestClock.adjust("59 minutes")
    assert.deepEqual(yield* Ref.get(asked), ["ada"])
    yield* Console.log("after 59 minutes: 1 attempt")

    yield* TestClock.adjust("1 minute")
    assert.deepEqual(yield* Ref.get(asked), ["ada", "ada"])
    yield* Console.log("after 1 hour: 2 attempts")

    yield* TestClock.adjust("2 hours")
    assert.deepEqual(yield* Ref.get(asked), ["ada", "ada", "ada"])
    yield* Console.log("after 3 hours: 3 attempts, and the mail is sent")
  }).pipe(Effect.provide(Reminders.pipe(Layer.provide(fakeMailer(2, asked)))))
}).pipe(Effect.provide(Rotif.layerMemoryWith({ reports: "None" })))

const givesUp = Effect.gen(function*() {
  const asked = yield* Ref.make<ReadonlyArray<string>>([])
  yield* Effect.gen(function*() {
    yield* Publisher.publish(Reminder, { to: "grace" })
    yield* TestClock.adjust("1 day")
    const { letters: [letter] } = yield* DeadLetters.list()
    assert.equal(letter?.failure.errorTag, "MailServerDown")
    yield* Console.log(
      `after 1 day: a dead letter of "${letter.group}", ${letter.failure.reason} after ${letter.attempt} attempts`
    )
  }).pipe(Effect.provide(Reminders.pipe(Layer.provide(fakeMailer(Infinity, asked)))))
}).pipe(Effect.provide(Rotif.layerMemoryWith({ reports: "None" })))

retriesForHours.pipe(Effect.andThen(givesUp), Effect.provide(TestClock.layer()), NodeRuntime.runMain)
