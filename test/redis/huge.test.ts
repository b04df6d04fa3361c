/** Messages of another program in a log, beyond the limits of Rotif. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Result, Schema } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Channel, DeadLetters, Publisher, Rotif, Subscription } from "rotif"
import { decode } from "../../src/redisBroker/entry.ts"
import { portioned } from "../../src/redisBroker/batches.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { until } from "../faults/Run.ts"

const Text = Channel.make("texts", { payload: Schema.String })
/** Far beyond what a publisher may send here, and beyond what a string can be once it is JSON. */
const [large, huge] = [20_000_000, 100_000_000]

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

/** What this process holds on to. */
const heldBytes = Effect.sync(() => {
  collect()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
})

describe("huge entries of another program", () => {
  it.live(
    "are handled or become dead letters, among ordinary messages; their memory is released",
    () =>
      Effect.gen(function*() {
        const server = yield* RedisServer.make()
        // Made in the server: nothing of it is in this process before it is read.
        const write = (lua: string) =>
          server.command("eval", `redis.call("xadd", KEYS[1], "*", ${lua}) return 1`, 1, "{rotif:0}:log:texts")
        yield* Effect.gen(function*() {
          const seen = yield* Queue.unbounded<string>()
          const dead = yield* Queue.unbounded<unknown>()
          const before = yield* heldBytes
          yield* Publisher.publish(Text, "first")
          yield* write(`"i", "fits", "p", '"' .. string.rep("x", ${large}) .. '"'`)
          yield* Publisher.publish(Text, "second")
          // As JSON this is six times as long, and no string any more.
          yield* write(`"foreign", string.rep("\\0", ${huge})`)
          yield* Publisher.publish(Text, "third")
          yield* DeadLetters.subscribe(Text, {
            handler: ({ failure, payload }) =>
              Queue.offer(dead, [failure.reason, failure.message, Result.isFailure(payload)])
          })
          yield* Subscription.make(Text, {
            group: "g",
            concurrency: 1,
            handler: ({ payload }) => Queue.offer(seen, payload.length === large ? "large" : payload)
          })
          assert.deepStrictEqual(yield* Queue.takeN(seen, 4), ["first", "large", "second", "third"])
          assert.deepStrictEqual(yield* Queue.take(dead), ["decode", "the entry has no payload field", true])
          yield* Publisher.publish(Text, "later")
          assert.strictEqual(yield* Queue.take(seen), "later")
          yield* until("memory is released", Effect.map(heldBytes, (bytes) => bytes < before + huge / 2))
        }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: server.url })))
      }).pipe(Effect.scoped),
    60_000
  )

  it("are no messages when nothing could be done with them, and keep their beginning", () => {
    const long = "x".repeat(2 ** 26)
    const read = (...fields: ReadonlyArray<string>) => decode("1-0", fields)
    assert.isUndefined(read("i", "1", "p", long).malformed)
    const whole = read("i", "1", "h", long, "p", long)
    assert.strictEqual(whole.malformed, "the entry is too long for a message")
    assert.strictEqual(whole.payload, JSON.stringify(["i", "1", "h", "x".repeat(2 ** 20 - 6)]))
    // What was moved from a log at its limit has a description besides.
    assert.isUndefined(
      read("b", `${JSON.stringify({ i: "1", t: 1, n: 1, d: 1, c: 0, o: "1-0" })}\n${long}${long}`).malformed
    )
    const id = read("i", "\u0001".repeat(2 ** 20 + 1), "p", "")
    assert.deepStrictEqual([id.id, id.malformed], ["1-0", "the entry's id is too long"])
    assert.strictEqual(
      read("a", "\0".repeat(2 ** 21)).payload.length,
      JSON.stringify(["a", ""]).length + 6 * (2 ** 20 - 2)
    )
  })

  it("are moved in calls that are bounded in bytes", () => {
    const items = (...lengths: ReadonlyArray<number>) => lengths.map((length) => ({ payload: "x".repeat(length) }))
    const portions = (lengths: ReadonlyArray<number>) =>
      portioned(items(...lengths), 3).map((portion) => portion.map(({ payload }) => payload.length))
    assert.deepStrictEqual(portions([]), [])
    assert.deepStrictEqual(portions([1, 2, 3, 4]), [[1, 2, 3], [4]])
    assert.deepStrictEqual(portions([2 ** 19, 2 ** 19, 1]), [[2 ** 19, 2 ** 19], [1]])
    assert.deepStrictEqual(portions([2 ** 25, 2 ** 25, 1]), [[2 ** 25], [2 ** 25], [1]])
    assert.deepStrictEqual(portions([2 ** 27, 1, 2 ** 26, 1]), [[2 ** 27], [1], [2 ** 26], [1]])
  })
})
