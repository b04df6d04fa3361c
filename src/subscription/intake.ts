/**
 * Intake: takes deliveries, as many as there is room for. They are new (`read`), or their lease has expired at another consumer (`claim`). What
 * a settlement hands over (`accept`) has the room of what was settled.
 */
import { Effect, Latch, Stream } from "effect"
import type { Broker, BrokerError, GroupRemoved, Room } from "../Broker.ts"
import { deliveries } from "../Broker.ts"
import * as Acceptance from "./acceptance.ts"
import * as Claims from "./claims.ts"
import type { Dispatch } from "./dispatch.ts"
import type { ShardConsumer } from "./heldDelivery.ts"

export interface Options extends Acceptance.Options, Omit<Claims.Options, "accept"> {
  readonly broker: Broker["Service"]
  readonly blockMillis: number
  readonly dispatch: Pick<Dispatch<never>, "add" | "startWaiting" | "isPaused" | "isClosing">
  readonly shards: ReadonlyArray<ShardConsumer>
}

export type Intake = ReturnType<typeof make>

export const make = (options: Options) => {
  const { broker, capacity, clock, dispatch, shards } = options
  const { isClosing, isPaused } = dispatch
  const blockMillis = broker.isPolled ? options.blockMillis : Infinity
  const resumed = Latch.makeUnsafe(true)
  const accept = Acceptance.make(options)
  const claimNow = Claims.make({ ...options, accept })

  /** A single reader takes all room while it waits. Of several readers none may keep room that another one needs: they wait first, then take room. */
  const isAlone = shards.length === 1

  const wake = Effect.suspend(() =>
    Effect.forEach(shards, ({ member }) => member.wake, { concurrency: "unbounded", discard: true })
  )
  const wakeKeeper = isAlone ? wake : Effect.void

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

  return {
    /** Takes deliveries that were handed over. */
    accept,
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
