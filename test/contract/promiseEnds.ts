/** Ends in the Promise API: all callers, also inside of handlers and hooks, wait for the same end, and running calls finish. */
import { assert, describe, it } from "@effect/vitest"
import { ManagerStopped, type NotificationManager } from "rotif/promise"
import type { backends } from "./promiseKit.ts"
import { managed, until } from "./promiseKit.ts"

/** A promise with its `resolve`. */
const gate = () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { promise, open: () => resolve() }
}

export const promiseEndsSuite = ({ config, name }: (typeof backends)[number]): void => {
  describe(`rotif/promise, on ${name}: ends`, () => {
    it("unsubscribe and then stopAll: both wait for the handler that runs", async () => {
      const manager = managed({ ...config(), drainTimeout: 60_000 })
      const { open, promise } = gate()
      const ended: Array<string> = []
      const subscription = await manager.subscribe("a", async () => {
        await promise
        ended.push("handler")
      })
      await manager.publish("a", 1)
      await until(() => subscription.stats().pending === 1)
      const all = [
        subscription.unsubscribe().then(() => ended.push("unsubscribe")),
        subscription.unsubscribe({ removeGroup: true }).then(() => ended.push("removeGroup")),
        manager.stopAll().then(() => ended.push("stopAll"))
      ]
      await new Promise(setImmediate)
      assert.deepStrictEqual(ended, [])
      open()
      await Promise.all(all)
      assert.strictEqual(ended[0], "handler")
      assert.sameMembers(ended, ["handler", "unsubscribe", "removeGroup", "stopAll"])
      assert.strictEqual(subscription.stats().messages, 1)
    })

    it("inside of a handler: stopAll waits for everything else, and the message is acknowledged", async () => {
      const settings = config()
      const manager = managed({ ...settings, drainTimeout: 60_000 })
      const { open, promise } = gate()
      const order: Array<string> = []
      const long = await manager.subscribe("long", async () => {
        await promise
        order.push("long")
      })
      const subscription = await manager.subscribe("a", async (message) => {
        if (message.payload === "other") {
          await promise
          order.push("other")
          return
        }
        await subscription.unsubscribe()
        order.push("unsubscribed")
        await manager.stopAll()
        order.push("stopped")
        await manager.publish("last", "from the handler")
        order.push("published")
      }, { concurrency: 2, group: "a" })
      await manager.publish("a", "other")
      await manager.publish("a", "ends")
      await manager.publish("long", 1)
      await until(() => long.stats().pending + subscription.stats().pending === 3)
      open()
      await until(() => order.includes("published"))
      await manager.stopAll()
      assert.sameMembers(order.slice(0, 3), ["long", "other", "unsubscribed"])
      assert.deepStrictEqual(order.slice(3), ["stopped", "published"])
      assert.deepStrictEqual([long.stats().messages, subscription.stats().messages], [1, 2])
      if (settings.redis === "memory") return
      const next = managed(settings)
      const again: Array<unknown> = []
      for (const channel of ["a", "last"]) {
        await next.subscribe(channel, (message) => again.push(message.payload), { group: "a" })
      }
      await until(() => again.length > 0)
      assert.deepStrictEqual(again, ["from the handler"])
    })

    for (const hook of ["beforeProcess", "afterProcess", "onError"] as const) {
      it(`inside of the hook ${hook}`, async () => {
        const manager = managed({ ...config(), drainTimeout: 60_000 })
        const { open, promise } = gate()
        manager.use({
          [hook]: async () => {
            await manager.stopAll()
            open()
          }
        })
        const subscription = await manager.subscribe("a", () => {
          if (hook === "onError") throw new Error("no")
        }, { maxRetries: 0 })
        await manager.publish("a", 1)
        await promise
        await manager.stopAll()
        const { failures, messages } = subscription.stats()
        assert.deepStrictEqual([messages, failures], hook === "onError" ? [0, 1] : [1, 0])
      })
    }

    for (const place of ["handler", "beforeProcess", "afterProcess", "onError"] as const) {
      it(`stopAll outside first and then inside of ${place}: neither waits for the drainTimeout`, async () => {
        const manager = managed({ ...config(), drainTimeout: 60_000, maxRetries: 0 })
        const [began, goes] = [gate(), gate()]
        const stops = async () => {
          began.open()
          await goes.promise
          await manager.stopAll()
        }
        if (place !== "handler") manager.use({ [place]: stops })
        const subscription = await manager.subscribe("a", async () => {
          if (place === "handler") await stops()
          if (place === "onError") throw new Error("no")
        })
        await manager.publish("a", 1)
        await began.promise
        const from = performance.now()
        const outside = manager.stopAll()
        await new Promise(setImmediate)
        goes.open()
        await outside
        assert.isBelow(performance.now() - from, 10_000)
        const { failures, messages } = subscription.stats()
        assert.deepStrictEqual([messages, failures], place === "onError" ? [0, 1] : [1, 0])
      })
    }

    it("inside of a hook of a publish, which is finished", async () => {
      const manager = managed({ ...config(), drainTimeout: 60_000 })
      manager.use({ beforePublish: () => manager.stopAll() })
      const from = performance.now()
      assert.match(await manager.publish("a", 1), /./)
      await manager.stopAll()
      assert.isBelow(performance.now() - from, 5_000)
    })

    it("inside of a handler of dead letters, which acknowledges its letter", async () => {
      const settings = config()
      const manager = managed({ ...settings, drainTimeout: 60_000 })
      const { open, promise } = gate()
      await manager.subscribe("a", () => {
        throw new Error("no")
      }, { maxRetries: 0 })
      await manager.subscribeToDLQ(async (letter) => {
        await manager.stopAll()
        await letter.ack()
        open()
      })
      await manager.publish("a", 1)
      await promise
      await manager.stopAll()
      if (settings.redis === "memory") return
      assert.deepStrictEqual(await managed(settings).getDLQMessages(), [])
    })

    it("calls that have begun are finished, later ones are refused by ManagerStopped", async () => {
      const settings = config()
      const manager = managed({ ...settings })
      manager.use({ beforePublish: () => new Promise((resolve) => setImmediate(resolve)) })
      const begun = [
        ...Array.from({ length: 200 }, (_, i) => manager.publish("a", i)),
        manager.publishBatch([{ channel: "a", payload: "batch" }]),
        manager.getDLQMessages(),
        manager.requeueFromDLQ(),
        manager.verify()
      ]
      const stopped = manager.stopAll()
      const late: ReadonlyArray<(manager: NotificationManager) => Promise<unknown>> = [
        (manager) => manager.publish("a", "late"),
        (manager) => manager.publishBatch([{ channel: "a", payload: "late" }]),
        (manager) => manager.subscribe("a", () => {}),
        (manager) => manager.waitUntilReady()
      ]
      for (const call of late) {
        const error = await call(manager).then(() => undefined, (error: unknown) => error)
        assert.instanceOf(error, ManagerStopped)
      }
      const outcomes = await Promise.allSettled(begun)
      assert.deepStrictEqual(outcomes.filter(({ status }) => status === "rejected"), [])
      await stopped
      if (settings.redis === "memory") return
      const seen: Array<unknown> = []
      await managed(settings).subscribe("a", (message) => seen.push(message.payload))
      await until(() => seen.length >= 201)
      assert.sameMembers(seen, [...Array.from({ length: 200 }, (_, i) => i), "batch"])
    })

    it("outside of a handler a publish is refused while handlers finish, inside it is not", async () => {
      const manager = managed({ ...config(), drainTimeout: 60_000 })
      const { open, promise } = gate()
      const published: Array<string> = []
      const subscription = await manager.subscribe("a", async () => {
        await promise
        published.push(await manager.publish("b", 1))
      })
      await manager.publish("a", 1)
      await until(() => subscription.stats().pending === 1)
      const stopped = manager.stopAll()
      const refused = await manager.publish("b", 2).then(() => undefined, (error: unknown) => error)
      assert.instanceOf(refused, ManagerStopped)
      open()
      await stopped
      assert.strictEqual(published.length, 1)
    })
  })
}
