/** Validators of channels in the Promise API: they are asked before a payload is stored, and before a handler gets it. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { RotifConfig, StandardSchema } from "rotif/promise"
import { InvalidPayload, NotificationManager } from "rotif/promise"
import { close, managed, quiet, until } from "./promiseKit.ts"

interface Order {
  readonly total: number
}

const wrong = (message: string, ...path: ReadonlyArray<PropertyKey>) => ({ issues: [{ message, path }] })

/** It makes a field of its own, so that what comes from it can be told from what is stored. */
const order: StandardSchema<Order, Order & { readonly isChecked: true }> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) =>
      typeof (value as Partial<Order>).total === "number"
        ? { value: { ...(value as Order), isChecked: true } }
        : wrong("must be a number", "total")
  }
}

const slow: StandardSchema<Order> = {
  "~standard": { version: 1, vendor: "test", validate: async (value) => order["~standard"].validate(value) }
}

const throwing: StandardSchema<Order> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: () => {
      throw new Error("out of order")
    }
  }
}

const channels = {
  "orders.placed": { schema: order },
  "orders.slow": { schema: slow },
  "orders.dated": { schema: Schema.toStandardSchemaV1(Schema.toCodecJson(Schema.Struct({ at: Schema.Date }))) }
}

const refusal = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => assert.fail("it was stored"), (error: unknown) => error)

export const promiseTypedSuite = (name: string, config: () => RotifConfig): void => {
  describe(`rotif/promise, on ${name}: validators of channels`, () => {
    const typed = (place: RotifConfig) => {
      const manager = new NotificationManager({ ...place, logger: quiet, channels })
      close(manager)
      return manager
    }

    it("hand to the handler what they make of the payload, by name and by pattern", async () => {
      const manager = typed(config())
      const seen: Array<unknown> = []
      await manager.subscribe("orders.placed", ({ payload }) => seen.push(payload.isChecked))
      await manager.subscribe("orders.*", (message) => {
        if (message.channel === "orders.dated") seen.push(message.payload.at.getTime())
        else seen.push(message.payload)
      })
      await manager.publish("orders.placed", { total: 1 })
      await until(() => seen.length === 2)
      assert.sameDeepMembers(seen, [true, { total: 1, isChecked: true }])
      await manager.publish("orders.dated", { at: "2027-01-01T00:00:00.000Z" })
      await manager.publish("orders.slow", { total: 3 })
      await until(() => seen.length === 4)
      assert.deepStrictEqual(seen.slice(2), [Date.UTC(2027), { total: 3, isChecked: true }])
    })

    it("refuse a payload before it is stored: publish rejects with their issues", async () => {
      const manager = typed(config())
      for (const channel of ["orders.placed", "orders.slow"] as const) {
        const error = await refusal(manager.publish(channel, { total: "1" } as unknown as Order))
        assert.instanceOf(error, InvalidPayload)
        assert.deepStrictEqual(error.issues, [{ message: "must be a number", path: ["total"] }])
        assert.strictEqual(
          error.message,
          `the payload for "${channel}" does not fit its schema: total: must be a number`
        )
      }
      const batch = await refusal(manager.publishBatch([
        { channel: "orders.placed", payload: { total: 1 } },
        { channel: "orders.slow", payload: {} as Order }
      ]))
      assert.instanceOf(batch, InvalidPayload)
      await manager.publish("orders.placed", { total: 2 })
      await manager.subscribe("orders.*", ({ reject }) => reject("seen"))
      await until(async () => (await manager.getDLQMessages()).length === 1)
      // Stored is what was given, not what the validator made of it.
      assert.deepStrictEqual((await manager.getDLQMessages()).map(({ payload }) => payload), [{ total: 2 }])
    })

    it("bury a stored payload that does not fit, with reason decode, and go on", async () => {
      let least = 0
      const check = (value: unknown) =>
        (value as Order).total < least ? wrong("is too small", "total") : { value: value as Order }
      const atLeast: StandardSchema<Order> = { "~standard": { version: 1, vendor: "test", validate: check } }
      const later: StandardSchema<Order> = {
        "~standard": { version: 1, vendor: "test", validate: async (value) => check(value) }
      }
      const manager = new NotificationManager({
        ...config(),
        logger: quiet,
        channels: { "orders.placed": { schema: atLeast }, "orders.slow": { schema: later } }
      })
      close(manager)
      for (const total of [1, 5]) {
        await manager.publish("orders.placed", { total })
        await manager.publish("orders.slow", { total })
      }
      // A new release of the program has a stricter schema.
      least = 3
      const seen: Array<unknown> = []
      await manager.subscribe("orders.*", ({ payload }) => void seen.push(payload), { group: "billing" })
      await until(async () => seen.length === 2 && (await manager.getDLQMessages()).length === 2)
      assert.deepStrictEqual(seen, [{ total: 5 }, { total: 5 }])
      for (const { attempt, error, payload, reason } of await manager.getDLQMessages()) {
        assert.deepStrictEqual([reason, attempt, payload], ["decode", 1, { total: 1 }])
        assert.include(error, "does not fit its schema: total: is too small")
      }
    })

    it("that throw refuse the payload", async () => {
      const manager = new NotificationManager({ ...config(), logger: quiet, channels: { a: { schema: throwing } } })
      close(manager)
      const error = await refusal(manager.publish("a", { total: 1 }))
      assert.instanceOf(error, InvalidPayload)
      assert.match(error.message, /the validator threw: out of order$/)
    })

    it("leave channels without one as they are, also those with names of Object.prototype", async () => {
      const manager = managed({ ...config(), channels })
      const seen: Array<unknown> = []
      await manager.subscribe("**", ({ payload }) => void seen.push(payload))
      await manager.publish("constructor", "x")
      await manager.publish("orders.other", 5)
      await until(() => seen.length === 2)
      assert.sameMembers(seen, ["x", 5])
    })
  })
}
