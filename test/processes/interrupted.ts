/** A program that ends on SIGINT as the page shows: it finishes its running handlers first, and prints its steps. */
import { NotificationManager } from "rotif/promise"

const manager = new NotificationManager({
  redis: process.env["REDIS_URL"],
  prefix: process.env["PREFIX"],
  groupNameFn: () => "group"
})

/* oxlint-disable typescript/no-misused-promises -- as the page has it */
process.on("SIGINT", async () => {
  console.log("stopping")
  await manager.stopAll()
  console.log("stopped")
  process.exit()
})

await manager.subscribe("work", async (msg) => {
  console.log(`started ${msg.payload}`)
  await new Promise((resolve) => setTimeout(resolve, 500))
  console.log(`finished ${msg.payload}`)
})
console.log("ready")
