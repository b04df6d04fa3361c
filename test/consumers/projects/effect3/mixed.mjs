import assert from "node:assert"
import { Effect } from "effect"
import { NotificationManager } from "rotif/promise"

const manager = new NotificationManager({ redis: "memory" })
const id = await Effect.runPromise(Effect.promise(() => manager.publish("orders.placed", { total: 42 })))
assert.strictEqual(typeof id, "string")
await manager.stopAll()
// The Effect API needs effect 4: docs/troubleshooting.md has these messages.
await assert.rejects(import("rotif"), /effect\/package\.json/)
await assert.rejects(import("rotif/Publisher"), /does not provide an export named/)
