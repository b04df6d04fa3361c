/** Shared by the tests of the Promise API: backends, managers that end with their test, and waiting. */
import { afterEach } from "@effect/vitest"
import { NotificationManager, type RotifConfig } from "rotif/promise"
import { inject } from "vitest"
import { freshPrefix } from "./kit.ts"

export const redisUrl = `redis://127.0.0.1:${inject("redisPort")}`

/** The backends of a manager: the shared Redis with a new namespace, and the memory. */
export const backends: ReadonlyArray<{ readonly name: string; readonly config: () => RotifConfig }> = [
  { name: "memory", config: () => ({ redis: "memory" }) },
  { name: "Redis", config: () => ({ redis: redisUrl, prefix: freshPrefix() }) }
]

/** A manager of any channels. */
type Stoppable = Pick<NotificationManager, "stopAll">

const open = new Set<Stoppable>()

/** Makes a manager that logs nothing and ends with its test. */
export const managed = (config: RotifConfig): NotificationManager => {
  const manager = new NotificationManager({ logger: quiet, drainTimeout: 1000, ...config })
  open.add(manager)
  return manager
}

/** Ends a manager that a test has made itself with that test. */
export const close = (manager: Stoppable): void => void open.add(manager)

export const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

afterEach(async () => {
  const all = [...open]
  open.clear()
  await Promise.all(all.map((manager) => manager.stopAll()))
})

/** Waits until the condition holds; at most 15 seconds by default, for a busy machine. */
export const until = async (what: () => boolean | Promise<boolean>, millis = 15_000): Promise<void> => {
  const end = performance.now() + millis
  while (!(await what())) {
    if (performance.now() > end) throw new Error(`not within ${millis} ms: ${what.toString()}`)
    await new Promise(setImmediate)
  }
}
