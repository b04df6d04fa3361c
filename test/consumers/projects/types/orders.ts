import { NotificationManager, type RotifConfig, RotifError, type RotifMessage, type Subscription } from "rotif/promise"

const config: RotifConfig = { redis: { host: "localhost", commandTimeout: 1000 }, maxRetries: 3 }

export const start = async (): Promise<Subscription> => {
  const manager = new NotificationManager(config)
  await manager.publish("orders.placed", { id: "o-1" }, { delayMs: 10 })
  return manager.subscribe("orders.*", (message: RotifMessage) => message.retry(10), { group: "billing" })
}

export const isOurs = (error: unknown): string | undefined => error instanceof RotifError ? error._tag : undefined

// @ts-expect-error An option that does not exist.
new NotificationManager({ maxRetrys: 3 })
