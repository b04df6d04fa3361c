/** Wrong values that code of the program gives to the Promise API at run time, on every backend. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { RotifConfig, RotifMessage } from "rotif/promise"
import { InvalidOption } from "rotif/promise"
import { managed, quiet, until } from "./promiseKit.ts"

const failure = (promise: Promise<unknown>): Promise<Error & { readonly option?: string }> =>
  promise.then((value) => assert.fail(`it did not fail, but gave ${JSON.stringify(value)}`), (error: Error) => error)

/** Passes a value that no type allows and JavaScript does. */
const any = (value: unknown) => value as never

const rejected = () => Promise.reject(new Error("nobody waits for this"))

const noKeys: ReadonlyArray<readonly [name: string, make: () => unknown]> = [
  ["undefined", () => undefined],
  ["an empty text", () => ""],
  ["a number", () => 7],
  ["an object", () => ({ id: 1 })],
  ["a Promise", () => Promise.resolve("key")],
  ["a rejected Promise", rejected],
  ["an error", () => {
    throw new Error("no key")
  }]
]

const noDelays: ReadonlyArray<readonly [name: string, value: () => unknown]> = [
  ["NaN", () => Number.NaN],
  ["a negative number", () => -1],
  ["Infinity", () => Infinity],
  ["a text", () => "1s"],
  ["an object", () => ({})],
  ["a Promise", () => Promise.resolve(1)],
  ["a rejected Promise", rejected]
]

const recorded = () => {
  const lines: Array<string> = []
  const write = (line: string) => void lines.push(line)
  return { lines, logger: { ...quiet, warn: write, error: write } }
}

class Priced {
  readonly cents = Number.NaN
}

const noPayloads: ReadonlyArray<readonly [name: string, make: () => unknown]> = [
  ["NaN", () => Number.NaN],
  ["Infinity", () => -Infinity],
  ["undefined", () => undefined],
  ["a function", () => (() => {})],
  ["a symbol", () => Symbol("x")],
  ["a BigInt", () => 1n],
  ["a Promise", () => Promise.resolve(1)],
  ["a Map", () => new Map([["a", 1]])],
  ["a Blob", () => new Blob(["a"])],
  ["a buffer", () => new ArrayBuffer(8)],
  ["a list of bytes", () => new Uint8Array(8)],
  ["an iterator inside", () => ({ lines: [1].values() })],
  ["a boxed NaN", () => ({ total: Object(Number.NaN) })],
  ["an invalid Date", () => new Date(Number.NaN)],
  ["NaN inside", () => ({ total: Number.NaN })],
  ["NaN in a class", () => new Priced()],
  ["undefined in a list", () => [1, undefined]],
  ["a function inside", () => ({ a: { save: () => {} } })],
  ["a Set inside", () => ({ tags: new Set(["a"]) })],
  ["an Error inside", () => ({ error: new Error("x") })],
  ["a rejected Promise inside", () => ({ later: rejected() })],
  ["NaN behind toJSON", () => ({ toJSON: () => ({ n: Number.NaN }) })]
]

export const promiseValuesSuite = (name: string, config: () => RotifConfig): void => {
  describe(`rotif/promise, on ${name}: values from code of the program`, () => {
    it.each(noKeys)("generateDedupKey gives %s: publish rejects, and nothing is stored", async (_, make) => {
      const manager = managed({ ...config(), generateDedupKey: any(make) })
      for (const payload of [1, 2]) {
        const error = await failure(manager.publish("a", payload, { exactlyOnce: true }))
        assert.instanceOf(error, InvalidOption)
        assert.strictEqual(error.option, "generateDedupKey")
      }
      const seen: Array<unknown> = []
      await manager.subscribe("a", (message) => void seen.push(message.payload))
      await manager.publish("a", "last")
      await until(() => seen.length > 0)
      assert.deepStrictEqual(seen, ["last"])
    })

    it.each(noKeys)("generateDedupKey gives %s: each message is an attempt that failed", async (_, make) => {
      const manager = managed({ ...config(), generateDedupKey: any(make), maxRetries: 0 })
      const seen: Array<unknown> = []
      const subscription = await manager.subscribe("a", (message) => void seen.push(message.payload), {
        exactlyOnce: true
      })
      for (const payload of [1, 2]) await manager.publish("a", payload)
      await until(() => subscription.stats().failures === 2)
      assert.deepStrictEqual(seen, [])
      const letters = await manager.getDLQMessages()
      assert.sameMembers(letters.map(({ payload }) => payload), [1, 2])
    })

    it.each(noKeys)("groupNameFn and consumerNameFn give %s: subscribe rejects by their names", async (_, make) => {
      for (const option of ["groupNameFn", "consumerNameFn"]) {
        const manager = managed({ ...config(), [option]: make })
        const error = await failure(manager.subscribe("a", () => {}))
        assert.instanceOf(error, InvalidOption)
        assert.strictEqual(error.option, option)
        assert.deepStrictEqual(manager.getSubscriptions(), [])
      }
    })

    it.each(noDelays)(
      "retryDelay, customDelayFn and retry() give %s: a second is waited, with a line",
      async (_, make) => {
        const settings: ReadonlyArray<RotifConfig & { readonly wish?: boolean }> = [
          { retryDelay: any(make) },
          { retryStrategy: { strategy: "custom", customDelayFn: any(make) } },
          { wish: true }
        ]
        await Promise.all(settings.map(async ({ wish, ...setting }) => {
          const { lines, logger } = recorded()
          const manager = managed({ ...config(), ...setting, logger })
          const times: Array<number> = []
          await manager.subscribe("a", async (message) => {
            times.push(performance.now())
            if (times.length > 1) return
            if (wish !== true) throw new Error("no")
            await message.retry(any(make()))
          })
          await manager.publish("a", 1)
          await until(() => times.length === 2)
          assert.isAtLeast(times[1]! - times[0]!, 900)
          assert.isTrue(lines.some((line) => line.includes("duration of 0 or more")))
        }))
      }
    )

    it.each(noPayloads)("%s is refused, and nothing is stored", async (_, make) => {
      const manager = managed(config())
      const seen: Array<unknown> = []
      await manager.subscribe("a", (message) => void seen.push(message.payload))
      const error = await failure(manager.publish("a", make()))
      assert.strictEqual(error.name, "InvalidPayload")
      assert.match(error.message, /cannot be stored as JSON: .*(no JSON form|BigInt)/)
      await manager.publish("a", "last")
      await until(() => seen.length > 0)
      assert.deepStrictEqual(seen, ["last"])
    })

    it("a handler, hooks and middleware that are none are refused by name", async () => {
      const manager = managed(config())
      for (const make of [() => undefined, () => null, () => ({}), () => "handler", rejected]) {
        const handler: unknown = make()
        assert.strictEqual((await failure(manager.subscribe("a", any(handler)))).option, "handler")
        assert.strictEqual((await failure(manager.subscribeToDLQ(any(handler)))).option, "handler")
      }
      const refusedBy = (middleware: unknown): string => {
        try {
          manager.use(any(middleware))
        } catch (error) {
          assert.instanceOf(error, InvalidOption)
          return error.option
        }
        return assert.fail("it was accepted")
      }
      assert.strictEqual(refusedBy({ beforePublish: "log" }), "beforePublish")
      assert.strictEqual(refusedBy({ beforeProces: () => {} }), "beforeProces")
      assert.strictEqual(refusedBy({ afterProcess: () => {}, onEror: () => {} }), "onEror")
      for (const none of [undefined, null, 5, () => {}, []]) assert.strictEqual(refusedBy(none), "the middleware")
      manager.use({ afterProcess: undefined })
      manager.use(
        new class {
          readonly count = () => 0
          afterProcess() {}
        }()
      )
      assert.deepStrictEqual(manager.getSubscriptions(), [])
    })

    it("a handler that returns an Effect which nothing runs fails, and is not taken for done", async () => {
      const undone: ReadonlyArray<readonly [handler: () => unknown, error: string]> = [
        [() => Effect.void, "Effect"],
        [async () => Effect.fail("no"), "Effect"],
        [function*() {
          yield 1
        }, "generator"],
        [async function*() {
          yield 1
        }, "generator"]
      ]
      for (const [handler, error] of undone) {
        const manager = managed({ ...config(), maxRetries: 0 })
        await manager.subscribe("a", handler)
        await manager.publish("a", 1)
        await until(async () => (await manager.getDLQMessages()).length === 1)
        assert.include((await manager.getDLQMessages())[0]!.error, error)
        manager.use({ beforePublish: handler })
        assert.include((await failure(manager.publish("a", 1))).message, error)
      }
    })

    it("any value may be thrown or given as a reason: all else goes on", async () => {
      const manager = managed({ ...config(), maxRetries: 0 })
      const handlers: ReadonlyArray<(message: RotifMessage) => unknown> = [
        () => {
          throw rejected()
        },
        (message) => message.reject(any(rejected())),
        (message) => message.reject(any({ code: 7 }))
      ]
      await manager.subscribe("a", (message) => handlers[message.payload]!(message))
      for (const i of handlers.keys()) await manager.publish("a", i)
      await until(async () => (await manager.getDLQMessages()).length === handlers.length)
      const letters = (await manager.getDLQMessages()).toSorted((a, b) => a.payload - b.payload)
      assert.strictEqual(letters[2]!.error, "{\"code\":7}")
    })

    it("a deduplicationTTL beyond the longest is refused by its name, whether it would be used or not", async () => {
      const manager = managed(config())
      const week = 7 * 86_400
      for (const more of [{ exactlyOnce: true }, { dedupKey: "k" }, {}]) {
        const options = { ...more, deduplicationTTL: week + 1 }
        assert.strictEqual((await failure(manager.publish("a", 1, options))).option, "deduplicationTTL")
        assert.strictEqual(
          (await failure(manager.publishBatch([{ channel: "a", payload: 1, options }]))).option,
          "deduplicationTTL"
        )
      }
      const longer = managed({ ...config(), deduplicationTTL: week + 1 })
      await longer.publish("a", 1, { exactlyOnce: true, deduplicationTTL: week + 1 })
    })

    it("a thrown value that is no Error is readable in the dead letter", async () => {
      const manager = managed({ ...config(), maxRetries: 0 })
      const thrown: ReadonlyArray<readonly [value: unknown, error: string]> = [
        [{ code: "E_CARD", message: "card declined" }, "card declined"],
        [{ code: 42, status: "busy" }, "{\"code\":42,\"status\":\"busy\"}"],
        ["only a text", "only a text"],
        [undefined, "undefined"]
      ]
      await manager.subscribe("a", ({ payload }) => Promise.reject(thrown[payload]![0]))
      for (const i of thrown.keys()) await manager.publish("a", i)
      await until(async () => (await manager.getDLQMessages()).length === thrown.length)
      const letters = (await manager.getDLQMessages()).toSorted((a, b) => a.payload - b.payload)
      assert.deepStrictEqual(letters.map(({ error }) => error), thrown.map(([, error]) => error))
    })

    it("a logger whose Promises are rejected, and hooks that throw, neither end the process nor lose a message", async () => {
      const manager = managed({
        ...config(),
        logger: { debug: rejected, info: rejected, warn: rejected, error: rejected }
      })
      manager.use({
        afterPublish: rejected,
        afterProcess: rejected,
        onError: () => {
          throw new Error("in a hook")
        }
      })
      const seen: Array<unknown> = []
      const subscription = await manager.subscribe("a", async ({ attempt, payload }) => {
        if (attempt === 1) throw new Error("first")
        seen.push(payload)
      }, { retryDelay: 1 })
      await manager.publish("a", 1)
      await manager.publish("a", 2)
      await until(() => subscription.stats().messages === 2)
      assert.sameMembers(seen, [1, 2])
    })

    it("an immediate retry is paced: a handler that always asks for it cannot make a busy loop", async () => {
      const manager = managed(config())
      let attempts = 0
      const from = performance.now()
      await manager.subscribe("a", async (message) => {
        attempts++
        await message.retry(0)
      }, { maxRetries: 100 })
      await manager.publish("a", 1)
      await until(() => attempts >= 9)
      // 0 + 0 + 0 + 10 + 20 + 40 + 80 + 160 ms
      assert.isAtLeast(performance.now() - from, 300)
    })

    it("arguments of another kind are refused by the names they have", async () => {
      const manager = managed(config())
      const cases: ReadonlyArray<readonly [option: string, call: () => Promise<unknown>]> = [
        ["pattern", () => manager.subscribe(any(5), () => {})],
        ["pattern", () => manager.subscribe(any(rejected()), () => {})],
        ["pattern", () => manager.subscribe("orders.{a,b}", () => {})],
        ["pattern", () => manager.subscribe("orders.?", () => {})],
        ["pattern", () => manager.subscribe("!orders", () => {})],
        ["pattern", () => manager.subscribe("orders.[ab]", () => {})],
        ["pattern", () => manager.subscribe("orders.@(a|b)", () => {})],
        ["messages", () => manager.publishBatch(any({ channel: "a", payload: 1 }))],
        ["messages[1]", () => manager.publishBatch(any([{ channel: "a", payload: 1 }, null]))],
        ["messages[0].chanel", () => manager.publishBatch(any([{ chanel: "a", payload: 1 }]))],
        ["count", () => manager.requeueFromDLQ(-1)],
        ["count", () => manager.requeueFromDLQ(any("10"))],
        ["count", () => manager.requeueFromDLQ(Number.NaN)],
        ["channel", () => manager.getDLQMessages({ channel: "orders.{a,b}" })],
        ["deliverAt", () => manager.publish("a", 1, { deliverAt: "2027-02-30" })],
        ["deliverAt", () => manager.publish("a", 1, { deliverAt: new Date(Number.NaN) })],
        ["deliverAt", () => manager.publish("a", 1, { deliverAt: 1, delayMs: 1 })],
        ["groupName", () => manager.subscribe("a", () => {}, { group: "x", groupName: "y" })],
        ["tolerance", () => manager.verify({ tolerance: Number.NaN })]
      ]
      for (const [option, call] of cases) assert.strictEqual((await failure(call())).option, option)
      assert.strictEqual((await failure(manager.publish(any(rejected()), 1))).option, "channel")
      assert.deepStrictEqual(manager.getSubscriptions(), [])
    })

    it("a negative delayMs means now, and harmless values are accepted", async () => {
      const unknown = { somethingElse: undefined }
      const manager = managed({
        ...config(),
        scheduledBatchSize: 10,
        pendingCheckInterval: 1000,
        pipelineBatchSize: 100,
        enableHealthCheck: true,
        retryStrategy: "linear",
        ...unknown
      })
      const seen: Array<RotifMessage> = []
      await manager.subscribe("a", (message) => void seen.push(message), {
        retryStrategy: { baseDelay: 1, jitter: 0.5 },
        ...unknown
      })
      await manager.publish("a", 1, { delayMs: -5, attempt: 3, ...unknown })
      await until(() => seen.length === 1)
      assert.strictEqual(seen[0]!.attempt, 1)
    })

    it("without a name a retryStrategy is exponential, and a name alone is one", async () => {
      for (const retryStrategy of [{ baseDelay: 50 }, { strategy: "exponential", baseDelay: 50 }] as const) {
        const manager = managed(config())
        const times: Array<number> = []
        await manager.subscribe("a", () => {
          times.push(performance.now())
          if (times.length < 4) throw new Error("no")
        }, { retryStrategy, maxRetries: 5 })
        await manager.publish("a", 1)
        await until(() => times.length === 4)
        for (const [i, least] of [50, 100, 200].entries()) assert.isAtLeast(times[i + 1]! - times[i]!, least - 2)
      }
    })

    it("unsubscribe(true) removes the group, as with removeGroup; without it the group stays", async () => {
      for (const argument of [true, { removeGroup: true }, false, { removeGroup: false }, undefined]) {
        const manager = managed(config())
        const seen: Array<unknown> = []
        const subscribe = () =>
          manager.subscribe("a", (message) => void seen.push(message.payload), { group: "g", startFrom: "latest" })
        const first = await subscribe()
        assert.strictEqual((await failure(first.unsubscribe(any({ removeGroup: "yes" })))).option, "removeGroup")
        assert.strictEqual((await failure(first.unsubscribe(any({ remove: true })))).option, "remove")
        await first.unsubscribe(argument)
        await manager.publish("a", "meanwhile")
        // A group that exists receives the messages published meanwhile; a new one begins with the next message.
        await subscribe()
        await manager.publish("a", "afterwards")
        await until(() => seen.includes("afterwards"))
        const isRemoved = argument === true || (typeof argument === "object" && argument.removeGroup)
        assert.deepStrictEqual(seen, isRemoved ? ["afterwards"] : ["meanwhile", "afterwards"])
      }
    })
  })
}
