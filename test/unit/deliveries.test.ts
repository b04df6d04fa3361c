/** The deliveries of a member as a Stream. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Broker } from "rotif"

describe("Broker.deliveries", () => {
  it.effect("gives one element for each reply, and asks for room before each read", () =>
    Effect.gen(function*() {
      const steps: Array<string> = []
      const replies = [["a", "b"], [], ["c"], ["d"]]
      const member = {
        read: (count: number, blockMillis: number) =>
          Effect.sync(() => {
            steps.push(`read ${count} ${blockMillis}`)
            return (replies.shift() ?? []).map((id) => ({ id }) as Broker.Delivery)
          })
      }
      let room = 0
      const ask = Effect.sync((): Broker.Room => {
        steps.push("room")
        return { count: ++room, blockMillis: 100 }
      })
      const taken: Array<string> = []
      yield* Broker.deliveries(member, ask).pipe(
        Stream.take(3),
        Stream.runForEach((reply) =>
          Effect.sync(() => {
            steps.push("taken")
            taken.push(reply.map(({ id }) => id).join(" "))
          })
        )
      )
      assert.deepStrictEqual(taken, ["a b", "", "c"])
      assert.deepStrictEqual(steps, [1, 2, 3].flatMap((count) => ["room", `read ${count} 100`, "taken"]))
    }))
})
