/**
 * The consumer of a subscription: one member of the group in each shard, and the loops that read, claim, renew, settle and end.
 *
 * Deliveries are held from the moment they are read until their settlement is confirmed; what is held is renewed, counts against the
 * capacity, and is given back when the consumer ends.
 */
import type { Cause } from "effect"
import { Effect, Exit, Latch, Scope } from "effect"
import type {
  Broker,
  BrokerError,
  Commit,
  CommitRefused,
  GroupRemoved,
  Membership,
  OrderingConflict
} from "../Broker.ts"
import * as Activity from "../internal/activity.ts"
import type * as Ending from "../internal/ending.ts"
import { Heartbeat } from "../internal/heartbeat.ts"
import { yieldTurns } from "../internal/pause.ts"
import type { Reporter } from "../internal/reports.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { supervise, superviseLoop } from "../internal/supervise.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Prefetch } from "./capacity.ts"
import { Capacity } from "./capacity.ts"
import * as ConsumerEnd from "./consumerEnd.ts"
import * as Dispatch from "./dispatch.ts"
import type { Processing } from "./handlerTimes.ts"
import type { Counts, HeldDelivery, Settled, ShardConsumer } from "./heldDelivery.ts"
import * as Intake from "./intake.ts"
import type { KeyOf } from "./onceGate.ts"
import * as Renewal from "./renewal.ts"
import * as Settlements from "./settlements.ts"
import * as GivingBack from "./givingBack.ts"

export interface Options<R> {
  readonly broker: Broker["Service"]
  readonly membership: Omit<Membership, "shard">
  readonly concurrency: number
  readonly prefetch: Prefetch
  readonly blockMillis: number
  readonly drainMillis: number
  readonly maxCrashes: number
  /** A handler that runs for longer is reported, once. */
  readonly slowMillis: number
  readonly reporter: Reporter
  /** What happens to a message whose time to live has ended. */
  readonly expired: "dead-letter" | "drop"
  /** When given, every delivery is done once by its key. */
  readonly keyOf?: ((held: HeldDelivery, consumer: Consumer) => ReturnType<KeyOf<R>>) | undefined
  /** Handles a delivery. It runs with the scope of the delivery, and closes it. */
  readonly handle: (held: HeldDelivery, consumer: Consumer) => Effect.Effect<HandlerOutcome, never, R | Scope.Scope>
  /** The verdict on a delivery whose fiber died outside of `handle`: something in the handler was not an effect (`Given.contained`). */
  readonly verdict: (
    held: HeldDelivery,
    consumer: Consumer,
    cause: Cause.Cause<never>
  ) => Effect.Effect<HandlerOutcome, never, R | Scope.Scope>
  /** Called at once when the end begins. */
  readonly onEnd: () => void
  /** The last part of the end. */
  readonly afterEnd: Effect.Effect<void>
}

/** The state of a consumer, for `Health`. */
export interface Vitals {
  /** Its readers, one for each shard. A reader that waits for room, or is paused, rests. */
  readonly readers: ReadonlyArray<Heartbeat>
  /** Whether all handlers run, or no further message may be held: nothing starts before something has ended. */
  readonly isFull: boolean
  /** The time since the last settlement; `undefined` before the first. */
  readonly sinceSettledMillis: number | undefined
  /** How long the longest running handler has run. */
  readonly longestHandlerMillis: number | undefined
  /** A handler that runs longer than this is slow. */
  readonly slowMillis: number
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
  /** Acknowledges together with messages and writes; when they are refused the delivery is as it was before. */
  readonly commit: (held: HeldDelivery, changes: Omit<Commit, "delivery">) => Effect.Effect<Settled | CommitRefused>
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
  const { broker, concurrency, keyOf, membership, reporter, slowMillis } = options
  const { group, leaseMillis } = membership
  const { isPolled } = broker
  const clock = yield* Effect.clockWith(Effect.succeed)
  // The loops of the consumer end with the consumer, independently of the scope that it is in.
  const own = yield* Scope.make()
  const capacity = new Capacity(concurrency, options.prefetch, (): number => dispatch.busy())
  /** In memory, messages that are there have started when this completes. */
  const begun = isPolled ? Effect.void : yieldTurns
  const counts = { ...none }

  const joinedAt = clock.monotonicTimeNanosUnsafe()
  const shards = yield* Effect.forEach(
    broker.shardsOf(membership.selector),
    (shard) =>
      Effect.map(broker.join({ ...membership, shard }), (member): ShardConsumer => ({
        member,
        leaseNanos: BigInt(Math.ceil(leaseMillis)) * 1_000_000n,
        held: new Set(),
        settlements: Latch.makeUnsafe(false),
        heartbeat: new Heartbeat(`shard ${shard}`, options.blockMillis, () => monotonicMillis(clock), isPolled),
        isRenewalDue: false,
        overdue: Latch.makeUnsafe(false),
        occupied: Latch.makeUnsafe(true),
        roundAt: joinedAt,
        awakeAt: joinedAt,
        outbox: [],
        commits: []
      })),
    { concurrency: 8 }
  ).pipe(Scope.provide(own), Effect.onError(() => Scope.close(own, Exit.void)))

  const dispatch: Dispatch.Dispatch<R> = yield* Dispatch.make<R>({
    capacity,
    clock,
    counts,
    leaseMillis,
    reporter,
    shards,
    handling: {
      keyOf: keyOf === undefined ? undefined : (held) => keyOf(held, consumer),
      handle: (held) => options.handle(held, consumer),
      verdict: (held, cause) => options.verdict(held, consumer, cause),
      expired: options.expired
    },
    moved: () => end.moved()
  }).pipe(Scope.provide(own))
  const { drop, live, lose, queue, running } = dispatch

  const { blockMillis, maxCrashes } = options
  const intake = Intake.make({ broker, membership, blockMillis, maxCrashes, capacity, clock, counts, dispatch, shards })

  const watchWaiting = GivingBack.make({ capacity, clock, dispatch, isPolled, shards, wakeKeeper: intake.wakeKeeper })

  const renew = Renewal.make({
    clock,
    counts,
    group,
    isPolled,
    leaseMillis,
    lose,
    pump: dispatch.pump,
    reporter,
    slowMillis
  })

  const settlements = Settlements.make({
    clock,
    counts,
    drop,
    lose,
    reporter,
    timed: dispatch.timed,
    isMoreComing: () => isPolled || running() > 0 || queue.size > 0
  })

  let removed: GroupRemoved | undefined
  /** Runs an operation that fails when the group is removed. Then all held deliveries are forgotten, and the consumer ends. */
  const whileGroup = <A>(body: Effect.Effect<A, BrokerError | GroupRemoved>): Effect.Effect<A | void, BrokerError> =>
    Effect.catchTag(body, "GroupRemoved", (error) =>
      Effect.suspend(() => {
        if (removed !== undefined) return Effect.void
        removed = error
        for (const { held: all } of shards) {
          for (const held of all) {
            drop(held, "lost")
            held.fiber?.interruptUnsafe()
          }
        }
        Activity.detach(end.ending.ask)
        return Effect.logWarning(`rotif: ${error.message}`)
      }))

  const vitals = (): Vitals => {
    let earliest: bigint | undefined
    for (const { held } of shards) {
      for (const { startedAt } of held) {
        if (startedAt !== undefined && (earliest === undefined || startedAt < earliest)) earliest = startedAt
      }
    }
    return {
      readers: shards.map(({ heartbeat }) => heartbeat),
      isFull: !dispatch.isPaused() && (running() >= concurrency || capacity.isFull),
      sinceSettledMillis: counts.lastSettledAtMillis === undefined
        ? undefined
        : clock.currentTimeMillisUnsafe() - counts.lastSettledAtMillis,
      longestHandlerMillis: earliest === undefined
        ? undefined
        : Number(clock.monotonicTimeNanosUnsafe() - earliest) / 1e6,
      slowMillis
    }
  }

  const consumer: Consumer = {
    counts,
    processing: () => dispatch.times.summary,
    reset: () => {
      Object.assign(counts, none)
      dispatch.resetTimes()
    },
    vitals,
    inFlight: running,
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
    removed: () => removed
  }

  const label = `group "${group}"`

  let background: ReadonlyArray<ConsumerEnd.Background> = []
  const end = yield* ConsumerEnd.make({
    label,
    drainMillis: options.drainMillis,
    shards,
    background: () => background,
    running,
    live,
    begin: () => {
      dispatch.close()
      options.onEnd()
    },
    leave: Effect.andThen(Scope.close(own, Exit.void), options.afterEnd)
  })

  // Leases that expired before this consumer started come before new messages.
  yield* Effect.onError(
    Effect.forEach(shards, (shard) => whileGroup(intake.claimNow(shard)), { concurrency: 8, discard: true }),
    () => Scope.close(own, Exit.void)
  )
  const loop = <R>(name: string, body: Effect.Effect<void, BrokerError, R>) =>
    Effect.forkIn(supervise(`${name} for ${label}`, body), own)
  for (const { member } of shards) yield* Effect.forkIn(whileGroup(member.awaitRemoval), own)
  yield* loop("beginning again", dispatch.beginSuspects)
  yield* loop("looking after what waits", watchWaiting)
  background = yield* Effect.forEach(shards, (shard) =>
    Effect.gen(function*() {
      const reader = yield* Effect.forkIn(
        superviseLoop(`reading for ${label}`, (passed) => whileGroup(intake.read(shard, passed)), shard.heartbeat),
        own
      )
      const claimer = yield* loop(
        "claiming",
        Effect.flatMap(
          whileGroup(intake.claim(shard)),
          (millis) => millis === undefined ? shard.member.awaitLease : Effect.sleep(millis)
        )
      )
      const rest = [yield* loop("renewing", renew(shard)), yield* loop("settling", settlements.send(shard))]
      const beginOnce = dispatch.beginOnce(shard)
      if (beginOnce !== undefined) rest.push(yield* loop("beginning", beginOnce))
      return { shard, reader, claimer, rest }
    }))
  yield* begun
  return consumer
})
