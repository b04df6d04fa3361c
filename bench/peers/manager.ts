/**
 * Rotif through its `NotificationManager`, with promises and without schemas.
 */
import { batch, handler, type Open, type Payload, publishers } from "./peer.ts"

interface Manager {
  readonly publish: (channel: string, payload: Payload, options?: object) => Promise<string>
  readonly publishBatch: (
    messages: ReadonlyArray<{ readonly channel: string; readonly payload: Payload; readonly options?: object }>
  ) => Promise<unknown>
  readonly subscribe: (
    pattern: string,
    handle: (message: { readonly payload: unknown }) => unknown,
    options: object
  ) => Promise<{ readonly unsubscribe: () => Promise<void> }>
  readonly waitUntilReady: () => Promise<void>
  readonly stopAll: () => Promise<void>
}

/** The module of the manager; this file can be read also by those who have none. */
const source = new URL("../../src/promise.ts", import.meta.url).href

const channel = "bench.messages"

export const open: Open = async (port, prefix) => {
  const { NotificationManager } = await import(source) as {
    readonly NotificationManager: new(config: object) => Manager
  }
  const manager = new NotificationManager({ redis: `redis://127.0.0.1:${port}`, prefix })
  await manager.waitUntilReady()
  const many = (payloads: ReadonlyArray<Payload>, options?: object) =>
    manager.publishBatch(
      payloads.map((payload) => ({ channel, payload, ...(options === undefined ? {} : { options }) }))
    )
  return {
    ...publishers((payload) => manager.publish(channel, payload), (payloads) => many(payloads)),
    schedule: async (payloads) => {
      for (let from = 0; from < payloads.length; from += batch) {
        await many(payloads.slice(from, from + batch), { delayMs: 86_400_000 })
      }
    },
    consume: async (options) => {
      const run = handler(options)
      const subscription = await manager.subscribe(channel, ({ payload }) => run(payload as Payload), {
        group: options.group ?? "g",
        concurrency: options.concurrency,
        retryDelay: 0
      })
      return () => subscription.unsubscribe()
    },
    close: () => manager.stopAll()
  }
}
