/** The Promise API: handlers that are given up, and publishes with windows and times to live. */
import { assert, describe, it } from "@effect/vitest"
import type { PublishOptions, RotifConfig } from "rotif/promise"
import { DUPLICATE, HandlerAborted, HandlerTimeout, InvalidOption } from "rotif/promise"
import { managed, until } from "./promiseKit.ts"

/** Resolves when the signal is aborted, with its reason. */
const abortOf = (signal: AbortSignal): Promise<unknown> =>
  new Promise((resolve) => signal.addEventListener("abort", () => resolve(signal.reason)))

export const promiseHandlersSuite = (name: string, config: () => RotifConfig): void => {
  describe(`rotif/promise, on ${name}: handlers that are given up`, () => {
    it("timeout: the signal is aborted, the attempt fails with HandlerTimeout and is retried", async () => {
      const manager = managed(config())
      const reasons: Array<unknown> = []
      const errors: Array<unknown> = []
      const attempts: Array<number> = []
      manager.use({ onError: (_, error) => void errors.push(error) })
      await manager.subscribe("slow", async ({ attempt, signal }) => {
        attempts.push(attempt)
        if (attempt === 1) reasons.push(await abortOf(signal))
      }, { timeout: 50, retryDelay: 1 })
      await manager.publish("slow", 1)
      await until(() => attempts.length === 2 && reasons.length === 1)
      assert.deepStrictEqual(attempts, [1, 2])
      assert.instanceOf(reasons[0], HandlerAborted)
      assert.lengthOf(errors, 1)
      assert.instanceOf(errors[0], HandlerTimeout)
      assert.strictEqual((errors[0] as Error).message, "the handler took longer than its timeout of 50 ms")
    })

    it("timeout of a batch: the signals of all its messages are aborted, and they come again in smaller ones", async () => {
      const manager = managed(config())
      const sizes: Array<number> = []
      const aborted: Array<unknown> = []
      await manager.publishBatch([{ channel: "rows", payload: 1 }, { channel: "rows", payload: 2 }])
      await manager.subscribeBatch("rows", async (messages) => {
        sizes.push(messages.length)
        if (messages.length === 2) aborted.push(...await Promise.all(messages.map(({ signal }) => abortOf(signal))))
      }, { size: 2, within: 1000, timeout: 50, retryDelay: 1 })
      await until(() => sizes.length === 3 && aborted.length === 2)
      assert.deepStrictEqual(sizes, [2, 1, 1])
      for (const reason of aborted) assert.instanceOf(reason, HandlerAborted)
    })

    it("the end of the manager aborts the signal of a handler that outlasts drainTimeout, and of no other", async () => {
      const manager = managed({ ...config(), drainTimeout: 50 })
      const begun = Promise.withResolvers<void>()
      const done: Array<AbortSignal> = []
      const reasons: Array<unknown> = []
      await manager.subscribe("jobs", async ({ payload, signal }) => {
        if (payload === "quick") return void done.push(signal)
        begun.resolve()
        reasons.push(await abortOf(signal))
      })
      await manager.publishBatch([{ channel: "jobs", payload: "quick" }, { channel: "jobs", payload: "endless" }])
      await begun.promise
      await manager.stopAll()
      await until(() => reasons.length === 1)
      assert.instanceOf(reasons[0], HandlerAborted)
      assert.deepStrictEqual(done.map(({ aborted }) => aborted), [false])
    })

    it("a signal that is looked at after the end is aborted, too", async () => {
      const manager = managed({ ...config(), drainTimeout: 10 })
      const begun = Promise.withResolvers<void>()
      const ended = Promise.withResolvers<void>()
      const seen = Promise.withResolvers<boolean>()
      await manager.subscribe("jobs", async (message) => {
        begun.resolve()
        await ended.promise
        seen.resolve(message.signal.aborted)
      })
      await manager.publish("jobs", 1)
      await begun.promise
      await manager.stopAll()
      ended.resolve()
      assert.isTrue(await seen.promise)
    })

    it("release: the message comes again as the same attempt", async () => {
      const manager = managed(config())
      const attempts: Array<number> = []
      const subscription = await manager.subscribe("jobs", async ({ attempt, release }) => {
        attempts.push(attempt)
        if (attempts.length === 1) await release()
      })
      await manager.publish("jobs", 1)
      await until(() => subscription.stats().messages === 1)
      assert.deepStrictEqual(attempts, [1, 1])
      assert.strictEqual(subscription.stats().retries, 0)
    })
  })

  describe(`rotif/promise, on ${name}: publishes with windows and times to live`, () => {
    it("throttle: the first message with a key is stored, those in its window are duplicates", async () => {
      const manager = managed(config())
      const seen: Array<unknown> = []
      await manager.subscribe("alerts", ({ payload }) => void seen.push(payload))
      const throttle = { key: "disk", window: 60_000 }
      await manager.publish("alerts", 1, { throttle })
      assert.strictEqual(await manager.publish("alerts", 2, { throttle }), DUPLICATE)
      await manager.publish("alerts", 3, { throttle: { key: "memory", window: 60_000 } })
      await until(() => seen.length === 2)
      assert.deepStrictEqual(seen, [1, 3])
    })

    it("debounce: the last message with a key is delivered, once no other follows", async () => {
      const manager = managed(config())
      const seen: Array<unknown> = []
      await manager.subscribe("search", ({ payload }) => void seen.push(payload))
      const debounce = { key: "index", delay: 200 }
      for (const payload of [1, 2, 3]) await manager.publish("search", payload, { debounce })
      await until(() => seen.length > 0)
      assert.deepStrictEqual(seen, [3])
    })

    it("expiresIn: a message that is handled too late becomes a dead letter, or is dropped", async () => {
      const manager = managed(config())
      // Both groups are there, and nobody reads for them.
      for (const group of ["a", "b"]) await (await manager.subscribe("codes", () => {}, { group })).unsubscribe()
      await manager.publish("codes", "old", { expiresIn: 1 })
      await manager.publish("codes", "lasting", { expiresIn: 60_000 })
      const late = performance.now() + 20
      await until(() => performance.now() > late)
      const seen: Array<unknown> = []
      const note = (group: string) => ({ payload }: { payload: string }) => void seen.push(`${group}: ${payload}`)
      await manager.subscribe("codes", note("a"), { group: "a" })
      await manager.subscribe("codes", note("b"), { group: "b", expired: "drop" })
      await until(async () => seen.length === 2 && (await manager.getDLQMessages()).length === 1)
      assert.sameMembers(seen, ["a: lasting", "b: lasting"])
      const [letter] = await manager.getDLQMessages()
      assert.deepStrictEqual([letter!.reason, letter!.group, letter!.payload], ["expired", "a", "old"])
    })

    const throttle = { key: "a", window: 1 }
    const debounce = { key: "a", delay: 1 }
    const wrong: ReadonlyArray<PublishOptions> = [
      { throttle, debounce },
      { throttle, dedupKey: "x" },
      { throttle, exactlyOnce: true },
      { debounce, delayMs: 1 },
      { debounce, deliverAt: 1 },
      { throttle: { key: "", window: 1 } },
      { debounce: { key: "a" } as unknown as typeof debounce }
    ]
    it.each(wrong)("refuses options that contradict each other, or are incomplete: %o", async (options) => {
      const error = await managed(config()).publish("a", 1, options).then(() => undefined, (error: unknown) => error)
      assert.instanceOf(error, InvalidOption)
      assert.match(error.message, /throttle|debounce/)
    })
  })
}
