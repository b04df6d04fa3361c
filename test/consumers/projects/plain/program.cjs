const assert = require("node:assert")
const { randomUUID } = require("node:crypto")
const { InvalidOption, NotificationManager, RotifError } = require("rotif/promise")

const main = async () => {
  assert.throws(() => new NotificationManager({ maxRetrys: 1 }), InvalidOption)
  const manager = new NotificationManager({ redis: process.env.REDIS_URL, prefix: randomUUID() })
  const payload = await new Promise((resolve, reject) => {
    manager.subscribe("orders.*", (message) => resolve(message.payload), { group: "billing" })
      .then(() => manager.publish("orders.placed", { total: 42 }))
      .catch(reject)
  })
  assert.deepStrictEqual(payload, { total: 42 })
  await manager.stopAll()
  await assert.rejects(manager.publish("orders.placed", {}), RotifError)
  console.log("handled")
}

main()
