/**
 * One of several consumers; see `growth.ts`. It begins when it is told to, and says how far it has come.
 */
import type { Report } from "./growth.ts"
import type { Open } from "./peers/peer.ts"

const [, , name, port] = process.argv
const { open } = await import(`./peers/${name}.ts`) as { readonly open: Open }
const peer = await open(Number(port), "growth")
const tell = (report: Report) => process.send!(report)

process.on("message", (order) => {
  if (order === "start") void start()
})
tell({ handled: 0 })

const start = async () => {
  const cpu = process.cpuUsage()
  let handled = 0
  const stop = await peer.consume({
    concurrency: 100,
    waitMillis: 0,
    handle: () => {
      handled++
      return true
    }
  })
  const timer = setInterval(() => tell({ handled }), 10)
  process.on("message", (order) => {
    if (order !== "stop") return
    clearInterval(timer)
    void stop().then(() => {
      const { system, user } = process.cpuUsage(cpu)
      process.send!({ micros: system + user }, () => process.exit(0))
    })
  })
}
