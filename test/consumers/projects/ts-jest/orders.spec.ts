import { NotificationManager, type RotifMessage } from "rotif/promise"

test("a message is handled", async () => {
  const manager = new NotificationManager({ redis: "memory" })
  const message = await new Promise<RotifMessage>((resolve) => {
    void manager.subscribe("orders.*", resolve, { group: "billing" })
      .then(() => manager.publish("orders.placed", { total: 42 }))
  })
  expect(message.payload).toEqual({ total: 42 })
  await manager.stopAll()
})
