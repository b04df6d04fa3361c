/**
 * The consumer of a subscription: one member of the group in each shard, and the loops that read, claim, renew, settle and end.
 *
 * Deliveries are held from the moment they are read until their settlement is confirmed; what is held is renewed, counts against the
 * capacity, and is given back when the consumer ends.
 */
import { Effect, Exit, Scope } from "effect"
import type {
  Broker,
  BrokerError,
  Commit,
  CommitRefused,
  GroupRemoved,
  Membership,
  OrderingConflict
} from "../Broker.ts"
import type * as Ending from "../internal/ending.ts"
import { Heartbeat } from "../internal/heartbeat.ts"
import { yieldTurns } from "../internal/pause.ts"
import type { Reporter } from "../internal/reports.ts"
import type { Settlement } from "../internal/settlement.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Prefetch } from "./capacity.ts"
import { Capacity } from "./capacity.ts"
import * as ConsumerEnd from "./consumerEnd.ts"
import * as Dispatch from "./dispatch.ts"
import * as GivingBack from "./givingBack.ts"
import type { Processing } from "./handlerTimes.ts"
import type { Counts, HeldDelivery, Settled } from "./heldDelivery.ts"
import { ShardConsumer } from "./heldDelivery.ts"
import * as Intake from "./intake.ts"
import * as Loops from "./loops.ts"
import type { KeyOf } from "./onceGate.ts"
import * as Pauses from "./pauses.ts"
import * as Renewal from "./renewal.ts"
import * as Settlements from "./settlements.ts"
import type { Storm } from "./storm.ts"
import * as Storms from "./storm.ts"
import { type Vitals, vitalsOf } from "./vitals.ts"

export interface Options<R> {
  readonly broker: Broker["Service"]
  readonly membership: Omit<Membership, "shard">
  readonly concurrency: number
  readonly prefetch: Prefetch
  readonly blockMillis: number
  readonly drainMillis: number
  readonly maxCrashes: number
  /** When given, so many dead letters pause the group. */
  readonly storm?: Storm | undefined
  /** A handler that runs for longer is reported, once. */
  readonly slowMillis: number
  readonly reporter: Reporter
  /** What happens to a message whose time to live has ended. */
  readonly expired: "dead-letter" | "drop"
  /** When given, every delivery is done once by its key. */
  readonly keyOf?: ((held: HeldDelivery, consumer: Consumer) => ReturnType<KeyOf<R>>) | undefined
  /** Handles deliveries, one by one or in batches. */
  readonly handling: (consumer: () => Consumer) => Dispatch.Options<R>["handling"]
  /** Called at once when the end begins. */
  readonly onEnd: () => void
  /** The last part of the end. */
  readonly afterEnd: Effect.Effect<void>
}

export interface Consumer {
  readonly counts: Counts
  /** How long handlers took; `undefined` before the first has ended. */
  readonly processing: () => Processing | undefined
  /** Sets all counts to 0. */
  readonly reset: () => void
  readonly vitals: () => Vitals
  readonly inFlight: () => number
  readonly held: () => number
  readonly isPaused: () => boolean
  readonly settle: (held: HeldDelivery, settlement: Settlement) => Effect.Effect<Settled>
  /** Acknowledges together with messages and writes; when they are refused the deliveries are as they were before. */
  readonly commit: (
    held: ReadonlyArray<HeldDelivery>,
    changes: Pick<Commit, "messages" | "writes">
  ) => Effect.Effect<Settled | CommitRefused>
  readonly renew: (held: HeldDelivery) => Effect.Effect<Settled, BrokerError>
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** The end: stops taking messages, finishes handlers that run, gives the rest back, leaves the group. It is one end for all who ask for it. */
  readonly ending: Ending.Ending
  /** The error with which it ended by itself. */
  readonly removed: () => GroupRemoved | undefined
}

const none: Counts = {
  processed: 0,
  duplicates: 0,
  failed: 0,
  retried: 0,
  dead: 0,
  expired: 0,
  crashed: 0,
  lostLeases: 0,
  vanished: 0,
  lastMessageAtMillis: undefined,
  lastSettledAtMillis: undefined
}

export const make = Effect.fnUntraced(function*<R>(
  options: Options<R>
): Effect.fn.Return<Consumer, BrokerError | OrderingConflict, R | Scope.Scope> {
  const { blockMillis, broker, keyOf, maxCrashes, membership, reporter, slowMillis } = options
  const { group, leaseMillis } = membership
  const { isPolled } = broker
  const clock = yield* Effect.clockWith(Effect.succeed)
  const handling = options.handling(() => consumer)
  const perHandler = handling._tag === "Single" ? 1 : handling.sizes.size
  // The loops of the consumer end with the consumer, independently of the scope that it is in.
  const own = yield* Scope.make()
  const capacity = new Capacity(options.concurrency, perHandler, options.prefetch, (): number => dispatch.busy())
  /** In memory, messages that are there have started when this completes. */
  const begun = isPolled ? Effect.void : yieldTurns
  const counts = { ...none }

  /** A consumer that rests or ends leaves the next messages of its ordering keys to others. */
  const isTaking = () => !dispatch.isPaused() && !dispatch.isClosing()

  const joinedAt = clock.monotonicTimeNanosUnsafe()
  const heartbeatOf = (shard: number) =>
    new Heartbeat(`shard ${shard}`, blockMillis, () => monotonicMillis(clock), isPolled)
  const shards = yield* Effect.forEach(
    broker.shardsOf(membership.selector),
    (shard) =>
      Effect.map(
        broker.join({ ...membership, shard, isTaking }),
        (member) => new ShardConsumer(member, leaseMillis, heartbeatOf(shard), joinedAt)
      ),
    { concurrency: 8 }
  ).pipe(Scope.provide(own), Effect.onError(() => Scope.close(own, Exit.void)))

  const dispatch: Dispatch.Dispatch<R> = yield* Dispatch.make<R>({
    capacity,
    clock,
    counts,
    expired: options.expired,
    handling,
    keyOf: keyOf === undefined ? undefined : (held) => keyOf(held, consumer),
    leaseMillis,
    reporter,
    shards,
    moved: () => end.moved()
  }).pipe(Scope.provide(own))
  const { attempts, pump, queue } = dispatch
  const { drop, lose } = attempts

  const storm = options.storm === undefined ? undefined : Storms.make({ broker, membership, storm: options.storm })
  const intake = Intake.make({ broker, membership, blockMillis, maxCrashes, capacity, clock, counts, dispatch, shards })
  const settlements = Settlements.make({
    buried: storm?.buried,
    clock,
    counts,
    drop,
    handedOver: intake.accept,
    lose,
    reporter,
    timed: attempts.timed,
    isMoreComing: () => isPolled || attempts.running > 0 || queue.size > 0
  })

  const consumer: Consumer = {
    counts,
    processing: () => attempts.times.summary,
    reset: () => {
      Object.assign(counts, none)
      dispatch.resetTimes()
    },
    vitals: () => vitalsOf({ attempts, capacity, clock, counts, isPaused: dispatch.isPaused, shards, slowMillis }),
    inFlight: () => attempts.running,
    held: () => capacity.held,
    isPaused: dispatch.isPaused,
    settle: settlements.settle,
    commit: settlements.commit,
    renew: (held) =>
      Effect.suspend(() =>
        held.phase === "gone"
          ? Effect.succeed<Settled>(held.outcome ?? "lost")
          : Effect.map(held.shard.member.renew([held.delivery]), (lost): Settled => {
            if (lost.length === 0) return "done"
            lose(held)
            return "lost"
          })
      ),
    pause: Effect.suspend(() => {
      dispatch.pause()
      return intake.pause
    }),
    resume: Effect.suspend(() => {
      dispatch.resume()
      intake.resume()
      return begun
    }),
    get ending() {
      return end.ending
    },
    removed: () => end.removed()
  }

  const label = `group "${group}"`
  let background: ReadonlyArray<ConsumerEnd.Background> = []
  const end = yield* ConsumerEnd.make({
    label,
    drainMillis: options.drainMillis,
    shards,
    background: () => background,
    attempts,
    begin: () => {
      dispatch.close()
      options.onEnd()
    },
    leave: Effect.andThen(Scope.close(own, Exit.void), options.afterEnd)
  })

  // Leases that expired before this consumer started come before new messages.
  yield* Effect.onError(
    Effect.forEach(shards, (shard) => end.whileGroup(intake.claimNow(shard)), { concurrency: 8, discard: true }),
    () => Scope.close(own, Exit.void)
  )
  background = yield* Loops.start({
    dispatch,
    end,
    follow: Pauses.make({ dispatch, group }),
    intake,
    label,
    own,
    renew: Renewal.make({ clock, counts, group, isPolled, leaseMillis, lose, pump, reporter, slowMillis }),
    settlements,
    shards,
    watchStorm: storm?.watch,
    watchWaiting: GivingBack.make({
      attempts,
      capacity,
      clock,
      dispatch,
      isPolled,
      shards,
      wakeKeeper: intake.wakeKeeper
    })
  })
  yield* begun
  return consumer
})
