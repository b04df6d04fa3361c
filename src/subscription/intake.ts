/**
 * Intake: takes deliveries, as many as there is room for. They are new (`read`), or their lease has expired at another consumer (`claim`).
 */
import type { Clock } from "effect"
import { Effect, Latch, Stream } from "effect"
import type { Broker, BrokerError, Delivery, GroupRemoved, Membership, Room } from "../Broker.ts"
import { deliveries } from "../Broker.ts"
import * as GroupSettings from "../broker/groupSettings.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Capacity } from "./capacity.ts"
import type { Dispatch } from "./dispatch.ts"
import type { Counts, ShardConsumer } from "./heldDelivery.ts"
import { enqueue, HeldDelivery } from "./heldDelivery.ts"

/** At least this many crashes end a message. The first one may be the fault of another message beside it, so each is tried alone first. */
const fewestCrashes = 2

export interface Options {
  readonly broker: Broker["Service"]
  readonly membership: Omit<Membership, "shard">
  readonly blockMillis: number
  readonly maxCrashes: number
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly counts: Counts
  readonly dispatch: Pick<Dispatch<never>, "add" | "startWaiting" | "isPaused" | "isClosing">
  readonly shards: ReadonlyArray<ShardConsumer>
}

export const make = (options: Options) => {
  const { broker, capacity, clock, counts, dispatch, membership, shards } = options
  const { isClosing, isPaused } = dispatch
  const blockMillis = broker.isPolled ? options.blockMillis : Infinity
  const resumed = Latch.makeUnsafe(true)
  const groupSettings = GroupSettings.make(membership.group, membership)

  /** A single reader takes all room while it waits. Of several readers none may keep room that another one needs: they wait first, then take room. */
  const isAlone = shards.length === 1

  const wake = Effect.suspend(() =>
    Effect.forEach(shards, ({ member }) => member.wake, { concurrency: "unbounded", discard: true })
  )
  const wakeKeeper = isAlone ? wake : Effect.void

  /**
   * Takes deliveries that were asked for at `askedAt`. The answer may have lain in the socket while this process was frozen. So the leases count
   * from the time at which this process was certainly awake, if that is later.
   */
  const accept = (shard: ShardConsumer, askedAt: bigint, deliveries: ReadonlyArray<Delivery>) => {
    if (deliveries.length > 0) shard.occupied.openUnsafe()
    const leasedUntil = (askedAt > shard.awakeAt ? askedAt : shard.awakeAt) + shard.leaseNanos
    const heldSince = clock.monotonicTimeNanosUnsafe()
    capacity.hold(deliveries.length)
    for (const delivery of deliveries) {
      const held = new HeldDelivery(delivery, shard, leasedUntil, heldSince)
      shard.held.add(held)
      if (delivery.malformed !== undefined) {
        enqueue(held, { _tag: "Bury", failure: { reason: "decode", message: delivery.malformed } })
      } else if (delivery.crashes >= Math.max(fewestCrashes, options.maxCrashes)) {
        const message =
          `${delivery.crashes} consumers were lost while its handler was running (a crash, or a handler that blocks the event loop)`
        enqueue(held, { _tag: "Bury", failure: { reason: "crashed", message } })
      } else {
        if (delivery.expiresInMillis !== undefined) {
          held.expiresAtMillis = monotonicMillis(clock) + delivery.expiresInMillis
        }
        dispatch.add(held)
      }
    }
    dispatch.startWaiting()
  }

  /** Waits for room, and with several shards for messages before. Returns whether to read. */
  const awaitRead = Effect.fnUntraced(function*(shard: ShardConsumer) {
    if (!isAlone && !isPaused() && !isClosing()) {
      const isReady = yield* Effect.uninterruptible(shard.member.awaitReady(blockMillis))
      if (!isReady) return false
    }
    if (isPaused() || !capacity.hasRoom) {
      shard.heartbeat.rest()
      yield* resumed.await
      yield* capacity.awaitRoom
      shard.heartbeat.begin()
    }
    if (isClosing()) return yield* Effect.never
    return !isPaused()
  })

  /** Takes the deliveries of one shard for ever; `passed` is called after each reply, and after each wait without one. */
  const read = (shard: ShardConsumer, passed: () => void): Effect.Effect<void, BrokerError | GroupRemoved> =>
    Effect.suspend(() => {
      let reserved = 0
      let askedAt = 0n
      const reserve = (): Room => {
        reserved = capacity.reserve()
        askedAt = clock.monotonicTimeNanosUnsafe()
        return { count: reserved, blockMillis: isAlone ? blockMillis : 0 }
      }
      const release = () => {
        capacity.release(reserved)
        reserved = 0
      }
      const room: Effect.Effect<Room, BrokerError | GroupRemoved> = Effect.suspend(() =>
        isAlone && !isPaused() && !isClosing() && capacity.hasRoom
          ? Effect.succeed(reserve())
          : Effect.flatMap(Effect.interruptible(awaitRead(shard)), (isReady) => {
            const found = isReady ? reserve() : undefined
            if (found !== undefined && found.count > 0) return Effect.succeed(found)
            passed()
            return room
          })
      )
      // It can only be interrupted while it waits for room. `wake` ends the wait of a read, and the deliveries of its reply are taken.
      return Effect.uninterruptible(Effect.ensuring(
        Stream.runForEachArray(deliveries(shard.member, room), ([reply]) =>
          Effect.sync(() => {
            accept(shard, broker.isPolled ? askedAt : clock.monotonicTimeNanosUnsafe(), reply)
            release()
            passed()
          })),
        Effect.sync(release)
      ))
    })

  const claimNow = Effect.fnUntraced(function*(shard: ShardConsumer) {
    // Uninterruptible: claimed deliveries are taken.
    const found = yield* Effect.uninterruptible(Effect.suspend(() => {
      const count = capacity.reserveForClaim()
      const askedAt = clock.monotonicTimeNanosUnsafe()
      return Effect.ensuring(
        Effect.map(shard.member.claim(count), ({ deliveries, nextInMillis, settings, vanished }) => {
          counts.crashed += deliveries.length
          accept(shard, askedAt, deliveries)
          return { nextInMillis, settings, vanished, isMore: nextInMillis === 1 && deliveries.length >= count }
        }),
        Effect.sync(() => capacity.release(count))
      )
    }))
    for (const words of groupSettings.heard(found.settings)) yield* Effect.logWarning(words)
    if (found.vanished > 0) {
      counts.vanished += found.vanished
      yield* Effect.logWarning(
        `rotif: group "${membership.group}" lost ${found.vanished} messages: a limit of their channel removed them before they were handled`
      )
    }
    return found
  })

  return {
    read,
    /** Takes over expired deliveries, as many as there is room for. */
    claimNow,
    /** Takes over expired deliveries, and waits for room for the rest. Returns the milliseconds until the next lease can expire. */
    claim: Effect.fnUntraced(function*(shard: ShardConsumer) {
      yield* resumed.await
      if (isClosing()) return yield* Effect.never
      const found = yield* claimNow(shard)
      if (!found.isMore) return found.nextInMillis
      // Claims come before new messages: a reader that waits with all the room gives it back.
      return (yield* capacity.claimFirst(wakeKeeper, claimNow(shard))).nextInMillis
    }),
    /** Wakes a reader that waits with all the room. */
    wakeKeeper,
    pause: Effect.suspend(() => {
      resumed.closeUnsafe()
      return wake
    }),
    resume: () => {
      resumed.openUnsafe()
    }
  }
}
