/**
 * 5. Retry: a decision for each error, delays that grow, a handler that says when to try again, a defect, and a named policy of the program.
 *
 *     node --conditions=rotif-source examples/05-retry.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Data, Effect, Latch, Layer, Schema } from "effect"
import { Channel, DeadLetters, Publisher, Retry, Subscription } from "rotif"
import { backend } from "./backend.ts"

const Call = Channel.make("calls", { payload: Schema.Struct({ to: Schema.String }) })

class NoAnswer extends Data.TaggedError("NoAnswer")<{ readonly message: string }> {}
class WrongNumber extends Data.TaggedError("WrongNumber")<{ readonly message: string }> {}

/** The policies of the program: the default one, and one that a subscription chooses by its name. */
const policies = Retry.layer({
  default: "10 millis",
  policies: { gentle: Retry.linear("10 millis", { times: 3 }) }
})

const callees = ["ada", "busy", "wrong", "deaf", "bug"]

const program = Effect.gen(function*() {
  const done = yield* Latch.make()
  const attempts = new Map<string, Array<number>>()
  const ended = new Set<string>()
  const end = (to: string) => Effect.suspend(() => ended.add(to).size === callees.length ? done.open : Effect.void)

  yield* Subscription.make(Call, {
    group: "phone",
    concurrency: callees.length,
    maxRetries: 2,
    handler: Effect.fnUntraced(function*({ attempt, payload: { to } }) {
      attempts.set(to, [...attempts.get(to) ?? [], attempt])
      if (to === "wrong") return yield* new WrongNumber({ message: "no such number" })
      // There is no answer the first time; the schedule decides about the second call.
      if (to === "ada" && attempt === 1) return yield* new NoAnswer({ message: "try again" })
      if (to === "deaf") return yield* new NoAnswer({ message: "never answers" })
      // The busy line says when it will be free.
      if (to === "busy" && attempt === 1) return yield* new Retry.RetryAfter({ delay: "30 millis", message: "busy" })
      if (to === "bug") return yield* Effect.die(new TypeError("to.phone is undefined"))
      yield* end(to)
    }),
    retry: Retry.make({
      NoAnswer: Retry.exponential("10 millis", { max: "1 second", jitter: "equal" }),
      WrongNumber: Retry.term
    })
  })
  const noted = yield* Latch.make()
  yield* Subscription.make(Call, {
    group: "journal",
    retry: "gentle",
    handler: ({ attempt, payload }) => {
      if (payload.to !== "ada") return Effect.void
      return attempt < 3 ? Effect.fail("the journal is full") : noted.open
    }
  })
  // Calls that were given up arrive here.
  yield* DeadLetters.subscribe(Call, {
    handler: (letter) => Effect.suspend(() => end(callees.find((to) => letter.raw.includes(`"${to}"`)) ?? "nobody"))
  })

  for (const to of callees) yield* Publisher.publish(Call, { to })
  yield* done.await
  yield* noted.await
  yield* Console.log("journal: ada is noted")

  for (const to of callees) yield* Console.log(`${to}: attempts ${attempts.get(to)?.join(" ")}`)
  const { letters } = yield* DeadLetters.list({ group: "phone" })
  const lines = letters.map(({ failure, raw }) =>
    `given up: ${raw} ${failure.reason}, ${failure.errorTag}${failure.isDefect === true ? ", a defect" : ""}`
  )
  for (const line of lines.sort()) yield* Console.log(line)
})

program.pipe(Effect.scoped, Effect.provide(backend().pipe(Layer.provide(policies))), NodeRuntime.runMain)
