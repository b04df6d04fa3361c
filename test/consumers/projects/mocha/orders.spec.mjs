import assert from "node:assert"
import { NotificationManager } from "rotif/promise"

describe("a message, with import", () => {
  it("is handled", async () => {
    await using manager = new NotificationManager({ redis: "memory" })
    const { promise, resolve } = Promise.withResolvers()
    await manager.subscribe("orders.*", (message) => resolve(message.payload), { group: "billing" })
    await manager.publish("orders.placed", { total: 42 })
    assert.deepStrictEqual(await promise, { total: 42 })
  })
})
