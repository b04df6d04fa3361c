/** The Promise API, as its documentation promises it, on every backend. */
import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import type {
  DlqMessage,
  DlqQuery,
  InvalidOption,
  PublishOptions,
  RotifConfig,
  RotifMessage,
  SubscribeOptions,
  Subscription
} from "rotif/promise"
import {
  ManagerStopped,
  NotificationManager,
  PayloadTooLarge,
  PublishIncomplete,
  Reject,
  RotifError,
  UnrecoverableError
} from "rotif/promise"
import { managed, until } from "./promiseKit.ts"

const failure = (promise: Promise<unknown>): Promise<Error> =>
  promise.then((value) => assert.fail(`it did not fail, but gave ${JSON.stringify(value)}`), (error: Error) => error)

export const promiseSuite = (name: string, config: () => RotifConfig): void => {
  describe(`rotif/promise, on ${name}`, () => {
    const settled = (subscription: Subscription, messages: number) =>
      until(() => subscription.stats().messages === messages && subscription.stats().pending === 0)

    describe("subscribeBatch", () => {
      it("hands out full batches at once, and acknowledges them when the handler ends", async () => {
        const manager = managed(config())
        const seen: Array<ReadonlyArray<unknown>> = []
        const subscription = await manager.subscribeBatch("rows", async (messages) => {
          seen.push(messages.map(({ payload }) => payload))
          return messages.map(({ id }) => id)
        }, { group: "warehouse", size: 3, within: 3_600_000 })
        await manager.publishBatch([1, 2, 3, 4, 5, 6].map((payload) => ({ channel: "rows", payload })))
        await settled(subscription, 6)
        assert.deepStrictEqual(seen, [[1, 2, 3], [4, 5, 6]])
      })

      it("hands out what has come `within` the time", async () => {
        const manager = managed(config())
        const seen: Array<number> = []
        const subscription = await manager.subscribeBatch("rows", (messages) => void seen.push(messages.length), {
          size: 100,
          within: 50
        })
        await manager.publishBatch([1, 2].map((payload) => ({ channel: "rows", payload })))
        await settled(subscription, 2)
        assert.deepStrictEqual(seen, [2])
      })

      it("settles each message by its own ack, retry and reject, also when the handler throws", async () => {
        const manager = managed(config())
        const seen: Array<string> = []
        const subscription = await manager.subscribeBatch("rows", async (messages) => {
          seen.push(messages.map(({ attempt, payload }) => `${payload}${attempt}`).join(" "))
          for (const message of messages) {
            if (message.payload === "ack") await message.ack()
            if (message.payload === "reject") await message.reject("no good")
            if (message.payload === "retry" && message.attempt === 1) await message.retry(1)
          }
          if (messages.some(({ payload, attempt }) => payload === "rest" && attempt === 1)) throw new Error("later")
        }, { size: 4, within: 20, retryDelay: 5 })
        await manager.publishBatch(["ack", "reject", "retry", "rest"].map((payload) => ({ channel: "rows", payload })))
        await settled(subscription, 3)
        assert.strictEqual(seen[0], "ack1 reject1 retry1 rest1")
        assert.deepStrictEqual(seen.slice(1).join(" ").split(" ").toSorted(), ["rest2", "retry2"])
        assert.deepStrictEqual((await manager.getDLQMessages()).map(({ payload, error }) => [payload, error]), [
          ["reject", "no good"]
        ])
      })

      it("a bad message ends as the only dead letter, and so does an UnrecoverableError", async () => {
        for (const failure of [new Error("bad"), new UnrecoverableError("bad")]) {
          const manager = managed(config())
          const subscription = await manager.subscribeBatch("rows", async (messages) => {
            if (messages.some(({ payload }) => payload === 3)) throw failure
          }, { size: 8, within: 10, retryDelay: 1, maxRetries: 3 })
          await manager.publishBatch([0, 1, 2, 3, 4, 5, 6, 7].map((payload) => ({ channel: "rows", payload })))
          await settled(subscription, 7)
          await until(() => subscription.stats().failures === 1)
          assert.deepStrictEqual((await manager.getDLQMessages()).map(({ payload }) => payload), [3])
        }
      })

      it("runs the hooks for each message", async () => {
        const manager = managed(config())
        const told: Array<string> = []
        manager.use({
          beforeProcess: (message) => {
            told.push(`before ${message.payload}`)
            if (message.payload === "no") throw new Error("not this one")
          },
          afterProcess: (message) => void told.push(`after ${message.payload}`),
          onError: (message) => void told.push(`error ${message.payload}`)
        })
        const seen: Array<unknown> = []
        const subscription = await manager.subscribeBatch("rows", (messages) => {
          seen.push(...messages.map(({ payload }) => payload))
        }, { size: 3, within: 20, maxRetries: 0 })
        await manager.publishBatch(["a", "no", "b"].map((payload) => ({ channel: "rows", payload })))
        await settled(subscription, 2)
        await until(() => subscription.stats().failures === 1)
        assert.deepStrictEqual(seen, ["a", "b"])
        assert.deepStrictEqual(told.toSorted(), [
          "after a",
          "after b",
          "before a",
          "before b",
          "before no",
          "error no"
        ])
      })

      it("refuses by name what cannot be used", async () => {
        const manager = managed(config())
        const refused = async (options: object) =>
          (await failure(manager.subscribeBatch("rows", () => {}, options as never)) as InvalidOption).option
        assert.strictEqual(await refused({}), "size")
        assert.strictEqual(await refused({ size: 0 }), "size")
        assert.strictEqual(await refused({ size: 1, within: -1 }), "within")
        assert.strictEqual(await refused({ size: 1, by: "key" }), "by")
        assert.strictEqual(await refused({ size: 1, group: "a", groupName: "b" }), "groupName")
        assert.strictEqual(
          (await failure(manager.subscribe("rows", () => {}, { size: 1 } as never)) as InvalidOption).option,
          "size"
        )
      })
    })

    describe("publish", () => {
      it("carries every JSON value as it is", async () => {
        const manager = managed(config())
        const payloads = [null, "", 0, false, -0.5, "ä\u0000", [], {}, { a: [1, { b: null }] }, [null, [[]]]]
        const seen: Array<unknown> = []
        await manager.subscribe("values", async (message) => void seen.push(message.payload))
        for (const payload of payloads) await manager.publish("values", payload)
        await until(() => seen.length === payloads.length)
        assert.deepStrictEqual(seen, payloads)
      })

      it("takes a durability, and says that a message is stored which is less durable than that", async () => {
        const manager = managed({ ...config(), durability: { replicas: 1, timeout: 20 } })
        const seen: Array<unknown> = []
        await manager.subscribe("values", async (message) => void seen.push(message.payload))
        // The memory has nothing to wait for; this Redis has no replica.
        const told = (published: Promise<unknown>) =>
          published.then(() => "stored", (error: Error) => `${error.name}: ${error.message}`)
        assert.match(
          await told(manager.publish("values", 1)),
          /^stored$|^DurabilityNotReached: the message \S+ for "values" is stored/
        )
        assert.strictEqual(await told(manager.publish("values", 2, { durability: false })), "stored")
        const wrong = await failure(manager.publish("values", 3, { durability: { replicas: -1 } }))
        assert.match(wrong.message, /"durability/)
        await until(() => seen.length === 2)
        assert.deepStrictEqual(seen, [1, 2])
      })

      it("stores a value as JSON.stringify writes it: dates as text, nothing for undefined", async () => {
        const manager = managed(config())
        const seen: Array<unknown> = []
        await manager.subscribe("values", async (message) => void seen.push(message.payload))
        await manager.publish("values", { at: new Date(0), none: undefined })
        await until(() => seen.length === 1)
        assert.deepStrictEqual(seen, [{ at: "1970-01-01T00:00:00.000Z" }])
      })

      it("refuses a value without a JSON form, and stores nothing", async () => {
        const manager = managed(config())
        const seen: Array<unknown> = []
        await manager.subscribe("values", async (message) => void seen.push(message.payload))
        const circular: Record<string, unknown> = {}
        circular["self"] = circular
        for (const [payload, why] of [[circular, /circular/], [1n, /BigInt/], [{ n: [1n] }, /BigInt/]] as const) {
          const error = await failure(manager.publish("values", payload))
          assert.match(error.message, /the payload for "values" cannot be stored as JSON/)
          assert.match(error.message, why)
        }
        for (const payload of [undefined, () => {}, Symbol("x")]) {
          assert.match((await failure(manager.publish("values", payload))).message, /has no JSON form/)
        }
        const batch = [{ channel: "values", payload: 1 }, { channel: "values", payload: 1n }]
        assert.match((await failure(manager.publishBatch(batch))).message, /BigInt/)
        await manager.publish("values", "last")
        await until(() => seen.length > 0)
        assert.deepStrictEqual(seen, ["last"])
      })

      it("tells a duplicate by its key, or by channel and payload whatever the order of keys", async () => {
        const manager = managed(config())
        const seen: Array<unknown> = []
        const subscription = await manager.subscribe("orders", async (message) => void seen.push(message.payload))
        const once = { exactlyOnce: true }
        const id = await manager.publish("orders", { a: 1, b: { c: 2, d: 3 } }, once)
        assert.notStrictEqual(id, "DUPLICATE")
        assert.strictEqual(await manager.publish("orders", { b: { d: 3, c: 2 }, a: 1 }, once), "DUPLICATE")
        assert.notStrictEqual(await manager.publish("refunds", { a: 1, b: { c: 2, d: 3 } }, once), "DUPLICATE")
        assert.notStrictEqual(await manager.publish("orders", { a: 2 }, { ...once, dedupKey: "k" }), "DUPLICATE")
        assert.strictEqual(await manager.publish("orders", { a: 3 }, { dedupKey: "k" }), "DUPLICATE")
        assert.notStrictEqual(await manager.publish("orders", { a: 3 }), "DUPLICATE")
        assert.notStrictEqual(await manager.publish("orders", { a: 3 }), "DUPLICATE")
        await settled(subscription, 4)
        assert.deepStrictEqual(seen, [{ a: 1, b: { c: 2, d: 3 } }, { a: 2 }, { a: 3 }, { a: 3 }])
      })

      it("forgets a duplicate after its time", async () => {
        const manager = managed({ ...config(), deduplicationTTL: 0.05 })
        await manager.publish("orders", 1, { exactlyOnce: true })
        await manager.publish("orders", 1, { exactlyOnce: true, dedupKey: "k", deduplicationTTL: 1000 })
        await until(async () => await manager.publish("orders", 1, { exactlyOnce: true }) !== "DUPLICATE")
        assert.strictEqual(await manager.publish("orders", 1, { dedupKey: "k", deduplicationTTL: 1000 }), "DUPLICATE")
      })

      it("remembers a duplicate as long as the manager says, also longer than a week", async () => {
        const month = 30 * 86_400
        const manager = managed({ ...config(), deduplicationTTL: month })
        await manager.publish("orders", 1, { exactlyOnce: true })
        assert.strictEqual(await manager.publish("orders", 1, { exactlyOnce: true }), "DUPLICATE")
        const error = await failure(manager.publish("orders", 1, { dedupKey: "k", deduplicationTTL: 2 * month }))
        assert.strictEqual((error as InvalidOption).option, "deduplicationTTL")
      })

      it("asks generateDedupKey where no key is given", async () => {
        const manager = managed({ ...config(), generateDedupKey: ({ channel, payload }) => `${channel}/${payload.id}` })
        await manager.publish("orders", { id: 1, at: 1 }, { exactlyOnce: true })
        assert.strictEqual(await manager.publish("orders", { id: 1, at: 2 }, { exactlyOnce: true }), "DUPLICATE")
        assert.notStrictEqual(await manager.publish("orders", { id: 1 }, { dedupKey: "other" }), "DUPLICATE")
      })

      it("publishBatch: results in order, duplicates among them", async () => {
        const manager = managed(config())
        const seen: Array<string> = []
        await manager.subscribe("*", async (message) => void seen.push(`${message.channel} ${message.payload}`))
        const once = { exactlyOnce: true }
        const results = await manager.publishBatch([
          { channel: "a", payload: 1, options: once },
          { channel: "b", payload: 1 },
          { channel: "a", payload: 1, options: once },
          { channel: "a", payload: 2, options: { headers: { h: "1" } } }
        ])
        assert.lengthOf(results, 4)
        assert.strictEqual(results[2], "DUPLICATE")
        assert.strictEqual(new Set(results).size, 4)
        await until(() => seen.length === 3)
        assert.deepStrictEqual(seen.filter((line) => line.startsWith("a")), ["a 1", "a 2"])
        assert.deepStrictEqual(await manager.publishBatch([]), [])
      })

      it("publishBatch: says for each message of each channel whether it is stored", async () => {
        const manager = managed({ ...config(), maxPayloadBytes: 100 })
        const error = await failure(manager.publishBatch([
          { channel: "a", payload: 1 },
          { channel: "b", payload: "x".repeat(200) },
          { channel: "a", payload: 2 }
        ]))
        assert.instanceOf(error, PublishIncomplete)
        assert.match(error.message, /^1 of 3 messages were not stored; the first: a message for "b" is \d+ bytes long/)
        const [first, large, last] = error.results
        assert.instanceOf(large, PayloadTooLarge)
        const seen: Array<string> = []
        await manager.subscribe("*", async ({ id }) => void seen.push(id))
        await until(() => seen.length === 2)
        assert.deepStrictEqual(seen, [first, last])
      })

      it("a rejected call is an error of this API, and shows the code that awaited it", async () => {
        const manager = managed({ ...config(), maxPayloadBytes: 100 })
        const placeOrder = async () => {
          await manager.publish("orders", "x".repeat(200))
        }
        const error = await failure(placeOrder())
        assert.instanceOf(error, RotifError)
        assert.instanceOf(error, PayloadTooLarge)
        assert.match(error.stack!, /^PayloadTooLarge: a message for "orders".*\n(.*\n)?    at (async )?placeOrder /)
      })

      it("refuses a name or an option that cannot be used, naming it", async () => {
        const manager = managed(config())
        assert.match((await failure(manager.publish("a..b", 1))).message, /"a\.\.b"/)
        const wrong = { delayMS: 5 } as PublishOptions
        assert.strictEqual(
          (await failure(manager.publish("a", 1, wrong))).message,
          "publish: there is no option \"delayMS\"; did you mean \"delayMs\"?"
        )
        assert.match((await failure(manager.publish("a", 1, { delayMs: Number.NaN }))).message, /"delayMs"/)
        assert.match((await failure(manager.publish("a", 1, { deliverAt: "soon" }))).message, /at/)
      })
    })

    describe("subscribe", () => {
      it("hands over id, channel, payload, timestamp, attempt, headers and group", async () => {
        const manager = managed(config())
        const seen: Array<RotifMessage> = []
        const from = Date.now()
        await manager.subscribe("orders.*", async (message) => void seen.push(message), { groupName: "billing" })
        const id = await manager.publish("orders.placed", { n: 1 }, { headers: { trace: "t" } })
        await until(() => seen.length === 1)
        const { attempt, channel, group, headers, payload, timestamp } = seen[0]!
        assert.deepStrictEqual(
          { id: seen[0]!.id, attempt, channel, group, headers, payload },
          { id, attempt: 1, channel: "orders.placed", group: "billing", headers: { trace: "t" }, payload: { n: 1 } }
        )
        assert.closeTo(timestamp, from, 60_000)
      })

      it("names a group grp:pattern unless something says otherwise", async () => {
        const manager = managed(config())
        assert.strictEqual((await manager.subscribe("orders.*", () => {})).group, "grp:orders.*")
        assert.strictEqual((await manager.subscribe("orders.*", () => {}, { group: "g" })).group, "g")
      })

      it("acknowledges on success without ack, and takes ack twice", async () => {
        const manager = managed(config())
        const plain = await manager.subscribe("a", () => "anything")
        const twice = await manager.subscribe("b", async ({ ack }) => {
          await ack()
          await ack()
        })
        await manager.publish("a", 1)
        await manager.publish("b", 1)
        await settled(plain, 1)
        await settled(twice, 1)
      })

      it("a handler that throws after ack has acknowledged", async () => {
        const manager = managed({ ...config(), retryDelay: 1 })
        let attempts = 0
        const subscription = await manager.subscribe("a", async (message) => {
          attempts++
          await message.ack()
          throw new Error("too late")
        })
        await manager.publish("a", 1)
        await settled(subscription, 1)
        assert.strictEqual(attempts, 1)
        assert.strictEqual((await manager.getDLQStats()).totalMessages, 0)
      })

      it("retry: again as the next attempt, after the given delay, and within maxRetries", async () => {
        const manager = managed({ ...config(), retryDelay: 60_000, maxRetries: 2 })
        const seen: Array<number> = []
        await manager.subscribe("a", async (message) => {
          seen.push(message.attempt)
          await message.retry(5)
        })
        await manager.publish("a", 1)
        await until(async () => (await manager.getDLQStats()).totalMessages === 1)
        assert.deepStrictEqual(seen, [1, 2, 3])
        const [letter] = await manager.getDLQMessages()
        assert.match(letter!.error, /asked for a retry/)
      })

      it("reject and the error class: to the dead letters at once", async () => {
        const manager = managed({ ...config(), retryDelay: 1 })
        let attempts = 0
        await manager.subscribe("a", async (message) => {
          attempts++
          if (message.payload === "reject") await message.reject("not for us")
          else if (message.payload === "class") throw new UnrecoverableError("never")
          else throw new (class OurError extends Reject {})("nor this")
        })
        for (const payload of ["reject", "class", "subclass"]) await manager.publish("a", payload)
        await until(async () => (await manager.getDLQStats()).totalMessages === 3)
        assert.strictEqual(attempts, 3)
        assert.deepStrictEqual(
          (await manager.getDLQMessages()).map(({ error, payload, reason }) => ({ error, payload, reason }))
            .toReversed(),
          [
            { error: "not for us", payload: "reject", reason: "term" },
            { error: "never", payload: "class", reason: "term" },
            { error: "nor this", payload: "subclass", reason: "term" }
          ]
        )
      })

      it("takes whatever a handler throws, also at once and also no Error", async () => {
        const manager = managed({ ...config(), retryDelay: 1, maxRetries: 0 })
        await manager.subscribe("a", (message) => {
          switch (message.payload) {
            case 0:
              throw new Error("at once")
            case 1:
              return Promise.reject("text")
            default:
              // oxlint-disable-next-line typescript/only-throw-error -- users do
              throw null
          }
        })
        for (const n of [0, 1, 2]) await manager.publish("a", n)
        await until(async () => (await manager.getDLQStats()).totalMessages === 3)
        assert.deepStrictEqual((await manager.getDLQMessages()).map(({ error }) => error), ["null", "text", "at once"])
      })

      it.each<[string, SubscribeOptions, RotifConfig, ReadonlyArray<number>]>([
        ["a number", { retryDelay: 40 }, { retryDelay: 60_000 }, [40, 40, 40]],
        ["a function", { retryDelay: (attempt, { payload }) => attempt * payload }, {}, [20, 40, 60]],
        ["its own delay beats the manager's strategy", { retryDelay: 30 }, {
          retryStrategy: { strategy: "fixed", baseDelay: 60_000 }
        }, [30, 30, 30]],
        ["fixed", { retryStrategy: { strategy: "fixed", baseDelay: 30 } }, { retryDelay: 60_000 }, [30, 30, 30]],
        ["linear", { retryStrategy: { strategy: "linear", baseDelay: 20 } }, {}, [20, 40, 60]],
        [
          "exponential",
          { retryStrategy: { strategy: "exponential", baseDelay: 10, multiplier: 3, maxDelay: 50 } },
          {},
          [
            10,
            30,
            50
          ]
        ],
        ["fibonacci", {}, { retryStrategy: { strategy: "fibonacci", baseDelay: 20 } }, [20, 20, 40]],
        ["custom", { retryStrategy: { strategy: "custom", customDelayFn: (attempt) => 60 / attempt } }, {}, [
          60,
          30,
          20
        ]]
      ])("spaces retries: %s", async (_, own, shared, delays) => {
        const manager = managed({ ...config(), ...shared, maxRetries: 3 })
        const times: Array<number> = []
        await manager.subscribe("a", async () => {
          times.push(performance.now())
          throw new Error("no")
        }, own)
        await manager.publish("a", 20)
        await until(async () => (await manager.getDLQStats()).totalMessages === 1)
        assert.lengthOf(times, 4)
        // Never early; how late depends on the machine.
        for (const [i, delay] of delays.entries()) assert.isAtLeast(times[i + 1]! - times[i]!, delay - 3)
      })

      it("exactlyOnce: every accepted message is handled, also after its window, and a failure is no completion", async () => {
        const manager = managed({ ...config(), retryDelay: 1 })
        const seen: Array<string> = []
        const subscription = await manager.subscribe("a", async (message) => {
          seen.push(`${message.payload} ${message.attempt}`)
          if (message.attempt === 1) throw new Error("not yet")
        }, { exactlyOnce: true })
        // The publish remembers the key for a moment, the group for an hour.
        const again = () => manager.publish("a", "x", { dedupKey: "x", deduplicationTTL: 0.001 })
        const first = await again()
        await settled(subscription, 1)
        let second = "DUPLICATE"
        await until(async () => (second = await again()) !== "DUPLICATE")
        assert.notStrictEqual(second, first)
        await manager.publish("a", "y", { dedupKey: "1" })
        await manager.publish("a", "y", { dedupKey: "2" })
        await settled(subscription, 4)
        assert.strictEqual(subscription.stats().duplicates, 0)
        assert.deepStrictEqual(seen.toSorted(), ["x 1", "x 1", "x 2", "x 2", "y 1", "y 1", "y 2", "y 2"])
      })

      it("exactlyOnce: every accepted message is handled, at any interval between the publishes of a key", async () => {
        const window = 0.2
        const ways: ReadonlyArray<
          { readonly name: string; readonly own: RotifConfig; readonly options: PublishOptions }
        > = [
          { name: "content", own: {}, options: { exactlyOnce: true } },
          { name: "key", own: {}, options: { dedupKey: "k" } },
          { name: "generated", own: { generateDedupKey: () => "k" }, options: { exactlyOnce: true } }
        ]
        await Promise.all(ways.map(async ({ name, options, own }) => {
          const manager = managed({ ...config(), ...own, deduplicationTTL: window, lease: 100 })
          const seen: Array<string> = []
          await manager.subscribe("a", async (message) => void seen.push(message.id), { exactlyOnce: true, lease: 100 })
          const accepted: Array<string> = []
          for (const factor of [0, 0.9, 1.1, 1.9, 2.1, 1.1, 1.1, 5]) {
            await new Promise((resolve) => setTimeout(resolve, factor * window * 1000))
            const id = await manager.publish("a", "report", options)
            if (id !== "DUPLICATE") accepted.push(id)
          }
          assert.isAtLeast(accepted.length, 5, name)
          await until(() => seen.length >= accepted.length)
          assert.deepStrictEqual(seen, accepted, name)
        }))
      })

      it.each<[string, SubscribeOptions["startFrom"], ReadonlyArray<number>]>([
        ["nothing", undefined, [1, 2, 3]],
        ["earliest", "earliest", [1, 2, 3]],
        ["0", "0", [1, 2, 3]],
        ["latest", "latest", [3]],
        ["$", "$", [3]],
        ["a Date", new Date(0), [1, 2, 3]]
      ])("a new group starts where startFrom says: %s", async (_, startFrom, expected) => {
        const manager = managed(config())
        await manager.publish("a", 1)
        await manager.publish("a", 2)
        const seen: Array<number> = []
        await manager.subscribe("a", async (message) => void seen.push(message.payload), { startFrom })
        await manager.publish("a", 3)
        await until(() => seen.includes(3))
        assert.deepStrictEqual(seen, expected)
      })

      it("handles one at a time, in order, unless a concurrency is given", async () => {
        const manager = managed(config())
        const most = { one: 0, three: 0 }
        const running = { one: 0, three: 0 }
        const order: Array<number> = []
        let release = () => {}
        const gate = new Promise<void>((resolve) => {
          release = resolve
        })
        await manager.subscribe("a", async ({ payload }) => {
          most.one = Math.max(most.one, ++running.one)
          await new Promise(setImmediate)
          order.push(payload)
          running.one--
        }, { group: "one" })
        await manager.subscribe("a", async () => {
          most.three = Math.max(most.three, ++running.three)
          if (running.three === 3) release()
          await gate
          running.three--
        }, { group: "three", concurrency: 3 })
        for (let n = 0; n < 9; n++) await manager.publish("a", n)
        await until(() => order.length === 9 && running.three === 0)
        assert.deepStrictEqual(most, { one: 1, three: 3 })
        assert.deepStrictEqual(order, [0, 1, 2, 3, 4, 5, 6, 7, 8])
      })

      it("localRoundRobin: nothing waits behind a handler while another one of the group is free", async () => {
        const manager = managed({ ...config(), localRoundRobin: true })
        const gate = Promise.withResolvers<void>()
        const handled: Array<string> = []
        let isFirst = true
        for (const name of ["one", "two"]) {
          await manager.subscribe("a", async ({ payload }) => {
            if (isFirst) {
              isFirst = false
              await gate.promise
            }
            handled.push(`${name} ${payload}`)
          }, { group: "g" })
        }
        for (let n = 0; n < 6; n++) await manager.publish("a", n)
        await until(() => handled.length === 5)
        gate.resolve()
        await until(() => handled.length === 6)
        assert.strictEqual(new Set(handled.slice(0, 5).map((line) => line.split(" ")[0])).size, 1)
      })

      it("pause takes no more, resume goes on", async () => {
        const manager = managed(config())
        const seen: Array<number> = []
        const subscription = await manager.subscribe("a", async ({ payload }) => void seen.push(payload))
        assert.isFalse(subscription.isPaused)
        await subscription.pause()
        assert.isTrue(subscription.isPaused)
        await manager.publish("a", 1)
        const other: Array<number> = []
        await manager.subscribe("a", async ({ payload }) => void other.push(payload), { group: "other" })
        await until(() => other.length === 1)
        assert.deepStrictEqual(seen, [])
        await subscription.resume()
        await until(() => seen.length === 1)
      })

      it("unsubscribe ends it; the group goes on where it was", async () => {
        const manager = managed(config())
        const seen: Array<string> = []
        const first = await manager.subscribe("a", async ({ payload }) => void seen.push(`first ${payload}`))
        await manager.publish("a", 1)
        await settled(first, 1)
        await first.unsubscribe()
        assert.deepStrictEqual(manager.getSubscriptions(), [])
        await manager.publish("a", 2)
        const second = await manager.subscribe("a", async ({ payload }) => void seen.push(`second ${payload}`))
        await settled(second, 1)
        assert.deepStrictEqual(seen, ["first 1", "second 2"])
      })

      it("counts messages, retries, failures, and knows the last", async () => {
        const manager = managed({ ...config(), maxRetries: 1, retryDelay: 1 })
        const subscription = await manager.subscribe("a", async ({ attempt, payload }) => {
          if (payload === "never" || (payload === "later" && attempt === 1)) throw new Error("no")
        })
        assert.deepStrictEqual(subscription.stats(), {
          messages: 0,
          duplicates: 0,
          retries: 0,
          failures: 0,
          pending: 0,
          lastMessageAt: undefined
        })
        for (const payload of ["now", "later", "never"]) await manager.publish("a", payload)
        await until(() => subscription.stats().messages === 2 && subscription.stats().failures === 1)
        const { failures, lastMessageAt, messages, pending, retries } = subscription.stats()
        assert.deepStrictEqual({ failures, messages, pending, retries }, {
          failures: 1,
          messages: 2,
          pending: 0,
          retries: 2
        })
        assert.closeTo(lastMessageAt!, Date.now(), 60_000)
        const { group, id, pattern } = subscription
        assert.deepStrictEqual(manager.getSubscriptionStats(), [{ id, pattern, group, ...subscription.stats() }])
      })

      it("refuses a pattern or an option that cannot be used, naming it", async () => {
        const manager = managed(config())
        assert.match((await failure(manager.subscribe("a*", () => {}))).message, /"a\*"/)
        const wrong = { retries: 5 } as SubscribeOptions
        assert.strictEqual(
          (await failure(manager.subscribe("a", () => {}, wrong))).message,
          "subscribe: there is no option \"retries\"; did you mean \"maxRetries\"?"
        )
        assert.match((await failure(manager.subscribe("a", () => {}, { concurrency: 0 }))).message, /"concurrency"/)
        assert.deepStrictEqual(manager.getSubscriptions(), [])
      })
    })

    describe("use", () => {
      it("runs hooks in order, for subscriptions that run already too", async () => {
        const manager = managed(config())
        const calls: Array<string> = []
        const subscription = await manager.subscribe("a", async () => void calls.push("handler"))
        for (const name of ["first", "second"]) {
          manager.use({
            beforePublish: async () => void calls.push(`${name} beforePublish`),
            afterPublish: (_channel, _payload, id) => calls.push(`${name} afterPublish ${typeof id}`),
            beforeProcess: () => calls.push(`${name} beforeProcess`),
            afterProcess: async () => void calls.push(`${name} afterProcess`)
          })
        }
        await manager.publish("a", 1)
        await settled(subscription, 1)
        const steps = (phase: string) => calls.filter((call) => call.includes(phase))
        assert.deepStrictEqual(steps("beforePublish"), ["first beforePublish", "second beforePublish"])
        assert.deepStrictEqual(steps("afterPublish"), ["first afterPublish string", "second afterPublish string"])
        assert.deepStrictEqual(calls.filter((call) => !call.includes("Publish")), [
          "first beforeProcess",
          "second beforeProcess",
          "handler",
          "first afterProcess",
          "second afterProcess"
        ])
      })

      it("beforePublish may change the message", async () => {
        const manager = managed(config())
        manager.use({
          beforePublish: (_, payload) => {
            payload.stamped = true
          }
        })
        const seen: Array<unknown> = []
        await manager.subscribe("a", async ({ payload }) => void seen.push(payload))
        await manager.publish("a", { n: 1 })
        await until(() => seen.length === 1)
        assert.deepStrictEqual(seen, [{ n: 1, stamped: true }])
      })

      it("hooks around publishing may publish: these messages pass no hooks", async () => {
        const manager = managed(config())
        const seen: Array<string> = []
        manager.use({
          beforePublish: async (channel) => void await manager.publish("audit", `before ${channel}`),
          afterPublish: async (channel) =>
            void await manager.publishBatch([{ channel: "audit", payload: `after ${channel}` }])
        })
        await manager.subscribe("audit", async ({ payload }) => void seen.push(payload))
        await manager.publish("a", 1)
        await manager.publish("b", 2)
        await until(() => seen.length === 4)
        assert.deepStrictEqual(seen, ["before a", "after a", "before b", "after b"])
      })

      it("messages that a hook of one manager publishes through another one pass the hooks of that one", async () => {
        const [first, second] = [managed(config()), managed(config())]
        const seen: Array<string> = []
        first.use({ afterPublish: async (_, payload) => void await second.publish("audit", `of ${payload}`) })
        second.use({
          beforePublish: async (channel, payload) => {
            seen.push(`${channel}: ${payload}`)
            await first.publish("other", 1)
          }
        })
        await first.publish("a", "x")
        assert.deepStrictEqual(seen, ["audit: of x"])
      })

      it("a subscription made by a hook is inside of no hook: publishes of its handler and its hooks pass the hooks", async () => {
        const manager = managed(config())
        const seen: Array<string> = []
        let isSubscribed = false
        manager.use({
          beforePublish: async (channel) => {
            seen.push(channel)
            if (isSubscribed) return
            isSubscribed = true
            await manager.subscribe("a", () => manager.publish("b", 1))
          },
          afterProcess: () => manager.publish("c", 1)
        })
        await manager.publish("a", 1)
        await until(() => seen.length === 3)
        assert.deepStrictEqual(seen, ["a", "b", "c"])
      })

      it("hooks that throw afterwards neither repeat nor lose a message, nor keep others from running", async () => {
        const lines: Array<string> = []
        const manager = managed({
          ...config(),
          retryDelay: 1,
          logger: { ...console, error: (line) => lines.push(line) }
        })
        const boom = () => {
          throw new Error("hook")
        }
        const calls: Array<string> = []
        manager.use({ afterPublish: boom, afterProcess: async () => boom(), onError: boom })
        manager.use({ afterProcess: () => calls.push("after"), onError: () => calls.push("error") })
        let attempts = 0
        const subscription = await manager.subscribe("a", async ({ attempt }) => {
          attempts++
          if (attempt === 1) throw new Error("not yet")
        })
        await manager.publish("a", 1)
        await settled(subscription, 1)
        assert.strictEqual(attempts, 2)
        assert.deepStrictEqual(calls, ["error", "after"])
        assert.lengthOf(lines.filter((line) => line.includes("hook")), 3)
      })

      it("beforeProcess that throws is a failure of the attempt", async () => {
        const manager = managed({ ...config(), retryDelay: 1 })
        const seen: Array<number> = []
        manager.use({
          beforeProcess: ({ attempt }) => {
            if (attempt < 3) throw new Error("not ready")
          }
        })
        const subscription = await manager.subscribe("a", async ({ attempt }) => void seen.push(attempt))
        await manager.publish("a", 1)
        await settled(subscription, 1)
        assert.deepStrictEqual(seen, [3])
      })
    })

    describe("dead letters", () => {
      /** Three dead letters, or as many of them as are kept. */
      const dead = async (options: RotifConfig = {}, kept = 3) => {
        const manager = managed({ ...config(), maxRetries: 0, ...options })
        for (const channel of ["a", "b"]) {
          await manager.subscribe(channel, async ({ payload }) => {
            throw new Error(`no ${payload}`)
          })
        }
        for (const [channel, n] of [["a", 1], ["b", 2], ["a", 3]] as const) {
          await manager.publish(channel, n)
          await until(async () => (await manager.getDLQStats()).totalMessages >= Math.min(n, kept))
        }
        return manager
      }

      it("getDLQStats counts them by channel and knows the first and the last", async () => {
        const manager = await dead()
        const { messagesByChannel, newestMessage, oldestMessage, totalMessages } = await manager.getDLQStats()
        assert.deepStrictEqual({ messagesByChannel, totalMessages }, {
          messagesByChannel: { a: 2, b: 1 },
          totalMessages: 3
        })
        assert.isAtMost(oldestMessage!, newestMessage!)
        assert.closeTo(newestMessage!, Date.now(), 60_000)
        assert.strictEqual(await manager.clearDLQ(), 3)
        assert.deepStrictEqual(await manager.getDLQStats(), {
          totalMessages: 0,
          messagesByChannel: {},
          oldestMessage: undefined,
          newestMessage: undefined
        })
      })

      it("getDLQMessages: the newest first, by channel, in pages, by age", async () => {
        const manager = await dead()
        const errors = async (...args: Parameters<typeof manager.getDLQMessages>) =>
          (await manager.getDLQMessages(...args)).map(({ error }) => error)
        assert.deepStrictEqual(await errors(), ["no 3", "no 2", "no 1"])
        assert.deepStrictEqual(await errors({ channel: "a" }), ["no 3", "no 1"])
        assert.deepStrictEqual(await errors({ limit: 1, offset: 1 }), ["no 2"])
        assert.deepStrictEqual(await errors({ limit: 0 }), [])
        assert.deepStrictEqual(await errors({ maxAge: 60_000 }), ["no 3", "no 2", "no 1"])
        const [{ age, attempt, channel, group, payload }] = await manager.getDLQMessages() as [never]
        assert.deepStrictEqual({ attempt, channel, group, payload }, {
          attempt: 1,
          channel: "a",
          group: "grp:a",
          payload: 3
        })
        assert.isAtLeast(age, 0)
      })

      it("getDLQMessages: by group, reason and error, the oldest first where asked for", async () => {
        const manager = managed(config())
        class Declined extends Error {
          override readonly name = "Declined"
        }
        await manager.subscribe("a", ({ payload, reject }) => {
          if (payload === 1) throw new Declined("no money")
          return reject("not ours")
        }, { group: "billing", maxRetries: 0 })
        await manager.subscribe("a", ({ reject }) => reject("never"), { group: "mail" })
        await manager.publishBatch([{ channel: "a", payload: 1 }, { channel: "a", payload: 2 }])
        await until(async () => (await manager.getDLQMessages()).length === 4)
        const payloads = async (query: DlqQuery) =>
          (await manager.getDLQMessages(query)).map(({ group, payload }) => `${group} ${payload}`)
        assert.deepStrictEqual(await payloads({ group: "billing", order: "oldest" }), ["billing 1", "billing 2"])
        assert.deepStrictEqual(await payloads({ group: "billing" }), ["billing 2", "billing 1"])
        assert.deepStrictEqual(await payloads({ reason: "exhausted" }), ["billing 1"])
        assert.deepStrictEqual(await payloads({ errorName: "Declined" }), ["billing 1"])
        assert.deepStrictEqual(await payloads({ group: "mail", reason: "exhausted" }), [])
      })

      it("one dead letter: it is found, requeued as it is or with another payload, and removed", async () => {
        const manager = managed(config())
        const seen: Array<unknown> = []
        await manager.subscribe("a", ({ payload, reject }) => {
          seen.push(payload)
          return payload === "good" ? undefined : reject("bad")
        })
        const letterOf = async (payload: unknown) => {
          const is = (letter: DlqMessage) => letter.payload === payload
          await until(async () => (await manager.getDLQMessages()).some(is))
          return (await manager.getDLQMessages()).find(is)!
        }
        await manager.publish("a", 1)
        const first = await letterOf(1)
        const found = await manager.getDLQMessage(first.letterId)
        assert.deepStrictEqual({ ...found, age: 0 }, { ...first, age: 0 })
        assert.strictEqual(first.error, "bad")
        assert.isTrue(await manager.requeueDLQMessage(first.letterId))
        assert.isFalse(await manager.requeueDLQMessage(first.letterId))
        assert.isUndefined(await manager.getDLQMessage(first.letterId))
        const second = await letterOf(1)
        assert.isTrue(await manager.requeueDLQMessage(second.letterId, { payload: "good" }))
        await until(() => seen.length === 3)
        assert.deepStrictEqual(seen, [1, 1, "good"])
        await manager.publish("a", 2)
        const third = await letterOf(2)
        assert.isTrue(await manager.removeDLQMessage(third.letterId))
        assert.isFalse(await manager.removeDLQMessage(third.letterId))
        assert.deepStrictEqual(await manager.getDLQMessages(), [])
      })

      it("requeueFromDLQ takes the oldest, and tells how many", async () => {
        const manager = await dead()
        for (const subscription of manager.getSubscriptions()) await subscription.pause()
        assert.strictEqual(await manager.requeueFromDLQ(0), 0)
        assert.strictEqual(await manager.requeueFromDLQ(2), 2)
        assert.deepStrictEqual((await manager.getDLQMessages()).map(({ payload }) => payload), [3])
        assert.strictEqual(await manager.requeueFromDLQ(), 1)
        assert.strictEqual(await manager.requeueFromDLQ(), 0)
      })

      it("cleanupDLQ deletes the oldest of too many, through the archive", async () => {
        const cleanup = { maxSize: 1, cleanupInterval: 3_600_000, archiveBeforeDelete: true, archivePrefix: "archive" }
        const manager = await dead({ dlqCleanup: cleanup })
        const archived: Array<number> = []
        const ids: Array<string> = []
        await manager.subscribe("archive", async ({ id, payload }) => {
          ids.push(id)
          archived.push(payload.payload)
        })
        assert.strictEqual(await manager.cleanupDLQ(), 2)
        await until(() => archived.length === 2)
        assert.deepStrictEqual(archived, [1, 2])
        // The id of the dead letter: what is archived twice is there once.
        for (const id of ids) assert.match(id, /^0:/)
        assert.deepStrictEqual((await manager.getDLQMessages()).map(({ payload }) => payload), [3])
        assert.strictEqual(await manager.cleanupDLQ(), 0)
      })

      it("dead letters end by themselves, or never; cleanupDLQ acts on the limits in either case", async () => {
        const swift = await dead({ dlqCleanup: { maxSize: 2, cleanupInterval: 10, enabled: true } }, 2)
        await until(async () => (await swift.getDLQMessages()).map(({ payload }) => payload).join() === "3,2")
        const never = await dead({ dlqCleanup: { maxSize: 1, maxAge: 0, cleanupInterval: 10, enabled: false } })
        assert.strictEqual((await never.getDLQStats()).totalMessages, 3)
        assert.strictEqual(await never.cleanupDLQ(), 3)
      })

      it("an archived dead letter is no work of a wildcard, and is not archived again", async () => {
        const cleanup = { maxSize: 0, cleanupInterval: 3_600_000, archiveBeforeDelete: true }
        const manager = managed({ ...config(), maxRetries: 0, dlqCleanup: cleanup })
        const seen: Array<unknown> = []
        await manager.subscribe("**", async ({ payload }) => {
          seen.push(payload)
          throw new Error("no")
        })
        await manager.publish("a", 1)
        await until(async () => (await manager.getDLQStats()).totalMessages === 1)
        assert.strictEqual(await manager.cleanupDLQ(), 1)
        const archived: Array<unknown> = []
        await manager.subscribe("dlq-archive", async ({ payload }) => {
          archived.push(payload)
          throw new Error("no")
        }, { group: "archivist" })
        await until(async () => (await manager.getDLQStats()).totalMessages === 1)
        assert.strictEqual(await manager.cleanupDLQ(), 1)
        await manager.publish("b", 2)
        await until(() => seen.length === 2)
        assert.deepStrictEqual(seen, [1, 2])
        assert.lengthOf(archived, 1)
      })

      it("an archive under a name of one's own is not archived again, wherever its wildcard leads", async () => {
        const cleanup = { maxSize: 0, cleanupInterval: 10, archiveBeforeDelete: true, archivePrefix: "attic" }
        const manager = managed({ ...config(), maxRetries: 0, dlqCleanup: cleanup })
        const channels: Array<string> = []
        await manager.subscribe("**", async ({ channel }) => {
          channels.push(channel)
          throw new Error("no")
        })
        await manager.publish("a", 1)
        await until(async () => channels.length === 2 && (await manager.getDLQStats()).totalMessages === 0)
        await manager.publish("b", 2)
        await until(async () => channels.length === 4 && (await manager.getDLQStats()).totalMessages === 0)
        assert.deepStrictEqual(channels, ["a", "attic", "b", "attic"])
      })

      it("subscribeToDLQ: a letter is offered again after an exception and after retry; reject keeps it", async () => {
        const manager = await dead()
        const seen: Array<string> = []
        await manager.subscribeToDLQ(async (message) => {
          seen.push(`${message.group} ${message.payload} ${message.error}`)
          if (message.payload === 1) await message.ack()
          else if (message.payload === 2) await message.reject()
          else if (seen.filter((line) => line.includes(" 3 ")).length === 1) await message.retry(1)
          else await message.ack()
        })
        await until(() => seen.length === 4)
        await until(async () => (await manager.getDLQStats()).totalMessages === 1)
        assert.deepStrictEqual(seen, ["grp:a 1 no 1", "grp:b 2 no 2", "grp:a 3 no 3", "grp:a 3 no 3"])
      })
    })

    describe("the end", () => {
      it("stopAll drains, may be called again, and everything else rejects afterwards", async () => {
        const manager = managed({ ...config(), drainTimeout: 10_000 })
        let finish = () => {}
        let isFinished = false
        await manager.subscribe("a", async () => {
          await new Promise<void>((resolve) => {
            finish = resolve
          })
          isFinished = true
        })
        await manager.publish("a", 1)
        await until(() => manager.getSubscriptions()[0]!.stats().pending === 1)
        const stopped = manager.stopAll()
        const again = manager.stopAll()
        finish()
        await Promise.all([stopped, again, manager.stopAll()])
        assert.isTrue(isFinished)
        for (
          const call of [
            () => manager.publish("a", 1),
            () => manager.publishBatch([]),
            () => manager.subscribe("a", () => {}),
            () => manager.subscribeToDLQ(() => {}),
            () => manager.waitUntilReady(),
            () => manager.requeueFromDLQ()
          ]
        ) {
          assert.instanceOf(await failure(call()), ManagerStopped)
        }
        assert.strictEqual((await manager.getHealthStatus()).status, "unhealthy")
        assert.deepStrictEqual(manager.getSubscriptions(), [])
      })

      it("a handler that runs when stopAll is called may still publish", async () => {
        const manager = managed({ ...config(), drainTimeout: 10_000 })
        let go = () => {}
        const published: Array<string> = []
        await manager.subscribe("a", async () => {
          await new Promise<void>((resolve) => {
            go = resolve
          })
          published.push(await manager.publish("b", 1), ...await manager.publishBatch([{ channel: "b", payload: 2 }]))
        })
        await manager.publish("a", 1)
        await until(() => manager.getSubscriptions()[0]!.stats().pending === 1)
        const stopped = manager.stopAll()
        assert.match((await failure(manager.subscribe("b", () => {}))).message, /is stopped/)
        go()
        await stopped
        assert.lengthOf(published, 2)
      })

      it("reports failures of messages to the log by default, or at another level, not at all, or to a function", async () => {
        const told = async (options: RotifConfig) => {
          const lines: Array<string> = []
          const at = (level: string) => (line: string) => void lines.push(`${level} ${line}`)
          const logger = { debug: () => {}, info: at("info"), warn: at("warn"), error: at("error") }
          const manager = managed({ ...config(), maxRetries: 0, logger, ...options })
          await manager.subscribe("jobs", () => Promise.reject(new TypeError("no such field")), { group: "workers" })
          const id = await manager.publish("jobs", 1)
          await until(async () => (await manager.getDLQStats()).totalMessages === 1)
          await manager.stopAll()
          return lines.filter((line) => line.includes(id))
        }
        const [line, ...more] = await told({})
        assert.deepStrictEqual(more, [])
        assert.match(
          line!,
          /^warn rotif: message .* "jobs" .* "workers" \(attempt 1\) .* exhausted: TypeError: no such field$/
        )
        assert.match((await told({ reports: "error" })).join(), /^error rotif: message/)
        assert.deepStrictEqual(await told({ reports: false }), [])
        const got: Array<unknown> = []
        await told({
          reports: async ({ attempt, channel, group, kind, reason, tag }) =>
            void got.push({ attempt, channel, group, kind, reason, tag })
        })
        assert.deepStrictEqual(got, [
          { attempt: 1, channel: "jobs", group: "workers", kind: "DeadLetter", reason: "exhausted", tag: "TypeError" }
        ])
      })

      it("console.log shows a message and a dead letter, and nothing of how they work", async () => {
        const manager = managed({ ...config(), maxRetries: 0 })
        const texts: Array<string> = []
        await manager.subscribe("a", async (message) => {
          texts.push(inspect(message))
          throw new Error("no")
        }, { group: "g" })
        await manager.subscribeToDLQ(async (letter) => void texts.push(inspect(letter)))
        const id = await manager.publish("a", { order: 7 }, { headers: { h: "1" } })
        await until(() => texts.length === 2)
        for (const text of texts) {
          assert.match(text, new RegExp(`id: '${id}'`))
          assert.include(text, "order: 7")
          assert.notMatch(text, /Function|effect/)
        }
      })

      it("lastMessageAt is of messages that were handled", async () => {
        const manager = managed({ ...config(), maxRetries: 0 })
        const subscription = await manager.subscribe("a", async ({ payload }) => {
          if (payload === "bad") throw new Error("no")
        })
        await manager.publish("a", "bad")
        await until(() => subscription.stats().failures === 1)
        assert.isUndefined(subscription.stats().lastMessageAt)
        await manager.publish("a", "good")
        await until(() => subscription.stats().messages === 1)
        assert.closeTo(subscription.stats().lastMessageAt!, Date.now(), 60_000)
      })

      it("stopAll of a manager that did nothing", async () => {
        await new NotificationManager(config()).stopAll()
      })

      it("pauses, lists, resumes and removes groups; a wrong option is refused", async () => {
        const manager = managed(config())
        const seen: Array<unknown> = []
        const subscription = await manager.subscribe("a", ({ payload }) => void seen.push(payload), { group: "g" })
        await manager.pauseGroup("g", { reason: "migration", by: "ops" })
        await until(() => manager.isGroupQuiet("g"))
        await manager.publish("a", 1)
        const [group] = await manager.listGroups()
        assert.deepInclude(group, { group: "g", patterns: ["a"], lag: 1, pending: 0, isPaused: true })
        assert.deepInclude(group!.pauses[0], { pattern: "**", reason: "migration", by: "ops", until: undefined })
        assert.deepStrictEqual(group!.consumers, [{ id: subscription.id, isAlive: true }])
        assert.deepStrictEqual(seen, [])
        assert.deepStrictEqual(await manager.resumeGroup("g", { pattern: "a" }), [])
        assert.lengthOf(await manager.resumeGroup("g"), 1)
        await until(async () => seen.length === 1)
        assert.deepStrictEqual(await manager.removeGroup("g"), ["a"])
        assert.strictEqual((await subscription.ended)?._tag, "GroupRemoved")
        assert.deepStrictEqual(await manager.listGroups(), [])
        for (
          const [option, call] of [
            ["reason", () => manager.pauseGroup("g", {} as { reason: string })],
            ["untl", () => manager.pauseGroup("g", { reason: "x", untl: 1 } as { reason: string })],
            ["until", () => manager.pauseGroup("g", { reason: "x", until: 1 })],
            ["pattern", () => manager.resumeGroup("g", { pattern: "a..b" })],
            ["source", () => manager.removeGroup("g", "a..b")]
          ] as const
        ) {
          const error = await failure(call())
          assert.deepStrictEqual([error.name, "option" in error && error.option], ["InvalidOption", option])
        }
      })

      it("verify and repair find nothing in a sound namespace; a wrong option is refused", async () => {
        const manager = managed({ ...config(), maxRetries: 0 })
        await manager.subscribe("a", () => Promise.reject(new Error("no")))
        await manager.publish("a", 1)
        await manager.publish("a", 2, { delayMs: 3_600_000 })
        await until(async () => (await manager.getHealthStatus()).deadLetters === 1)
        const { findings, isComplete, looked } = await manager.verify({ confirmAfter: 10 })
        assert.deepStrictEqual([findings, isComplete], [[], true])
        assert.deepInclude(looked, { channels: 1, groups: 1, waiting: 1, letters: 1 })
        assert.deepInclude(await manager.repair({ confirmAfter: 10 }), { repaired: [], left: [] })
        assert.match((await failure(manager.verify({ limit: 0 }))).message, /limit/)
      })

      it("getHealthStatus gives the running subscriptions and the dead letters", async () => {
        const manager = managed({ ...config(), maxRetries: 0 })
        const subscription = await manager.subscribe("a", () => Promise.reject(new Error("no")))
        await manager.publish("a", 1)
        await until(async () => (await manager.getHealthStatus()).deadLetters === 1)
        await subscription.pause()
        const { lastPingMs, ...status } = await manager.getHealthStatus()
        assert.isAtLeast(lastPingMs!, 0)
        assert.deepStrictEqual(status, {
          status: "healthy",
          connected: true,
          subscriptions: 1,
          paused: 1,
          deadLetters: 1,
          error: undefined
        })
      })
    })
  })
}
