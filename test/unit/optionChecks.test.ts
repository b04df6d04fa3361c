/** Options that cannot be used: said at once, and never taken for 0. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Schema } from "effect"
import { Broadcast, Channel, Deduplication, Publisher, Redis, Rotif, Scheduler, Subscription } from "rotif"
import * as Given from "../../src/internal/optionChecks.ts"

const Text = Channel.make("texts", { payload: Schema.String })

/** Passes a value that no type allows and JavaScript does. */
const any = (value: unknown) => value as never

const messageOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "it was taken"
  const [reason] = exit.cause.reasons
  const error = reason?._tag === "Die" ? reason.defect : reason?._tag === "Fail" ? reason.error : undefined
  return error instanceof Error ? error.message : String(error)
}

describe("the options of a layer", () => {
  const nothing = [Number.NaN, -1, "soon", null, {}, Symbol("x")]
  it.effect.each([
    ...nothing.map((value) => [{ maxPayloadBytes: value }, "maxPayloadBytes must be a whole number"] as const),
    ...[Number.NaN, -1, "soon", null, 0].flatMap((value) =>
      (["checkInterval", "trimInterval"] as const).map((name) =>
        [{ [name]: value }, `${name} must be a duration of at least 10 ms and at most 23 days`] as const
      )
    ),
    [{ maxWindow: Number.NaN }, "maxWindow must be a duration"] as const,
    [
      { deadLetters: { maxAge: Number.NaN } },
      "deadLetters.maxAge must be a duration of at least 0 ms, it is NaN"
    ] as const,
    [{ deadLetters: { interval: Number.NaN } }, "deadLetters.interval must be a duration"] as const,
    [{ deadLetters: { maxCount: Number.NaN } }, "deadLetters.maxCount must be a whole number"] as const
  ])("%o: the layer does not start", ([options, message]) =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(Rotif.layerMemoryWith(any(options)))))
      assert.include(messageOf(exit), message)
    }))

  it.effect.each(
    [
      [{ commandTimeout: Number.NaN }, "commandTimeout must be a duration of at least 1 ms"],
      [{ connectTimeout: 0 }, "connectTimeout must be a duration"],
      [{ startTimeout: "soon" }, "startTimeout must be a duration"],
      [{ maxWaiting: Number.NaN }, "maxWaiting must be a whole number"]
    ] as const
  )("%o: there is no connection", ([options, message]) =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Effect.scoped(Redis.make(any({ url: "redis://127.0.0.1:1", ...options }))))
      assert.include(messageOf(exit), message)
    }))
})

describe("the options of an operation", () => {
  const handler = () => Effect.void
  const subscribe = (options: object) => Effect.scoped(Subscription.make(Text, { handler, ...options }))
  const refused: ReadonlyArray<readonly [string, Effect.Effect<unknown, unknown, Rotif.Services>, string]> = [
    [
      "headers that are none",
      Publisher.publish(Text, "x", any({ headers: null })),
      "headers must be a record of strings"
    ],
    ["headers in a list", Publisher.publish(Text, "x", any({ headers: ["a"] })), "headers must be a record of strings"],
    ["headers of a text", Broadcast.publish(Text, "x", any({ headers: "a" })), "headers must be a record of strings"],
    [
      "half of a character as an id",
      Publisher.publish(Text, "x", { id: "a\ud800" }),
      "the id must be well-formed Unicode"
    ],
    ["half of a character as a group", subscribe({ group: "a\ud800" }), "group must be well-formed Unicode"],
    [
      "half of a character as a key",
      Deduplication.once("a\ud800", "1 day", Effect.void),
      "the key must be a string of 1 to 1,024 bytes of well-formed Unicode"
    ],
    ["no handler", subscribe({ handler: undefined }), "handler must be a function"],
    ["another ackMode", subscribe({ ackMode: "never" }), "ackMode must be \"auto\" or \"manual\", it is never"],
    ["another expired", subscribe({ expired: "keep" }), "expired must be \"dead-letter\" or \"drop\", it is keep"],
    ["a drainTimeout that is no number", subscribe({ drainTimeout: Number.NaN }), "drainTimeout must be a duration"],
    ["a retryDelay that is no number", subscribe({ retryDelay: Number.NaN }), "retryDelay must be a duration"],
    ["a start that is nothing", subscribe({ startFrom: null }), "startFrom must be"],
    ["a concurrency that is a symbol", subscribe({ concurrency: Symbol("x") }), "concurrency must be a whole number"],
    [
      "a zone that is no zone",
      Scheduler.recurring("k", "* * * * *", Text, "x", any({ timeZone: 7 })),
      "not a time zone"
    ],
    [
      "a catchUp that is nothing",
      Scheduler.recurring("k", "* * * * *", Text, "x", any({ catchUp: null })),
      "catchUp must be"
    ]
  ]
  it.effect.each(refused)("%s: refused with a typed error", ([, effect, message]) =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(effect)
      assert.include(messageOf(exit), message)
      assert.isTrue(Exit.isFailure(exit) && exit.cause.reasons.every((reason) => reason._tag === "Fail"))
    }).pipe(Effect.provide(Rotif.layerMemory)))

  it("takes the default for undefined, and both ends of its bounds", () => {
    const bounds = { usual: 5, least: 1, most: 10 }
    for (const [value, expected] of [[undefined, 5], [1, 1], [10, 10]] as const) {
      assert.deepInclude(Given.count("n", value, bounds), { success: expected })
      assert.deepInclude(Given.span("n", value, bounds), { success: expected })
    }
    for (const value of [0, 11]) {
      assert.strictEqual(Given.count("n", value, bounds)._tag, "Failure")
      assert.strictEqual(Given.span("n", value, bounds)._tag, "Failure")
    }
  })
})
