/** What the tests of the Promise API share: backends, and waiting for what happens in the background. */
import { afterEach } from "@effect/vitest"
import { NotificationManager, type RotifConfig } from "rotif/promise"
import { inject } from "vitest"
import { freshPrefix } from "./kit.ts"

export const redisUrl = `redis://127.0.0.1:${inject("redisPort")}`

/** Where a manager runs: on the shared Redis with a namespace of its own, or in memory. */
export const backends: ReadonlyArray<{ readonly name: string; readonly config: () => RotifConfig }> = [
  { name: "memory", config: () => ({ redis: "memory" }) },
  { name: "Redis", config: () => ({ redis: redisUrl, prefix: freshPrefix() }) }
]

const open = new Set<NotificationManager>()

/** A manager that ends with its test, and says nothing. */
export const managed = (config: RotifConfig): NotificationManager => {
  const manager = new NotificationManager({ logger: quiet, drainTimeout: 1000, ...config })
  open.add(manager)
  return manager
}

/** For managers that a test makes itself. */
export const close = (manager: NotificationManager): void => void open.add(manager)

export const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

afterEach(async () => {
  const all = [...open]
  open.clear()
  await Promise.all(all.map((manager) => manager.stopAll()))
})

/** Waits until something is so; on a busy machine that takes its time. */
export const until = async (what: () => boolean | Promise<boolean>, millis = 15_000): Promise<void> => {
  const end = performance.now() + millis
  while (!(await what())) {
    if (performance.now() > end) throw new Error(`not within ${millis} ms: ${what.toString()}`)
    await new Promise(setImmediate)
  }
}
