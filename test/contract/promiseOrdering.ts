/** Ordering keys in the Promise API, on every backend. */
import { assert, describe, it } from "@effect/vitest"
import type { RotifConfig, RotifMessage } from "rotif/promise"
import { managed, until } from "./promiseKit.ts"

const failure = (promise: Promise<unknown>): Promise<Error & { readonly option?: string }> =>
  promise.then((value) => assert.fail(`it did not fail, but gave ${JSON.stringify(value)}`), (error: Error) => error)

export const promiseOrderingSuite = (name: string, config: () => RotifConfig): void => {
  describe(`rotif/promise, on ${name}: ordering keys`, () => {
    it("handles the messages of a key one after the other through a retry, and others beside them", async () => {
      const one = managed({ ...config(), retryDelay: 30 })
      const begun: Array<string> = []
      const keys = new Set<string | undefined>()
      const handler = async ({ attempt, orderingKey, payload }: RotifMessage) => {
        keys.add(orderingKey)
        begun.push(`${payload} ${attempt}`)
        if (payload === "a0" && attempt === 1) throw new Error("not yet")
      }
      await one.subscribe("orders", handler, { group: "g", concurrency: 4 })
      await one.subscribe("orders", handler, { group: "g", concurrency: 4, ordering: "block" })
      await one.publishBatch(
        ["a0", "a1", "b0"].map((payload) => ({ channel: "orders", payload, options: { orderingKey: payload[0]! } }))
      )
      await one.publish("orders", "a2", { orderingKey: "a" })
      await one.publish("orders", "c0", { orderingKey: null })
      await until(() => begun.length === 6)
      assert.deepStrictEqual(begun.filter((text) => text.startsWith("a")), ["a0 1", "a0 2", "a1 1", "a2 1"])
      assert.isBelow(begun.indexOf("b0 1"), begun.indexOf("a0 2"))
      assert.deepStrictEqual(keys, new Set(["a", "b", undefined]))
    })

    it("with ordering \"none\" keys have no meaning, and a group has one setting", async () => {
      const manager = managed(config())
      const begun: Array<unknown> = []
      let open = () => {}
      const gate = new Promise<void>((resolve) => {
        open = resolve
      })
      const options = { group: "g", concurrency: 4, ordering: "none" } as const
      await manager.subscribe("orders", async ({ payload }) => {
        begun.push(payload)
        await gate
      }, options)
      const error = await failure(manager.subscribe("orders", () => {}, { group: "g" }))
      assert.match(error.message, /group "g" has ordering "none", not "block"/)
      for (const payload of [0, 1]) await manager.publish("orders", payload, { orderingKey: "a" })
      await until(() => begun.length === 2)
      open()
    })

    it("asks generateOrderingKey where a publish gives no key", async () => {
      const wrong: unknown = undefined
      const manager = managed({
        ...config(),
        generateOrderingKey: ({ channel, payload }) =>
          payload.user === "wrong" ? wrong as string : payload.user === undefined ? null : `${channel}/${payload.user}`
      })
      const keys: Array<string | undefined> = []
      await manager.subscribe("orders", ({ orderingKey }) => void keys.push(orderingKey))
      await manager.publish("orders", { user: "u" })
      await manager.publish("orders", {})
      await manager.publish("orders", { user: "u" }, { orderingKey: "own" })
      await manager.publish("orders", { user: "u" }, { orderingKey: null })
      const error = await failure(manager.publish("orders", { user: "wrong" }))
      assert.strictEqual(error.option, "generateOrderingKey")
      assert.match(error.message, /1 to 512 bytes/)
      await until(() => keys.length === 4)
      assert.deepStrictEqual(keys, ["orders/u", undefined, "own", undefined])
    })

    it("a dead letter has the key of its message, and its message keeps it", async () => {
      const manager = managed({ ...config(), maxRetries: 0 })
      const keys: Array<string | undefined> = []
      let isFixed = false
      await manager.subscribe("orders", ({ orderingKey }) => {
        keys.push(orderingKey)
        if (!isFixed) throw new Error("no")
      })
      await manager.publish("orders", 1, { orderingKey: "a" })
      await until(async () => (await manager.getDLQMessages({})).length === 1)
      assert.strictEqual((await manager.getDLQMessages({}))[0]!.orderingKey, "a")
      isFixed = true
      await manager.requeueFromDLQ()
      await until(() => keys.length === 2)
      assert.deepStrictEqual(keys, ["a", "a"])
    })
  })
}
