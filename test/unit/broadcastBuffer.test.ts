/** The buffer of a listener in Pub/Sub mode: its order and its bounds. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Mailbox from "../../src/internal/broadcastBuffer.ts"

const cast = (payload: string) => ({ channel: "c", payload })

const drain = (mailbox: Mailbox.Mailbox) => {
  const items: Array<unknown> = []
  for (let item = mailbox.poll(); item !== undefined; item = mailbox.poll()) {
    items.push(
      item instanceof Mailbox.Missing
        ? `missing ${item.dropped ?? "?"}`
        : item instanceof Mailbox.Malformed
        ? `${item.count} malformed`
        : item.payload
    )
  }
  return items
}

const make = (overflow: Mailbox.Overflow, capacity = 2) => Mailbox.make({ overflow, capacity, maxChars: 100 })

describe("Mailbox", () => {
  it("tells of an interruption once, where it was", () => {
    const mailbox = make("bounded")
    mailbox.offer(cast("a"))
    mailbox.interrupted()
    mailbox.interrupted()
    mailbox.offer(cast("b"))
    mailbox.interrupted()
    assert.deepStrictEqual(drain(mailbox), ["a", "missing ?", "b", "missing ?"])
  })

  it("reports dropped messages before the next message", () => {
    const mailbox = make("bounded")
    for (const payload of ["a", "b", "c", "d"]) mailbox.offer(cast(payload))
    mailbox.interrupted()
    assert.strictEqual((mailbox.poll() as { readonly payload: string }).payload, "a")
    mailbox.offer(cast("e"))
    mailbox.offer(cast("f"))
    assert.deepStrictEqual(drain(mailbox), ["b", "missing 2", "missing ?", "e", "missing 1"])
    assert.deepStrictEqual(drain(mailbox), [])
    assert.strictEqual(mailbox.dropped(), 3)
  })

  it("keeps its reports when the messages around them are dropped", () => {
    const mailbox = make("sliding")
    mailbox.offer(cast("a"))
    mailbox.interrupted()
    mailbox.malformed("c")
    for (const payload of ["b", "c", "d"]) mailbox.offer(cast(payload))
    assert.deepStrictEqual(drain(mailbox), ["missing ?", "1 malformed", "c", "d"])
    assert.strictEqual(mailbox.dropped(), 2)
  })

  it("joins consecutive malformed messages", () => {
    const mailbox = make("dropping")
    for (let i = 0; i < 1_000; i++) mailbox.malformed("c")
    mailbox.offer(cast("a"))
    mailbox.malformed("c")
    assert.deepStrictEqual(drain(mailbox), ["1000 malformed", "a", "1 malformed"])
  })

  it("keeps the order over many messages that come and go", () => {
    const mailbox = Mailbox.make({ overflow: "bounded", capacity: 10_000, maxChars: 100_000 })
    const taken: Array<unknown> = []
    for (let i = 0; i < 20_000; i++) {
      mailbox.offer(cast(String(i)))
      if (i % 4 !== 0) taken.push((mailbox.poll() as { readonly payload: string }).payload)
    }
    assert.strictEqual(mailbox.size(), 5_000)
    taken.push(...drain(mailbox))
    assert.deepStrictEqual(taken, Array.from({ length: 20_000 }, (_, i) => String(i)))
    assert.deepStrictEqual([mailbox.size(), mailbox.dropped()], [0, 0])
  })

  it("takes one message of any length, and no second one beside it", () => {
    const mailbox = make("dropping", 10)
    mailbox.offer(cast("x".repeat(1_000)))
    mailbox.offer(cast("y"))
    assert.strictEqual(drain(mailbox).length, 1)
    mailbox.offer(cast("x".repeat(50)))
    mailbox.offer(cast("y".repeat(50)))
    mailbox.offer(cast("z"))
    assert.strictEqual(drain(mailbox).length, 2)
  })

  it.effect("wakes one who waits for each that comes", () =>
    Effect.gen(function*() {
      const mailbox = make("bounded")
      const wait = Effect.forkChild(mailbox.arrived, { startImmediately: true })
      const [one, two] = [yield* wait, yield* wait]
      mailbox.offer(cast("a"))
      yield* Fiber.join(one)
      assert.isUndefined(two.pollUnsafe())
      mailbox.interrupted()
      yield* Fiber.join(two)
      // There is something already.
      yield* mailbox.arrived
    }))
})
