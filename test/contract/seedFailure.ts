/** The rest of the page in seed.ts: error handling, the dead letter queue, shutdown. */
/* oxlint-disable typescript/no-floating-promises -- as the page has it */
import { assert, describe, it } from "@effect/vitest"
import type { RotifConfig, RotifMessage } from "rotif/promise"
import { managed, until } from "./promiseKit.ts"

export const seedFailureSuite = (name: string, config: () => RotifConfig): void => {
  describe(`failure as on the page, on ${name}`, () => {
    it("custom error handling: retry, straight to the DLQ, default", async () => {
      const manager = managed(config())
      class NetworkError extends Error {}
      // Stands for what the page calls an error that moves its message to the DLQ at once.
      const { UnrecoverableError } = await import("rotif/promise")
      class ValidationError extends UnrecoverableError {}
      const attempts = new Map<string, Array<{ readonly attempt: number; readonly at: number }>>()
      const errors = {
        network: (attempt: number) => attempt === 1 ? new NetworkError("unreachable") : undefined,
        validation: () => new ValidationError("no total"),
        other: () => new Error("something else")
      }
      const processMessage = async ({ attempt, payload }: RotifMessage) => {
        const kind = payload as keyof typeof errors
        attempts.set(kind, [...(attempts.get(kind) ?? []), { attempt, at: performance.now() }])
        const error = errors[kind](attempt)
        if (error !== undefined) throw error
      }
      const printed: Array<unknown> = []
      const console = { error: (...line: Array<unknown>) => void printed.push(line) }
      const unit = 20

      manager.subscribe("critical.events", async (msg) => {
        try {
          await processMessage(msg)
        } catch (error) {
          if (error instanceof NetworkError) {
            // Retry with exponential backoff
            return msg.retry()
          }
          if (error instanceof ValidationError) {
            // Move to DLQ immediately
            throw error
          }
          // Default error handling
          console.error("Processing error:", error)
          throw error
        }
      }, {
        maxRetries: 3,
        retryDelay: (attempt) => Math.pow(2, attempt) * unit // Exponential backoff
      })

      for (const kind of Object.keys(errors)) await manager.publish("critical.events", kind)
      await until(async () => (await manager.getDLQStats()).totalMessages === 2)

      const numbers = (kind: string) => attempts.get(kind)!.map(({ attempt }) => attempt)
      assert.deepStrictEqual(numbers("network"), [1, 2])
      assert.deepStrictEqual(numbers("validation"), [1])
      assert.deepStrictEqual(numbers("other"), [1, 2, 3, 4])
      assert.lengthOf(printed, 4)
      // 40, 80 and 160 ms at least, less what the clocks differ.
      const [, ...others] = attempts.get("other")!.map(({ at }, i, all) => i === 0 ? 0 : at - all[i - 1]!.at)
      for (const [i, gap] of others.entries()) assert.isAtLeast(gap, Math.pow(2, i + 1) * unit - 5)
      const letters = await manager.getDLQMessages()
      assert.deepStrictEqual(
        letters.map(({ attempt, error, payload, reason }) => ({ attempt, error, payload, reason })).toReversed(),
        [
          { attempt: 1, error: "no total", payload: "validation", reason: "term" },
          { attempt: 4, error: "something else", payload: "other", reason: "exhausted" }
        ]
      )
    })

    it("DLQ processing: acknowledged letters are removed, others stay", async () => {
      const manager = managed({ ...config(), maxRetries: 0 })
      await manager.subscribe("payments", async (msg) => {
        throw new Error(`payment ${msg.payload} failed`)
      })
      const printed: Array<ReadonlyArray<unknown>> = []
      const write = (...line: Array<unknown>) => void printed.push(line)
      const console = { log: write, error: write }
      const broken = new Error("still broken")
      const processMessage = async (msg: RotifMessage) => {
        if (msg.payload === 2) throw broken
      }

      // Subscribe to DLQ
      manager.subscribeToDLQ(async (msg) => {
        console.log("Processing DLQ message:", msg)

        try {
          // Attempt to reprocess
          await processMessage(msg)

          // If successful, remove from DLQ
          await msg.ack()
        } catch (error) {
          console.error("Failed to process DLQ message:", error)
          // Keep in DLQ by not acknowledging
        }
      })
      for (const payment of [1, 2, 3]) await manager.publish("payments", payment)

      await until(() => printed.length === 4)
      await until(async () => (await manager.getDLQStats()).totalMessages === 1)
      const [kept] = await manager.getDLQMessages()
      assert.strictEqual(kept!.payload, 2)
      assert.strictEqual(kept!.error, "payment 2 failed")
      assert.deepStrictEqual(
        printed.filter(([text]) => text === "Failed to process DLQ message:").map(([, error]) => error),
        [broken]
      )
    })

    it("DLQ requeue: only the failing group receives the oldest again, from attempt 1", async () => {
      const manager = managed({ ...config(), maxRetries: 0 })
      const seen: Array<string> = []
      let isRepaired = false
      await manager.subscribe("invoices", async (msg) => {
        seen.push(`billing ${msg.payload} ${msg.attempt}`)
        if (!isRepaired) throw new Error("broken")
      }, { group: "billing" })
      const audit = await manager.subscribe("invoices", async (msg) => {
        seen.push(`audit ${msg.payload}`)
      }, { group: "audit" })
      for (let n = 1; n <= 12; n++) await manager.publish("invoices", n)
      await until(async () => (await manager.getDLQStats()).totalMessages === 12 && audit.stats().messages === 12)
      isRepaired = true
      seen.length = 0

      const printed: Array<string> = []
      const console = { log: (line: string) => void printed.push(line) }
      // Requeue messages from DLQ
      async function requeueDLQMessages() {
        const count = await manager.requeueFromDLQ(10) // Requeue 10 messages
        console.log(`Requeued ${count} messages from DLQ`)
      }
      await requeueDLQMessages()

      assert.deepStrictEqual(printed, ["Requeued 10 messages from DLQ"])
      await until(() => seen.length === 10)
      assert.deepStrictEqual(seen, Array.from({ length: 10 }, (_, i) => `billing ${i + 1} 1`))
      assert.deepStrictEqual(
        (await manager.getDLQMessages()).map(({ payload }) => payload),
        [12, 11]
      )
    })

    it("retries: as many as the subscription says, else as the manager says", async () => {
      const manager = managed({ ...config(), maxRetries: 1, retryDelay: 5 })
      const attempts = { own: 0, shared: 0 }
      await manager.subscribe("own", async () => {
        attempts.own++
        throw new Error("no")
      }, { maxRetries: 3 })
      await manager.subscribe("shared", async () => {
        attempts.shared++
        throw new Error("no")
      })
      await manager.publish("own", null)
      await manager.publish("shared", null)

      await until(async () => (await manager.getDLQStats()).totalMessages === 2)
      assert.deepStrictEqual(attempts, { own: 4, shared: 2 })
    })
  })
}
