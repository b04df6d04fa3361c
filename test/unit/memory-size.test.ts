/** A broker in memory that holds very much: no operation looks at all of it, so that the event loop is not held up. */
import { assert, describe, it } from "@effect/vitest"
import type { NewMessage } from "../../src/Broker.ts"
import type { Lease, Owner } from "../../src/memoryBroker/group.ts"
import { Store } from "../../src/memoryBroker/store.ts"

const many = 200_000
const owner: Owner = {
  consumer: "c",
  settings: { leaseMillis: 30_000, doneMillis: undefined, maxCrashes: 3 },
  reads: () => true,
  patterns: [],
  keeps: [],
  heardAtMillis: 0
}

const publish = (store: Store, count: number, options: (i: number) => Partial<NewMessage> = () => ({})) => {
  for (let i = 0; i < count; i++) store.append({ id: `m${i}`, channel: "c", payload: "x", ...options(i) }, i + 1)
}

/** Delivers `count` messages of a channel. */
const take = (store: Store, channel: string, count: number) => {
  const group = store.register("g", [channel], [channel], { _tag: "Earliest" })
  const out: Array<Lease> = []
  group.cursors.get(channel)!.takeUnread(count, owner, 0, out)
  return out
}

const buried = () => {
  const store = new Store()
  publish(store, many)
  for (const lease of take(store, "c", many)) {
    store.release(lease, owner)
    store.bury(lease, { reason: "term", message: "x" }, 1)
  }
  return store
}

const millisOf = (run: () => void) => {
  const from = performance.now()
  run()
  return performance.now() - from
}

/** Many times the real duration, and a small part of the duration if each step read everything. */
const soonMillis = 2_000

describe("a broker in memory with very much in it", () => {
  it("removes and requeues single dead letters, and counts them", () => {
    const store = buried()
    const { letters } = store
    const took = millisOf(() => {
      for (let i = 0; i < 1_000; i++) {
        const [newest] = letters.list({ order: "newest", limit: 1 }, 10)
        const [oldest] = letters.list({ order: "oldest", limit: 1 }, 10)
        assert.deepStrictEqual(letters.remove([newest!.letterId]), [newest!.letterId])
        assert.deepStrictEqual(store.requeueLetters([{ letterId: oldest!.letterId }], 10), [oldest!.letterId])
        assert.isUndefined(letters.get(oldest!.letterId))
        assert.strictEqual(letters.counts()[0]!.count, many - 2 * (i + 1))
      }
    })
    assert.isBelow(took, soonMillis)
    assert.strictEqual(letters.size, many - 2_000)
  })

  it("purges all dead letters in pages", () => {
    const { letters } = buried()
    const took = millisOf(() => {
      while (letters.size > 0) {
        letters.remove(letters.list({ order: "oldest", limit: 100 }, 10).map((one) => one.letterId))
      }
    })
    assert.isBelow(took, soonMillis)
    assert.deepStrictEqual(letters.counts(), [])
  })

  it("moves a retry past scheduled messages that are due before it", () => {
    const store = new Store()
    publish(store, many, (i) => ({ due: { atMillis: 1_000_000 + i } }))
    publish(store, 1_000, () => ({ channel: "d" }))
    const leases = take(store, "d", 1_000)
    const took = millisOf(() => {
      for (const lease of leases) {
        store.release(lease, owner)
        store.redeliver(lease, 2, 2_000_000, 1)
      }
      for (let i = 0; i < 1_000; i++) assert.strictEqual(store.promote(1, 3_000_000, "retries").moved, 1)
    })
    assert.isBelow(took, soonMillis)
  })

  it("forgets windows and marks whose time is over in small steps, and uses none of them meanwhile", () => {
    const store = new Store()
    publish(store, many, (i) => ({ window: { key: `k${i}`, millis: 1_000_000 } }))
    const { marks } = store.register("g", ["c"], ["c"], { _tag: "Earliest" })
    for (let i = 0; i < many; i++) {
      const token = {}
      marks.begin(`k${i}`, token, 0, 1_000_000)
      marks.finish(`k${i}`, token, 0, 1_000_000)
    }
    const end = 5_000_000
    assert.strictEqual(
      store.append({ id: "again", channel: "c", payload: "x", window: { key: `k${many - 1}`, millis: 1 } }, end)._tag,
      "Stored"
    )
    assert.strictEqual(marks.begin(`k${many - 1}`, {}, end, end + 1), "mine")
    let steps = 1
    while (store.tidy(end)) steps++
    assert.isAtLeast(steps, many / 2_000)
  })

  it("lists scheduled messages in order, page by page", () => {
    const store = new Store()
    // In no order at all: the step has no divisor in common with their number.
    publish(store, 5_000, (i) => ({ due: { atMillis: 1_000_000 + Math.floor(((i * 3_331) % 5_000) / 3) } }))
    const all: Array<string> = []
    const dues: Array<number> = []
    let after: { dueAtMillis: number; channel: string; id: string } | undefined
    do {
      const page = store.scheduled.list(after, undefined, 70)
      all.push(...page.messages.map(({ id }) => id))
      dues.push(...page.messages.map(({ dueAtMillis }) => dueAtMillis))
      after = page.next
    } while (after !== undefined)
    assert.strictEqual(new Set(all).size, 5_000)
    assert.strictEqual(all.length, 5_000)
    assert.deepStrictEqual(dues, [...dues].sort((a, b) => a - b))
  })
})
