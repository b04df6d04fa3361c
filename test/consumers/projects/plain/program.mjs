import assert from "node:assert"
import { randomUUID } from "node:crypto"
import { NotificationManager, UnrecoverableError } from "rotif/promise"

const manager = new NotificationManager({ redis: process.env.REDIS_URL, prefix: randomUUID() })
const { promise: handled, resolve } = Promise.withResolvers()
await manager.subscribe("orders.*", (message) => {
  if (message.payload.total === 0) throw new UnrecoverableError("nothing to pay")
  resolve(message.payload)
}, { group: "billing" })
await manager.publishBatch([
  { channel: "orders.placed", payload: { total: 0 } },
  { channel: "orders.placed", payload: { total: 42 } }
])
assert.deepStrictEqual(await handled, { total: 42 })
const [letter] = await manager.getDLQMessages()
assert.strictEqual(letter.error, "nothing to pay")
await manager.stopAll()
console.log("handled")
