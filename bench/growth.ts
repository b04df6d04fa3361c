/**
 * A queue that several processes work off.
 */
import type { Redis } from "ioredis"
import { fork } from "node:child_process"
import { costOf, perMessage } from "./cost.ts"
import type { Figures, Growth } from "./jobs.ts"
import { type Open, payloadsOf } from "./peers/peer.ts"

/** What a consumer tells: how many it has handled, and at the end how much CPU it took. */
export type Report = { readonly handled: number } | { readonly micros: number }

const once = (child: ReturnType<typeof fork>, wanted: (report: Report) => boolean) =>
  new Promise<Report>((resolve, reject) => {
    child.on("message", (message) => wanted(message as Report) && resolve(message as Report))
    child.once("exit", (code) => code !== 0 && reject(new Error(`a consumer ended with ${code}`)))
  })

export const growth = async (client: Redis, { bytes, consumers, count, peer, port }: Growth): Promise<Figures> => {
  const { open } = await import(`./peers/${peer}.ts`) as { readonly open: Open }
  const producer = await open(port, "growth")
  const children = Array.from(
    { length: consumers },
    () =>
      fork(new URL("./growing.ts", import.meta.url), [peer, String(port)], {
        stdio: ["ignore", "ignore", "inherit", "ipc"]
      })
  )
  await Promise.all(children.map((child) => once(child, (report) => "handled" in report)))
  const handled = new Map<unknown, number>()
  const all = new Promise<void>((resolve) => {
    for (const child of children) {
      child.on("message", (report: Report) => {
        if (!("handled" in report)) return
        handled.set(child, report.handled)
        if ([...handled.values()].reduce((sum, part) => sum + part, 0) >= count) resolve()
      })
    }
  })
  for (let from = 0; from < count; from += 5000) {
    await producer.bulk(payloadsOf(Math.min(5000, count - from), bytes, from))
  }
  const cost = await costOf([client], async () => {
    for (const child of children) child.send("start")
    await all
  })
  const micros = children.map((child) => once(child, (report) => "micros" in report))
  for (const child of children) child.send("stop")
  let nodeMicros = 0
  for (const report of await Promise.all(micros)) if ("micros" in report) nodeMicros += report.micros
  await producer.close()
  return perMessage({ ...cost, nodeMicros }, count)
}
