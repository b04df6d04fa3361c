/** A process that is frozen while it waits for messages, and handed one: SIGSTOP, and SIGCONT when another one has had it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Publisher, Rotif, Subscription } from "rotif"
import { pendingOf } from "../faults/pending.ts"
import { Recorder } from "../faults/Recorder.ts"
import { until } from "../faults/Run.ts"
import { Work } from "../faults/worker.ts"
import * as Workers from "../faults/Workers.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"

const lease = 4_500
const log = "{rotif:0}:log:work"

describe("a consumer that is frozen while it waits", () => {
  it.live("does not begin messages that another consumer has handled meanwhile; it renews at once", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const rotif = { url: server.url }
      yield* Effect.gen(function*() {
        const begun: Array<string> = []
        let lastBegunAt = 0
        const frozen = yield* Workers.start(
          { rotif, consumer: { group: "g", name: "frozen", lease, tellsBegun: true } },
          new Recorder(),
          {
            onEvent: (event) => {
              if (event.event !== "begun") return
              begun.push(event.text)
              lastBegunAt = event.at
            }
          }
        )
        yield* frozen.ready
        yield* Publisher.publish(Work, "p-0")
        const held = pendingOf(server, "frozen", [[log, "g"]])
        const isWaiting = Effect.map(
          server.command("info", "clients"),
          (text) => /blocked_clients:1\r/.test(String(text))
        )
        yield* until(
          "the consumer waits in a blocked read, and holds nothing",
          Effect.zipWith(held, isWaiting, (left, waits) => left.length === 0 && begun.length === 1 && waits)
        )
        yield* frozen.kill("SIGSTOP")
        yield* Publisher.publish(Work, "p-1")
        yield* until("the frozen one is handed a message", Effect.map(held, (left) => left.length === 1))
        yield* Effect.scoped(Effect.gen(function*() {
          const other = yield* Subscription.make(Work, { group: "g", lease, handler: () => Effect.void })
          yield* until("another one handles it", Effect.map(other.stats, ({ processed }) => processed === 1))
        }))
        const wokenAt = Date.now()
        yield* frozen.kill("SIGCONT")
        yield* Publisher.publish(Work, "p-2")
        yield* until("it goes on", Effect.sync(() => begun.includes("p-2")))
        assert.deepStrictEqual(begun, ["p-0", "p-2"])
        assert.isBelow(lastBegunAt - wokenAt, lease / 3, "it waited for the next renewal")
      }).pipe(Effect.provide(Rotif.layer(rotif)))
    }).pipe(Effect.scoped))
})
