const assert = require("node:assert")
const { NotificationManager } = require("rotif/promise")

describe("a message, with require", () => {
  it("is handled, and nothing keeps the process alive after stopAll", async () => {
    const manager = new NotificationManager({ redis: process.env.REDIS_URL, prefix: `mocha-${process.pid}` })
    const payload = await new Promise((resolve, reject) => {
      manager.subscribe("orders.*", (message) => resolve(message.payload), { group: "billing" })
        .then(() => manager.publish("orders.placed", { total: 42 })).catch(reject)
    })
    assert.deepStrictEqual(payload, { total: 42 })
    await manager.stopAll()
  })
})
