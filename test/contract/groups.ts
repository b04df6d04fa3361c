/** Groups across processes: a pause that is stored, the quiet of a group, and administration by name. */
import { assert, describe } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Fiber, Queue, Schema } from "effect"
import { Broker, Channel, Groups, Health, Publisher, Stats, Subscription } from "rotif"
import { type Backend, leftover, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("others", { payload: Schema.String })
const All = Channel.pattern("*", { payload: Schema.String })

const reason = "migration"

export const groupsSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { advance, soon } = backend

  const isQuiet = (group: string, options?: Groups.SelectOptions) => until(backend, Groups.isQuiet(group, options))
  const payloads = (messages: ReadonlyArray<{ readonly payload: string }>) => messages.map(({ payload }) => payload)

  /** A handler that ends when the test lets it, and the number of those that run. */
  const gate = Effect.gen(function*() {
    const open = yield* Deferred.make<void>()
    return { open: Deferred.succeed(open, undefined), handler: () => Deferred.await(open) }
  })

  describe("Groups.pause", () => {
    test(
      "stops every consumer of the group, and no other group; resume lets all go on",
      Effect.gen(function*() {
        const one = yield* listen(Text, { group: "g" })
        const two = yield* listen(Text, { group: "g" })
        const other = yield* listen(Text, { group: "other" })
        yield* Groups.pause("g", { reason, by: "ops" })
        yield* isQuiet("g")
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        assert.deepStrictEqual(payloads(yield* soon(Queue.takeN(other.seen, 3))), ["a", "b", "c"])
        yield* advance("200 millis")
        assert.deepStrictEqual([...yield* Queue.clear(one.seen), ...yield* Queue.clear(two.seen)], [])
        const ended = yield* Groups.resume("g")
        assert.deepStrictEqual(
          ended.map(({ by, group, pattern, reason, untilMillis }) => ({ by, group, pattern, reason, untilMillis })),
          [{ by: "ops", group: "g", pattern: "**", reason, untilMillis: undefined }]
        )
        const left = Effect.map(Effect.all([Queue.size(one.seen), Queue.size(two.seen)]), ([a, b]) => a + b === 3)
        yield* until(backend, left)
        yield* until(
          backend,
          Effect.map(leftover(Text), (found) => JSON.stringify(found) === JSON.stringify(nothingLeft))
        )
      })
    )

    test(
      "finishes what runs, and gives back what waits, without an attempt",
      Effect.gen(function*() {
        const { handler, open } = yield* gate
        const { seen } = yield* listen(Text, { group: "g", concurrency: 1, prefetch: 2, handler })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(Queue.take(seen))
        yield* Groups.pause("g", { reason })
        assert.isFalse(yield* Groups.isQuiet("g"))
        // Only the one that runs is still held.
        yield* until(backend, Effect.map(leftover(Text), ({ pending }) => pending === 1))
        assert.isFalse(yield* Groups.isQuiet("g"))
        yield* open
        yield* isQuiet("g")
        assert.strictEqual(yield* Queue.size(seen), 0)
        yield* Groups.resume("g")
        const back = yield* soon(Queue.takeN(seen, 2))
        assert.deepStrictEqual(payloads(back).toSorted(), ["b", "c"])
        assert.deepStrictEqual(back.map(({ attempt }) => attempt), [1, 1])
      })
    )

    test(
      "a consumer that starts while the group is paused joins and rests",
      Effect.gen(function*() {
        // The group does not exist yet.
        yield* Groups.pause("g", { reason })
        const { seen } = yield* listen(Text, { group: "g" })
        yield* Publisher.publish(Text, "a")
        yield* isQuiet("g")
        yield* advance("200 millis")
        assert.strictEqual(yield* Queue.size(seen), 0)
        yield* Groups.resume("g")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "a")
      })
    )

    test(
      "with a selector pauses these channels only",
      Effect.gen(function*() {
        const { seen } = yield* listen(All, { group: "g" })
        yield* Publisher.publish(Text, "a")
        yield* Publisher.publish(Other, "b")
        yield* soon(Queue.takeN(seen, 2))
        yield* Groups.pause("g", { reason, selector: Text })
        yield* isQuiet("g", { selector: Text })
        assert.isFalse(yield* Groups.isQuiet("g"))
        yield* Publisher.publish(Text, "c")
        yield* Publisher.publish(Other, "d")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "d")
        assert.strictEqual(yield* Queue.size(seen), 0)
        // Another selector is another pause.
        assert.deepStrictEqual(yield* Groups.resume("g", { selector: "*" }), [])
        assert.lengthOf(yield* Groups.resume("g", { selector: "texts" }), 1)
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "c")
      })
    )

    test(
      "ends by itself at `until`, by the clock of the backend",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { group: "g" })
        const now = yield* Clock.currentTimeMillis
        yield* Groups.pause("g", { reason, until: now + 2_000 })
        yield* isQuiet("g")
        yield* Publisher.publish(Text, "a")
        yield* advance("300 millis")
        assert.strictEqual(yield* Queue.size(seen), 0)
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "a")
        assert.isAtLeast(yield* Clock.currentTimeMillis, now + 1_950)
        assert.isFalse(yield* Groups.isQuiet("g"))
        assert.deepStrictEqual(yield* Groups.resume("g"), [])
      })
    )

    test(
      "handles retries that became ready while it was paused after it, within its concurrency",
      Effect.gen(function*() {
        let running = 0
        let most = 0
        const { seen } = yield* listen(Text, {
          group: "g",
          concurrency: 2,
          retry: "50 millis",
          handler: (message) =>
            message.attempt === 1 ? Effect.fail("again") : Effect.gen(function*() {
              most = Math.max(most, ++running)
              yield* Effect.sleep("10 millis")
              running--
            })
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 20 }, (_, i) => `${i}`))
        yield* soon(Queue.takeN(seen, 20))
        yield* Groups.pause("g", { reason })
        yield* isQuiet("g")
        yield* Queue.clear(seen)
        yield* advance("300 millis")
        // Promotion goes on: they are ready, and wait.
        yield* until(backend, Effect.map(leftover(Text), ({ waiting }) => waiting === 0))
        assert.strictEqual(yield* Queue.size(seen), 0)
        yield* Groups.resume("g")
        yield* until(backend, Effect.map(leftover(Text), ({ ready, pending }) => ready + pending === 0))
        assert.isAtMost(most, 2)
      })
    )

    test(
      "and the pause of a subscription hold together",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { group: "g" })
        yield* subscription.pause
        yield* Groups.pause("g", { reason })
        // A consumer that has not heard of the pause yet would read.
        yield* isQuiet("g")
        yield* Publisher.publish(Text, "a")
        yield* subscription.resume
        yield* advance("100 millis")
        assert.strictEqual(yield* Queue.size(seen), 0)
        yield* subscription.pause
        yield* Groups.resume("g")
        yield* advance("100 millis")
        assert.strictEqual(yield* Queue.size(seen), 0)
        yield* subscription.resume
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "a")
      })
    )

    test(
      "does not take over what a lost consumer held until it is resumed; until then the group is not quiet",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const lost = yield* broker.join({
          shard: broker.shardsOf(Channel.selector(Text))[0]!,
          group: "g",
          consumer: "lost",
          selector: Channel.selector(Text),
          start: { _tag: "Earliest" },
          leaseMillis: 300
        })
        yield* Publisher.publish(Text, "a")
        assert.lengthOf(yield* soon(lost.read(1, 5_000)), 1)
        yield* Groups.pause("g", { reason })
        const { seen } = yield* listen(Text, { group: "g", lease: 300 })
        yield* advance("900 millis")
        assert.strictEqual(yield* Queue.size(seen), 0)
        assert.isFalse(yield* Groups.isQuiet("g"))
        yield* Groups.resume("g")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "a")
      })
    )

    test(
      "gives a once begun message back: exactlyOnce does not count it as done",
      Effect.gen(function*() {
        const { handler, open } = yield* gate
        const { seen } = yield* listen(Text, { group: "g", exactlyOnce: true, prefetch: 2, handler })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(Queue.take(seen))
        yield* Groups.pause("g", { reason })
        yield* open
        yield* isQuiet("g")
        yield* Groups.resume("g")
        assert.deepStrictEqual(payloads(yield* soon(Queue.takeN(seen, 2))).toSorted(), ["b", "c"])
      })
    )

    test(
      "replaces a pause of the same selector, and refuses what cannot be used",
      Effect.gen(function*() {
        yield* Groups.pause("g", { reason: "one" })
        yield* Groups.pause("g", { reason: "two" })
        const wrong: ReadonlyArray<readonly [string, Groups.PauseOptions]> = [
          ["reason", { reason: "" }],
          ["by", { reason, by: "" }],
          ["until", { reason, until: 0 }],
          ["until", { reason, until: "soon" }],
          ["selector", { reason, selector: "a..b" }],
          ["selector", { reason, selector: 5 as unknown as string }],
          ["unitl", { reason, unitl: 5 } as Groups.PauseOptions]
        ]
        for (const [option, options] of wrong) {
          const error = yield* Effect.flip(Groups.pause("g", options))
          assert.deepInclude(error, { _tag: "InvalidGroupOption", option })
        }
        assert.strictEqual((yield* Effect.flip(Groups.pause("", { reason })))._tag, "InvalidGroupOption")
        assert.deepStrictEqual((yield* Groups.resume("g")).map(({ reason }) => reason), ["two"])
      })
    )
  })

  describe("Groups.pause: what others see", () => {
    test(
      "Health, Stats and list name who paused what and why, and the program is healthy",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { group: "g" })
        yield* Groups.pause("g", { reason, by: "ops" })
        yield* isQuiet("g")
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* advance("50 millis")
        const { paused, reasons, status } = yield* Health.check
        assert.deepStrictEqual({ reasons, status }, { reasons: [], status: "healthy" })
        const expected = { group: "g", pattern: "**", reason, by: "ops", untilMillis: undefined }
        assert.lengthOf(paused, 1)
        assert.deepInclude(paused[0], expected)
        const stats = yield* Stats.channels(Text)
        assert.deepInclude(stats[0]!.groups[0]!.pause, expected)
        assert.deepInclude(Stats.ofGroup(stats, "g")!.pauses[0], expected)
        const [group] = yield* Groups.list
        assert.deepInclude(group, { group: "g", isPaused: true, lag: 2, pending: 0, sources: ["texts"] })
        assert.deepInclude(group!.pauses[0], expected)
        yield* Groups.resume("g")
        yield* soon(Queue.takeN(seen, 2))
        yield* until(backend, Effect.map(Health.check, ({ paused }) => paused.length === 0))
        assert.isUndefined((yield* Stats.channels(Text))[0]!.groups[0]!.pause)
      }),
      { health: { maxLag: 1, maxAge: 10 } }
    )
  })

  describe("Subscription: pauseWhen", () => {
    test(
      "a storm of dead letters pauses its own group, with the reason; resume begins the count anew",
      Effect.gen(function*() {
        const storm = yield* listen(Text, {
          group: "g",
          maxRetries: 0,
          pauseWhen: { dead: 3, within: "1 minute" },
          handler: () => Effect.fail("broken")
        })
        const other = yield* listen(Text, { group: "other", maxRetries: 0, handler: () => Effect.fail("broken") })
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* soon(Queue.takeN(storm.seen, 2))
        assert.deepStrictEqual(yield* Groups.resume("g"), [])
        yield* Publisher.publishAll(Text, ["c", "d", "e"])
        yield* until(backend, Effect.map(Groups.list, (groups) => groups.some(({ isPaused }) => isPaused)))
        yield* soon(Queue.takeN(other.seen, 5))
        const paused = (yield* Groups.list).filter(({ pauses }) => pauses.length > 0)
        assert.deepStrictEqual(paused.map(({ group }) => group), ["g"])
        const [pause] = paused[0]!.pauses
        assert.deepInclude(pause, { pattern: "texts", reason: "3 dead letters within 1m" })
        assert.include(pause!.by, "pauseWhen")
        yield* isQuiet("g")
        yield* Groups.resume("g")
        yield* Queue.clear(storm.seen)
        yield* Publisher.publishAll(Text, ["f", "g"])
        yield* soon(Queue.takeN(storm.seen, 2))
        yield* advance("100 millis")
        assert.deepStrictEqual((yield* Groups.list).flatMap(({ pauses }) => pauses), [])
      })
    )

    test(
      "counts each letter once, letters of all processes, and only those within the time",
      Effect.gen(function*() {
        const { groups } = yield* Broker.Broker
        const count = (letters: ReadonlyArray<string>) =>
          groups.countLetters({ group: "g", letters, withinMillis: 400, most: 3 })
        assert.strictEqual(yield* count(["a"]), 1)
        assert.strictEqual(yield* count(["a"]), 1)
        assert.strictEqual(yield* count(["b", "c", "d", "e"]), 3)
        yield* advance("500 millis")
        assert.strictEqual(yield* count(["f"]), 1)
      })
    )
  })

  describe("Groups.list and remove", () => {
    test(
      "list names groups with and without consumers, with what they read and what waits",
      Effect.gen(function*() {
        yield* Effect.scoped(listen(Text, { group: "gone" }))
        const { subscription } = yield* listen(All, { group: "here" })
        yield* Publisher.publish(Text, "a")
        yield* until(backend, Effect.map(Stats.channels(Text), (found) => Stats.ofGroup(found, "here")?.lag === 0))
        const [gone, here] = yield* Groups.list
        assert.deepInclude(gone, {
          group: "gone",
          sources: ["texts"],
          members: [],
          lag: 1,
          isPaused: false,
          pauses: []
        })
        assert.deepInclude(here, { group: "here", sources: ["*"], channels: ["texts"], isPaused: false })
        assert.deepStrictEqual(here!.members.map(({ consumer, isAlive }) => [consumer, isAlive]), [
          [subscription.consumer, true]
        ])
      })
    )

    test(
      "remove needs no consumer; those that run end with GroupRemoved, and other groups see nothing of it",
      Effect.gen(function*() {
        yield* Effect.scoped(listen(Text, { group: "gone" }))
        const running = yield* listen(All, { group: "g" })
        const other = yield* listen(Text, { group: "other" })
        yield* Groups.pause("gone", { reason })
        assert.deepStrictEqual(yield* Groups.remove("gone"), ["texts"])
        assert.deepStrictEqual(yield* Groups.remove("gone"), [])
        assert.deepStrictEqual(yield* Groups.remove("g", Text), [])
        assert.deepStrictEqual(yield* Groups.remove("g", All), ["*"])
        assert.strictEqual((yield* soon(Effect.flip(running.subscription.ended)))._tag, "GroupRemoved")
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(other.seen))
        yield* until(
          backend,
          Effect.map(Groups.list, (groups) => groups.map(({ group }) => group).join() === "other")
        )
        assert.deepStrictEqual((yield* Groups.list).map(({ group }) => group), ["other"])
        // Its pause has ended with it.
        const { seen } = yield* listen(Text, { group: "gone", startFrom: "latest" })
        yield* Publisher.publish(Text, "b")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "b")
      })
    )

    test(
      "a subscription ends while its group is paused",
      Effect.gen(function*() {
        const { handler, open } = yield* gate
        const { seen, subscription } = yield* listen(Text, { group: "g", prefetch: 1, handler })
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* soon(Queue.take(seen))
        yield* Groups.pause("g", { reason })
        const drained = yield* Effect.forkChild(subscription.drain)
        yield* open
        yield* soon(Fiber.join(drained))
        assert.deepStrictEqual((yield* Groups.list).map(({ group, members, pending }) => [group, members, pending]), [
          ["g", [], 0]
        ])
        assert.isTrue(yield* Groups.isQuiet("g"))
        assert.deepStrictEqual(yield* Subscription.running, [])
      })
    )

    test(
      "an open delivery by hand keeps the group from being quiet",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { group: "g", ackMode: "manual" })
        yield* Publisher.publish(Text, "a")
        const message = yield* soon(Queue.take(seen))
        yield* Groups.pause("g", { reason })
        yield* advance(Duration.millis(100))
        assert.isFalse(yield* Groups.isQuiet("g"))
        yield* message.ack
        yield* isQuiet("g")
      })
    )
  })
}
