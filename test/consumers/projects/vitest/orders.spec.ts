import { NotificationManager } from "rotif/promise"
import { expect, test } from "vitest"

test("a message is handled", async () => {
  const manager = new NotificationManager({ redis: "memory" })
  const handled = Promise.withResolvers<unknown>()
  await manager.subscribe("orders.*", (message) => handled.resolve(message.payload), { group: "billing" })
  await manager.publish("orders.placed", { total: 42 })
  expect(await handled.promise).toEqual({ total: 42 })
  await manager.stopAll()
})
