/**
 * The `Broker` in memory, for tests and trials: the same state machine as on Redis, on Effect's `Clock`.
 *
 * Under `TestClock` only the test moves time: leases expire, retries become due and windows close exactly when the clock is moved
 * there, in the same order in every run.
 *
 * @since 0.1.0
 */
import type { Clock } from "effect"
import { Effect, Layer } from "effect"
import { Broker } from "./Broker.ts"
import { ownKey, ownKeyProblem, tagOf } from "./broker/keyText.ts"
import { matcherOf, patternsOf, readingOf } from "./internal/pattern.ts"
import { pause } from "./internal/pause.ts"
import * as Broadcast from "./memoryBroker/broadcast.ts"
import * as Inspection from "./memoryBroker/inspection.ts"
import * as Member from "./memoryBroker/member.ts"
import { Recurring } from "./memoryBroker/recurring.ts"
import { Store } from "./memoryBroker/store.ts"

/**
 * Makes a broker with nothing in it.
 *
 * **Details**: the broker has one shard, keeps everything in this process and loses it with the last reference. It reads the `Clock` it
 * was made with. Its operations never fail. As on Redis, the messages of a consumer that ends stay leased until the lease expires.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<Broker["Service"]> = Effect.clockWith((clock: Clock.Clock) =>
  Effect.sync(() => {
    const store = new Store()
    const { letters } = store
    const recurring = new Recurring(store)
    // Only transactions write keys. They have the same names as on Redis.
    const tag = tagOf("rotif", 0)
    const now = () => clock.currentTimeMillisUnsafe()

    return Broker.of({
      shards: 1,
      isPolled: false,
      rest: (millis) =>
        Effect.andThen(
          Effect.raceFirst(store.anyOperation.wait(), Effect.suspend(() => pause(store.shortestAgeMillis))),
          Effect.sleep(millis)
        ),
      shardsOf: () => [0],
      append: (messages) =>
        Effect.tap(
          store.tell(() => {
            const nowMillis = now()
            return messages.map((message) => store.append(message, nowMillis))
          }),
          () => store.notices.length === 0 ? Effect.void : Effect.logWarning(store.notices.splice(0).join("\n"))
        ),
      // A message cannot be lost without the whole process: there is nothing to wait for.
      checkDurability: () => Effect.void,
      join: (membership) =>
        Effect.acquireRelease(
          Effect.suspend(() => {
            const conflict = store.conflictOf(membership)
            return conflict === undefined
              ? store.run(() => Member.make(store, clock, membership, readingOf(membership.selector)))
              : Effect.fail(conflict)
          }),
          (member) => Effect.sync(member.close)
        ),
      promote: (_, limit, only) => store.run(() => store.promote(limit, now(), only)),
      awaitEarlier: () => store.earlier.wait(),
      scheduled: {
        cancel: (message) => store.run(() => store.scheduled.cancel(message)),
        reschedule: (message, due) => store.tell(() => store.scheduled.reschedule(message, due, now())),
        list: (_, { after, channel, limit }) => store.run(() => store.scheduled.list(after, channel, limit)),
        count: (channel) => store.run(() => store.scheduled.count(channel))
      },
      recurring: {
        nowMillis: () => Effect.sync(now),
        upsert: (definition, nextAtMillis) => store.tell(() => recurring.upsert(definition, nextAtMillis)),
        remove: (key) => store.run(() => recurring.remove(key)),
        list: () => store.run(() => recurring.list()),
        due: (_, limit) => store.run(() => recurring.due(limit, now())),
        advance: (_, advance) => store.run(() => recurring.advance(advance, now())),
        awaitChange: () => recurring.changed.wait()
      },
      relay: () => Effect.succeed(0),
      awaitOutbox: () => Effect.never,
      own: {
        keyFor: (_, name) => ownKey(tag, name),
        problemOf: (_, key) => ownKeyProblem(tag, key),
        read: (key) => Effect.sync(() => store.own.read(key))
      },
      ping: Effect.void,
      stats: {
        read: (selector) => Effect.sync(() => store.stats(matcherOf(selector), now())),
        lead: () => Effect.succeed(true)
      },
      awaitTrim: () => Effect.never,
      trim: () =>
        Effect.gen(function*() {
          while (store.tidy(now())) yield* Effect.yieldNow
          return store.trim(now())
        }),
      groups: {
        list: (group) => store.run(() => store.listGroups(now(), group)),
        pause: (pause) =>
          store.tell(() => {
            store.wake(store.pausesChanged)
            return store.pauses.add(pause, now())
          }),
        resume: (group, selector) =>
          store.tell(() => {
            store.wake(store.pausesChanged)
            return store.pauses.end(group, selector === undefined ? undefined : patternsOf(selector), now())
          }),
        handedOut: (group, selector) => store.run(() => store.handedOut(group, matcherOf(selector))),
        countLetters: (recent) => store.run(() => store.pauses.countLetters(recent, now()))
      },
      removeGroup: (group, selector) => store.run(() => store.removeGroup(group, patternsOf(selector))),
      info: (selector) =>
        Effect.sync(() => ({
          channels: store.stats(matcherOf(selector), now()),
          waiting: store.waiting,
          dead: letters.size
        })),
      letters: {
        list: (_, range) => Effect.sync(() => letters.list(range, now())),
        get: (_, letterId) => Effect.sync(() => letters.get(letterId)),
        requeue: (_, items) => store.tell(() => store.requeueLetters(items, now())),
        remove: (_, letterIds) => Effect.sync(() => letters.remove(letterIds)),
        counts: () => Effect.sync(() => letters.counts()),
        size: () => Effect.sync(() => letters.size),
        offer: (_, options) => Effect.sync(() => letters.offer(options, now())),
        conclude: (_, name, conclusions) => store.run(() => letters.conclude(name, conclusions, now())),
        forget: (_, name) => Effect.sync(() => letters.forget(name)),
        awaitLetter: () => letters.available.wait(),
        lead: () => Effect.succeed(true)
      },
      inspection: Inspection.make(store, recurring, now),
      broadcast: Broadcast.make()
    })
  })
)

/**
 * Provides an empty broker. Each call makes a layer of its own: two layers are two brokers, wherever they are provided.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (): Layer.Layer<Broker> => Layer.effect(Broker, make)
