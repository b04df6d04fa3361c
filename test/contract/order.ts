/** Order within one call: the first message of a key wins, and immediate messages are stored in their order. */
import { assert, describe } from "@effect/vitest"
import { Effect, Queue, Random, Schema } from "effect"
import { Channel, Publisher, Transaction } from "rotif"
import { type Backend, listen, promises, until } from "./kit.ts"

const Text = Channel.make("order.texts", { payload: Schema.String })
const Source = Channel.make("order.source", { payload: Schema.String })
const window = "1 hour"
const past = new Date(0)

interface Step {
  readonly options: Publisher.PublishOptions
  /** The window that must not be open for it to be accepted. */
  readonly key?: string
  readonly isLater?: true
}

/** Every way to publish, with keys that collide. */
const steps = (random: () => number): ReadonlyArray<Step> => {
  const key = () => "abc"[Math.floor(random() * 3)]!
  const kinds: ReadonlyArray<(index: number) => Step> = [
    () => ({ options: {} }),
    () => ({ options: { at: past } }),
    () => ({ options: { delay: 0 } }),
    () => ({ options: { delay: 300 }, isLater: true }),
    (index) => ({ options: { id: `own ${index}` } }),
    (index) => ({ options: { id: `own ${index}`, at: past } }),
    () => {
      const id = key()
      return { options: { id }, key: `id ${id}` }
    },
    () => {
      const id = key()
      return { options: { id, at: past }, key: `id ${id}` }
    },
    () => {
      const id = key()
      return { options: { id, delay: 300 }, key: `id ${id}`, isLater: true }
    },
    () => {
      const throttle = { key: key(), window } as const
      return { options: { throttle }, key: `throttle ${throttle.key}` }
    },
    () => {
      const throttle = { key: key(), window } as const
      return { options: { throttle, at: past }, key: `throttle ${throttle.key}` }
    },
    () => {
      const throttle = { key: key(), window } as const
      return { options: { throttle, delay: 300 }, key: `throttle ${throttle.key}`, isLater: true }
    }
  ]
  return Array.from({ length: 40 }, (_, index) => kinds[Math.floor(random() * kinds.length)]!(index))
}

/** The expected messages, each by its index in the call. Those that are due in the same millisecond have no order. */
const expected = (all: ReadonlyArray<Step>) => {
  const keys = new Set<string>()
  const accepted = all.map(({ key }) => key === undefined || keys.size < keys.add(key).size)
  const places = [...all.keys()].filter((index) => accepted[index])
  const later = places.filter((index) => all[index]!.isLater)
  return { accepted, atOnce: places.filter((index) => !all[index]!.isLater).map(String), later: later.map(String) }
}

const check = (
  payloads: ReadonlyArray<string>,
  { atOnce, later }: ReturnType<typeof expected>,
  all: ReadonlyArray<Step>
) => {
  assert.deepStrictEqual(payloads.slice(0, atOnce.length), atOnce, JSON.stringify(all))
  assert.deepStrictEqual(payloads.slice(atOnce.length).toSorted(), later.toSorted(), JSON.stringify(all))
}

export const orderSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("one call is one order", () => {
    test(
      "Publisher.publishAll: of one id or key the first is accepted, scheduled or not",
      Effect.gen(function*() {
        const first: Publisher.PublishOptions = { id: "x" }
        const later: Publisher.PublishOptions = { id: "x", delay: 50 }
        const cases: ReadonlyArray<readonly [string, ReadonlyArray<Publisher.PublishOptions>, string]> = [
          ["a scheduled one first", [later, first], "Scheduled"],
          ["a plain one first", [first, later], "Published"],
          ["a past one first", [{ id: "x", at: past }, first, later], "Published"],
          [
            "throttled",
            [{ throttle: { key: "k", window } }, { throttle: { key: "k", window }, delay: 50 }],
            "Published"
          ],
          [
            "throttled later",
            [{ throttle: { key: "k", window }, delay: 50 }, { throttle: { key: "k", window } }],
            "Scheduled"
          ]
        ]
        for (const [index, [what, options, tag]] of cases.entries()) {
          const Own = Channel.make(`order.own${index}`, { payload: Schema.String })
          const receipts = yield* Publisher.publishAll(Own, options.map((_, i) => `${i}`), (_, i) => options[i]!)
          const tags = receipts.map(({ _tag }) => _tag)
          assert.deepStrictEqual(tags, [tag, ...options.slice(1).map(() => "Duplicate")], what)
          const { seen } = yield* listen(Own)
          assert.strictEqual((yield* soon(Queue.take(seen))).payload, "0", what)
        }
      })
    )

    test(
      "Publisher.publishAll: immediate messages keep their order, with any others between",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const random = yield* Random.Random
        const all = steps(() => random.nextDoubleUnsafe())
        const wanted = expected(all)
        const receipts = yield* Publisher.publishAll(Text, all.map((_, i) => `${i}`), (_, i) => all[i]!.options)
        assert.deepStrictEqual(receipts.map(({ _tag }) => _tag !== "Duplicate"), wanted.accepted, JSON.stringify(all))
        const messages = yield* soon(Queue.takeN(seen, wanted.atOnce.length + wanted.later.length))
        check(messages.map(({ payload }) => payload), wanted, all)
      })
    )

    test(
      "Publisher.publishAll: of one debounce key the last counts",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const debounce = { key: "k", delay: 100 }
        const options: ReadonlyArray<Publisher.PublishOptions> = [{ debounce }, {}, { debounce }, { at: past }, {
          debounce
        }]
        yield* Publisher.publishAll(Text, options.map((_, i) => `${i}`), (_, i) => options[i]!)
        assert.deepStrictEqual((yield* soon(Queue.takeN(seen, 3))).map(({ payload }) => payload), ["1", "3", "4"])
      })
    )

    test(
      "Transaction: what it publishes is stored in its order",
      Effect.gen(function*() {
        const random = yield* Random.Random
        const all = steps(() => random.nextDoubleUnsafe())
        const wanted = expected(all)
        // On a Cluster they may lie in several shards.
        const targets = [Text, Channel.make("order.other", { payload: Schema.String })] as const
        const { subscription } = yield* listen(Source, {
          transactional: true,
          handler: () =>
            Effect.forEach(
              targets,
              (target) =>
                Effect.forEach(all.keys(), (i) => Transaction.publish(target, `${i}`, all[i]!.options), {
                  discard: true
                })
            )
        })
        yield* Publisher.publish(Source, "go")
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 1))
        for (const target of targets) {
          const { seen } = yield* listen(target)
          const messages = yield* soon(Queue.takeN(seen, wanted.atOnce.length + wanted.later.length))
          check(messages.map(({ payload }) => payload), wanted, all)
        }
      })
    )
  })
}
