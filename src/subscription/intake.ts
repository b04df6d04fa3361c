/**
 * Intake: how a consumer comes to deliveries. It asks its members for as many as there is room for, new ones (`read`) and those whose lease
 * has expired at another consumer (`claim`), and holds what comes.
 */
import type { Clock } from "effect"
import { Effect, Latch } from "effect"
import type { Broker, BrokerError, Delivery, GroupRemoved, Membership } from "../Broker.ts"
import * as GroupSettings from "../broker/groupSettings.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Capacity } from "./capacity.ts"
import type { Dispatch } from "./dispatch.ts"
import type { Counts, ShardConsumer } from "./heldDelivery.ts"
import { enqueue, HeldDelivery } from "./heldDelivery.ts"

/** The first crash that is counted may be that of another one beside it: nothing is given up before it was tried alone. */
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

  /** The only reader keeps all room while it waits. Of several none may keep what another one needs: these wait first, and then take. */
  const isAlone = shards.length === 1

  const wake = Effect.suspend(() =>
    Effect.forEach(shards, ({ member }) => member.wake, { concurrency: "unbounded", discard: true })
  )
  const wakeKeeper = isAlone ? wake : Effect.void

  /**
   * Takes what was asked for at `askedAt`. An answer may have lain in the socket while this process was frozen: its leases count from when
   * it would have been read at the latest.
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

  // Not to be interrupted: `wake` ends the wait, and what comes with it is taken.
  const taking = <A, E>(
    reserve: () => number,
    take: (count: number, askedAt: bigint) => Effect.Effect<A, E>
  ): Effect.Effect<A, E> =>
    Effect.uninterruptible(Effect.suspend(() => {
      const count = reserve()
      return Effect.ensuring(
        take(count, clock.monotonicTimeNanosUnsafe()),
        Effect.sync(() => capacity.release(count))
      )
    }))

  const readNow = (shard: ShardConsumer, millis: number) =>
    taking(() => capacity.reserve(), (count, askedAt) =>
      count === 0
        ? Effect.void
        : Effect.map(
          shard.member.read(count, millis),
          (deliveries) => accept(shard, broker.isPolled ? askedAt : clock.monotonicTimeNanosUnsafe(), deliveries)
        ))

  const restAndRead = Effect.fnUntraced(function*(shard: ShardConsumer) {
    if (!isAlone && !isPaused() && !isClosing()) {
      const isReady = yield* Effect.uninterruptible(shard.member.awaitReady(blockMillis))
      if (!isReady) return
    }
    if (isPaused() || !capacity.hasRoom) {
      shard.heartbeat.rest()
      yield* resumed.await
      yield* capacity.awaitRoom
      shard.heartbeat.begin()
    }
    if (isClosing()) return yield* Effect.never
    if (isPaused()) return
    yield* readNow(shard, isAlone ? blockMillis : 0)
  })

  const claimNow = Effect.fnUntraced(function*(shard: ShardConsumer) {
    const found = yield* taking(
      () => capacity.reserveForClaim(),
      (count, askedAt) =>
        Effect.map(shard.member.claim(count), ({ deliveries, nextInMillis, settings, vanished }) => {
          counts.crashed += deliveries.length
          accept(shard, askedAt, deliveries)
          return { nextInMillis, settings, vanished, isMore: nextInMillis === 1 && deliveries.length >= count }
        })
    )
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
    /** Waits for room and for messages, and takes them; to be run again and again by one fiber for each shard. */
    read: (shard: ShardConsumer): Effect.Effect<void, BrokerError | GroupRemoved> =>
      Effect.suspend(() =>
        isAlone && !isPaused() && !isClosing() && capacity.hasRoom ? readNow(shard, blockMillis) : restAndRead(shard)
      ),
    /** Takes over what has expired, as much as there is room for. */
    claimNow,
    /** The same, and waits for room for the rest; returns in how many milliseconds the next lease can expire. */
    claim: Effect.fnUntraced(function*(shard: ShardConsumer) {
      yield* resumed.await
      if (isClosing()) return yield* Effect.never
      const found = yield* claimNow(shard)
      if (!found.isMore) return found.nextInMillis
      // It comes before what is new: who waits for that with all the room gives it back.
      return (yield* capacity.claimFirst(wakeKeeper, claimNow(shard))).nextInMillis
    }),
    /** Makes a reader return that waits with all the room. */
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
