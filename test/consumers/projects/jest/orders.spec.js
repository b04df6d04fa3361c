const { NotificationManager, InvalidOption } = require("rotif/promise")

test("a message is handled", async () => {
  const manager = new NotificationManager({ redis: "memory" })
  const payload = await new Promise((resolve) => {
    manager.subscribe("orders.*", (message) => resolve(message.payload), { group: "billing" })
      .then(() => manager.publish("orders.placed", { total: 42 }))
  })
  expect(payload).toEqual({ total: 42 })
  await manager.stopAll()
})

test("a message is handled through Redis", async () => {
  const manager = new NotificationManager({ redis: process.env.REDIS_URL, prefix: `jest-${process.pid}` })
  const handled = new Promise((resolve) => {
    manager.subscribe("orders.*", (message) => resolve(message.payload), { group: "billing" })
      .then(() => manager.publish("orders.placed", { at: new Date(0) }))
  })
  expect(await handled).toEqual({ at: "1970-01-01T00:00:00.000Z" })
  await manager.stopAll()
})

test("an error is of its class", () => {
  expect(() => new NotificationManager({ redis: "memory", maxRetrys: 1 })).toThrow(InvalidOption)
})
