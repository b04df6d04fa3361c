/** The process of the soak that uses the Promise API; started, ended and silenced as `member.ts` is. */
import { setTimeout } from "node:timers/promises"
import { NotificationManager } from "rotif/promise"
import { type Item, type Job, Promised, say } from "./load.ts"

const { everyMillis, lease, name, rotif } = JSON.parse(process.env["JOB"]!) as Job

const nothing = () => {}
const manager = new NotificationManager({
  redis: rotif.url,
  prefix: rotif.prefix,
  retryDelay: 50,
  lease,
  drainTimeout: 5_000,
  logger: { debug: nothing, info: nothing, warn: nothing, error: nothing }
})

let isQuiet = false
let isEnding = false
process.once("SIGUSR2", () => {
  isQuiet = true
})
process.once("SIGTERM", () => {
  isEnding = isQuiet = true
  void manager.stopAll()
})

await manager.subscribe(Promised.name, async ({ attempt, channel, group, payload }) => {
  const { kind, text } = payload as Item
  await setTimeout(2)
  const about = { group, consumer: name, channel, text, deliveryCount: attempt, at: Date.now() }
  if (kind === "flaky" && attempt < 3) throw new Error("not yet")
  say({ event: "handled", ...about })
}, { group: "promise", concurrency: 5 })
say({ event: "ready" })

for (let n = 0; !isQuiet; n++) {
  const text = `${name}-${n}`
  const item: Item = { text, kind: n % 5 === 4 ? "flaky" : "plain" }
  // A failed publish may have been stored; its key makes it one message.
  for (let isStored = false; !isStored && !isEnding;) {
    try {
      await manager.publish(Promised.name, { ...item }, { dedupKey: text, deduplicationTTL: 10 })
      say({ event: "told", channel: Promised.name, text })
      isStored = true
    } catch {
      await setTimeout(20)
    }
  }
  await setTimeout(everyMillis)
}
say({ event: "quiet" })
