/**
 * The code of the page that first described this library, as its users have it; only hosts and placeholders differ. Each test
 * runs one block of the page and asserts the claims of the text around it.
 */
/* oxlint-disable typescript/no-explicit-any, typescript/no-floating-promises -- as the page has it */
import { assert, describe, it } from "@effect/vitest"
import type { Middleware, RotifConfig, RotifMessage } from "rotif/promise"
import { managed, until } from "./promiseKit.ts"

export const seedSuite = (name: string, config: () => RotifConfig): void => {
  describe(`the page, on ${name}`, () => {
    /** The output of the page, and where it goes. */
    const recorder = () => {
      const lines: Array<Array<unknown>> = []
      const write = (...line: Array<unknown>) => void lines.push(line)
      return { lines, console: { log: write, error: write, warn: write } }
    }

    it("basic usage: publishes and receives on a pattern", async () => {
      const manager = managed({
        ...config(),
        maxRetries: 3,
        checkDelayInterval: 1000
      })
      const { console, lines } = recorder()

      await manager.subscribe("channel.*", async (msg) => {
        console.log("Received:", msg.payload)
        await msg.ack()
      })
      await manager.publish("channel.example", { foo: "bar" })

      await until(() => lines.length === 1)
      assert.deepStrictEqual(lines, [["Received:", { foo: "bar" }]])
      const [subscription] = manager.getSubscriptions()
      await until(() => subscription!.stats().messages === 1 && subscription!.stats().pending === 0)
    })

    it("delayed delivery: not before its time", async () => {
      const manager = managed(config())
      const arrived: Array<number> = []
      await manager.subscribe("channel.example", async () => void arrived.push(performance.now()))

      const from = performance.now()
      await manager.publish("channel.example", { delayed: true }, { delayMs: 1500 })

      await until(() => arrived.length === 1)
      // The clock that decides is another one than this.
      assert.isAtLeast(arrived[0]! - from, 1490)
    })

    it("delayed delivery: at a timestamp", async () => {
      const manager = managed(config())
      const arrived: Array<number> = []
      await manager.subscribe("reminders", async () => void arrived.push(Date.now()))
      const deliverAt = Date.now() + 1000

      await manager.publish("reminders", { number: 1 }, { deliverAt })
      await manager.publish("reminders", { number: 2 }, { deliverAt: new Date(deliverAt) })
      await manager.publish("reminders", { number: 3 }, { deliverAt: new Date(deliverAt).toISOString() })

      await until(() => arrived.length === 3)
      for (const at of arrived) assert.isAtLeast(at, deliverAt - 10)
    })

    it("retry and DLQ: succeeds with the second attempt", async () => {
      const manager = managed({ ...config(), retryDelay: 10 })
      const attempts: Array<number> = []

      await manager.subscribe("channel.retry", async (msg) => {
        attempts.push(msg.attempt)
        if (msg.attempt < 2) {
          throw new Error("Retry required")
        }
        await msg.ack()
      }, { maxRetries: 2 })
      await manager.publish("channel.retry", {})

      await until(() => manager.getSubscriptions()[0]!.stats().messages === 1)
      assert.deepStrictEqual(attempts, [1, 2])
      assert.strictEqual((await manager.getDLQStats()).totalMessages, 0)
    })

    it("retry and DLQ: a message beyond its retries is handed to the DLQ handler", async () => {
      const manager = managed({ ...config(), retryDelay: 10 })
      const { console, lines } = recorder()
      let attempts = 0
      await manager.subscribe("channel.retry", async () => {
        attempts++
        throw new Error("Retry required")
      }, { maxRetries: 2 })

      await manager.subscribeToDLQ(async (msg) => {
        console.error("DLQ Message:", msg.payload)
        await msg.ack()
      })
      await manager.publish("channel.retry", { order: 7 })

      await until(() => lines.length === 1)
      assert.deepStrictEqual(lines, [["DLQ Message:", { order: 7 }]])
      assert.strictEqual(attempts, 3)
      await until(async () => (await manager.getDLQStats()).totalMessages === 0)
    })

    it("exactly-once processing: the same message is processed once", async () => {
      const manager = managed({ ...config(), generateDedupKey: ({ payload }) => `order ${payload.order}` })
      const { console, lines } = recorder()

      await manager.subscribe("exactly.once", async (msg) => {
        console.log(msg.payload)
        await msg.ack()
      }, { exactlyOnce: true })
      await manager.publish("exactly.once", { order: 1, by: "ada" })
      await manager.publish("exactly.once", { by: "bob", order: 1 })
      await manager.publish("exactly.once", { order: 2, by: "ada" })

      await until(() => lines.length === 2)
      const [subscription] = manager.getSubscriptions()
      await until(() => subscription!.stats().messages === 2 && subscription!.stats().duplicates === 1)
      assert.deepStrictEqual(lines, [[{ order: 1, by: "ada" }], [{ order: 2, by: "ada" }]])
    })

    it("exactly-once processing: equal payloads without a key are two messages", async () => {
      const manager = managed(config())
      const seen: Array<unknown> = []
      await manager.subscribe("exactly.once", async (msg) => {
        seen.push(msg.payload)
      }, { exactlyOnce: true })
      await manager.publish("exactly.once", { coffee: 1 })
      await manager.publish("exactly.once", { coffee: 1 })
      const ids = [
        await manager.publish("exactly.once", { tea: 1, sugar: 0 }, { exactlyOnce: true }),
        await manager.publish("exactly.once", { sugar: 0, tea: 1 }, { exactlyOnce: true })
      ]
      await until(() => seen.length === 3)
      assert.strictEqual(ids[1], "DUPLICATE")
      assert.deepStrictEqual(seen, [{ coffee: 1 }, { coffee: 1 }, { tea: 1, sugar: 0 }])
    })

    it("middleware: hooks run around publishing, processing and errors", async () => {
      const manager = managed({ ...config(), retryDelay: 10 })
      const { console, lines } = recorder()

      manager.use({
        beforePublish: (channel, payload) => console.log("Publishing", channel, payload),
        afterProcess: (msg) => console.log("Processed", msg.id),
        onError: (msg, err) => console.error("Error on", msg.id, err)
      })
      const error = new Error("not yet")
      await manager.subscribe("jobs", async (msg) => {
        if (msg.attempt === 1) throw error
      })
      const id = await manager.publish("jobs", { n: 1 })

      await until(() => lines.length === 3)
      assert.deepStrictEqual(lines, [["Publishing", "jobs", { n: 1 }], ["Error on", id, error], ["Processed", id]])
    })

    it("batch processing: every message is in one batch", async () => {
      const manager = managed(config())
      const batches: Array<Array<number>> = []
      const processBatch = async (messages: Array<RotifMessage>) => {
        batches.push(messages.map((message) => message.payload.n))
      }

      const batchSize = 100
      const messages: any[] = []

      manager.subscribe("orders.created", async (msg) => {
        messages.push(msg)

        if (messages.length >= batchSize) {
          await processBatch(messages)
          messages.length = 0
        }
      }, { group: "batch-processor" })

      await manager.publishBatch(
        Array.from({ length: 200 }, (_, n) => ({ channel: "orders.created", payload: { n } }))
      )
      await until(() => batches.length === 2)
      assert.deepStrictEqual(batches.flat(), Array.from({ length: 200 }, (_, n) => n))
    })

    it("priority processing: two channels, one group, neither waits for the other", async () => {
      const manager = managed(config())
      const done: Array<string> = []
      let finishLow = () => {}
      let isLow = false

      // High priority subscriber
      manager.subscribe("orders.high", async (msg) => {
        // Process high priority orders
        done.push(`high ${msg.payload}`)
      }, { group: "order-processor" })

      // Low priority subscriber
      manager.subscribe("orders.low", async (msg) => {
        // Process low priority orders
        await new Promise<void>((resolve) => {
          isLow = true
          finishLow = resolve
        })
        done.push(`low ${msg.payload}`)
      }, { group: "order-processor" })

      await manager.publish("orders.low", 1)
      await manager.publish("orders.high", 1)
      await manager.publish("orders.high", 2)
      await until(() => done.length === 2 && isLow)
      finishLow()
      await until(() => done.length === 3)
      assert.deepStrictEqual(done, ["high 1", "high 2", "low 1"])
    })

    it("consumer group optimization: names come from the functions", async () => {
      const manager = managed({
        ...config(),
        groupNameFn: (pattern) => `${pattern}-group`,
        consumerNameFn: () => `consumer-${process.pid}`,
        blockInterval: 1000 // 1 second blocking interval
      })

      const subscription = await manager.subscribe("orders.*", async () => {})

      assert.strictEqual(subscription.group, "orders.*-group")
      assert.isTrue(subscription.id.startsWith(`consumer-${process.pid}`), subscription.id)
    })

    it("health checks: failures and pending messages of each subscription show", async () => {
      const manager = managed({ ...config(), maxRetries: 0 })
      const { console, lines } = recorder()
      const threshold = 1
      const maxPending = 0
      let finish = () => {}
      await manager.subscribe("healthy", async () => {})
      await manager.subscribe("failing", async () => {
        throw new Error("no")
      })
      await manager.subscribe("slow", () =>
        new Promise<void>((resolve) => {
          finish = resolve
        }))

      async function checkHealth() {
        const subscriptions = manager.getSubscriptions()

        for (const sub of subscriptions) {
          const stats = sub.stats()

          if (stats.failures > threshold) {
            console.error(`High failure rate in subscription ${sub.pattern}`)
          }

          if (stats.pending > maxPending) {
            console.warn(`High pending messages in ${sub.pattern}`)
          }
        }
      }

      await checkHealth()
      assert.deepStrictEqual(lines, [])
      for (const channel of ["healthy", "failing", "failing", "slow"]) await manager.publish(channel, {})
      const [healthy, failing, slow] = manager.getSubscriptions()
      await until(() =>
        healthy!.stats().messages === 1 && failing!.stats().failures === 2 && failing!.stats().pending === 0
        && slow!.stats().pending === 1
      )
      await checkHealth()
      assert.deepStrictEqual(lines, [
        ["High failure rate in subscription failing"],
        ["High pending messages in slow"]
      ])
      finish()
    })

    it("metrics collection: middleware counts starts, successes and errors", async () => {
      const manager = managed({ ...config(), retryDelay: 10 })
      const counts = new Map<string, number>()
      const metrics = { increment: (name: string) => void counts.set(name, (counts.get(name) ?? 0) + 1) }

      const metricsMiddleware: Middleware = {
        beforeProcess: async (msg) => {
          metrics.increment(`message_processing_start{event=${msg.channel}}`)
        },
        afterProcess: async (msg) => {
          metrics.increment(`message_processing_success{event=${msg.channel}}`)
        },
        onError: async (msg, error) => {
          metrics.increment(`message_processing_error{event=${msg.channel},error=${error.name}}`)
        }
      }

      manager.use(metricsMiddleware)
      await manager.subscribe("metered", async (msg) => {
        if (msg.attempt === 1) throw new TypeError("not yet")
      })
      await manager.publish("metered", 1)
      await manager.publish("metered", 2)

      await until(() => counts.get("message_processing_success{event=metered}") === 2)
      assert.deepStrictEqual(Object.fromEntries(counts), {
        "message_processing_start{event=metered}": 4,
        "message_processing_error{event=metered,error=TypeError}": 2,
        "message_processing_success{event=metered}": 2
      })
    })

    it("message validation: an invalid payload is not published", async () => {
      const manager = managed(config())
      const seen: Array<unknown> = []

      const validationMiddleware: Middleware = {
        beforePublish: async (channel, payload) => {
          if (!payload || typeof payload !== "object") {
            throw new Error("Invalid payload format")
          }

          // Channel-specific validation
          if (channel.startsWith("user.")) {
            if (!payload.userId) {
              throw new Error("Missing userId in user event")
            }
          }
        }
      }

      manager.use(validationMiddleware)
      await manager.subscribe("**", async (msg) => void seen.push(msg.payload))
      const refusal = (promise: Promise<unknown>) => promise.then(() => "published", (error: Error) => error.message)

      assert.strictEqual(await refusal(manager.publish("orders", "text")), "Invalid payload format")
      assert.strictEqual(await refusal(manager.publish("user.joined", { name: "ada" })), "Missing userId in user event")
      await manager.publish("user.joined", { userId: 42 })
      await until(() => seen.length > 0)
      assert.deepStrictEqual(seen, [{ userId: 42 }])
    })

    it("mocking for unit tests: the mock of the page stands in for the manager", async () => {
      class MockNotificationManager {
        private handlers = new Map<string, Function>()

        async publish(channel: string, payload: any) {
          const handler = this.handlers.get(channel)
          if (handler) {
            await handler({ channel, payload, id: "mock-id" })
          }
        }

        subscribe(channel: string, handler: Function) {
          this.handlers.set(channel, handler)
          return {
            unsubscribe: () => this.handlers.delete(channel)
          }
        }
      }

      /** The parts that both APIs have, for a program under test. */
      const greet = async (manager: Pick<MockNotificationManager, "publish">) => manager.publish("greetings", "hello")
      const heard: Array<unknown> = []
      const hear = async (msg: { payload: unknown }) => void heard.push(msg.payload)
      const mock = new MockNotificationManager()
      mock.subscribe("greetings", hear)
      const manager = managed(config())
      await manager.subscribe("greetings", hear)

      await greet(mock)
      await greet({ publish: async (channel, payload) => void await manager.publish(channel, payload) })
      await until(() => heard.length === 2)
      assert.deepStrictEqual(heard, ["hello", "hello"])
    })
  })
}
