/**
 * The engine of a subscription: takes deliveries from the members of a group, runs a handler for each, settles them.
 *
 * Everything here is about one process. Deliveries are held from the moment they are read until their settlement is
 * confirmed; what is held is renewed, counts against the capacity, and is given back when the consumer ends. On the way of a
 * message there is no Stream operator, no queue of Effect's and no fiber but the handler's own.
 */
import { Cause, Context, Effect, Exit, Latch, Scope } from "effect"
import type { Broker, BrokerError, Commit, CommitRefused, Delivery, GroupRemoved, Membership } from "../Broker.ts"
import * as Agreement from "../broker/groupSettings.ts"
import * as Activity from "../internal/activity.ts"
import type * as Ending from "../internal/ending.ts"
import { Pulse } from "../internal/heartbeat.ts"
import { letGoOn } from "../internal/pause.ts"
import type { Reporter } from "../internal/reports.ts"
import type { Final, Settlement } from "../internal/settlement.ts"
import { again, duplicateSettlement, expiredSettlement, later, release } from "../internal/settlement.ts"
import { slowest, supervise } from "../internal/supervise.ts"
import type { Prefetch } from "./capacity.ts"
import { Capacity } from "./capacity.ts"
import * as ConsumerEnd from "./consumerEnd.ts"
import type { Processing } from "./handlerTimes.ts"
import { Timing } from "./handlerTimes.ts"
import type { Counts, Lane, Settled } from "./heldDelivery.ts"
import { Held } from "./heldDelivery.ts"
import * as Beginning from "./onceGate.ts"
import * as Settling from "./settlements.ts"
import * as Trials from "./trials.ts"

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
  /** What becomes of a message whose time to live has ended. */
  readonly expired: "dead-letter" | "drop"
  /** When given, every delivery is done once by its key. */
  readonly keyOf?: ((held: Held, consumer: Consumer) => ReturnType<Beginning.KeyOf<R>>) | undefined
  /** It runs with the scope of the delivery, and closes it. */
  readonly handle: (held: Held, consumer: Consumer) => Effect.Effect<Settlement, never, R | Scope.Scope>
  /** Judges a delivery whose fiber has died past `handle`: something in the handler was no effect (`Given.contained`). */
  readonly judge: (
    held: Held,
    consumer: Consumer,
    cause: Cause.Cause<never>
  ) => Effect.Effect<Settlement, never, R | Scope.Scope>
  /** Told at once when the end begins. */
  readonly onEnd: () => void
  /** The last part of the end. */
  readonly afterEnd: Effect.Effect<void>
}

/** How the consumer is, for those who watch over it. */
export interface Vitals {
  /** Its readers, one for each shard; one that waits for room, or is paused, rests. */
  readonly readers: ReadonlyArray<Pulse>
  /** Every place for a handler is taken, or as many messages are held as may be: nothing begins before something has ended. */
  readonly isFull: boolean
  /** How long nothing was settled; `undefined` before the first settlement. */
  readonly sinceSettledMillis: number | undefined
  /** How long the handler that has run longest is running. */
  readonly longestHandlerMillis: number | undefined
  /** From when on that is too long. */
  readonly slowMillis: number
}

export interface Consumer {
  readonly counts: Counts
  /** How long handlers took; `undefined` before the first has ended. */
  readonly processing: () => Processing | undefined
  /** Begins to count anew. */
  readonly reset: () => void
  readonly vitals: () => Vitals
  readonly inFlight: () => number
  readonly held: () => number
  readonly isPaused: () => boolean
  readonly settle: (held: Held, settlement: Final) => Effect.Effect<Settled>
  /** Acknowledges together with messages and writes; when they are refused the delivery is as it was before. */
  readonly commit: (held: Held, changes: Omit<Commit, "delivery">) => Effect.Effect<Settled | CommitRefused>
  readonly renew: (held: Held) => Effect.Effect<Settled, BrokerError>
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Stops taking work, finishes what runs, gives the rest back, leaves the group. It is one end for all who ask for it. */
  readonly ending: Ending.Ending
  /** Why it ended by itself. */
  readonly removed: () => GroupRemoved | undefined
}

/** The first crash that is counted may be that of another one beside it: nothing is given up before it was tried alone. */
const fewestCrashes = 2

/** What has waited here for so long, and could be had by another consumer, is given back. */
const patienceMillis = 250

/** When all places are taken and no handler has ended for so long, nothing more is fetched in advance. */
const unmovedMillis = 100

/** So many handlers are timed, then one in so many. */
const alwaysTimed = 1_000
const timedOneIn = 8

export const make = Effect.fnUntraced(function*<R>(
  options: Options<R>
): Effect.fn.Return<Consumer, BrokerError, R | Scope.Scope> {
  const { broker, concurrency, membership, reporter } = options
  const services = yield* Effect.context<R>()
  const clock = yield* Effect.clockWith(Effect.succeed)
  // What the consumer runs on ends with the consumer, whatever becomes of the scope it is in.
  const own = yield* Scope.make()
  const shards = broker.shardsOf(membership.selector)
  const capacity = new Capacity(
    concurrency,
    options.prefetch,
    (): number => running + queue.length - head + trials.places()
  )

  const blockMillis = broker.isPolled ? options.blockMillis : Infinity
  /** What there is for it has begun, where that takes no time. */
  const begun = broker.isPolled ? Effect.void : letGoOn

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
  const counts = { ...none }
  const timing = new Timing()
  let starts = 0
  /** About now, while handlers are being started. */
  let startingAt = clock.monotonicTimeNanosUnsafe()
  const monotonic = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
  const leaseNanos = BigInt(Math.ceil(membership.leaseMillis)) * 1_000_000n
  let running = 0
  let endedHandlers = 0
  let paused = false
  let closing = false
  let pumping = false
  let queue: Array<Held> = []
  let head = 0
  const resumed = Latch.makeUnsafe(true)
  /** Handlers that run, but for those that end at once. */
  const live = new Set<Held>()
  /** Open when a handler has ended since nothing more was fetched in advance. */
  const someEnded = Latch.makeUnsafe(false)
  /** Open when something waits for a handler, or all places are taken. */
  const someWait = Latch.makeUnsafe(false)

  const lanes = yield* Effect.forEach(
    shards,
    (shard) =>
      Effect.map(broker.join({ ...membership, shard }), (member): Lane => ({
        member,
        held: new Set(),
        settlements: Latch.makeUnsafe(false),
        pulse: new Pulse(`shard ${shard}`, options.blockMillis, monotonic, broker.isPolled),
        isRenewalDue: false,
        overdue: Latch.makeUnsafe(false),
        occupied: Latch.makeUnsafe(true),
        roundAt: startingAt,
        awakeAt: startingAt,
        outbox: [],
        commits: []
      })),
    { concurrency: 8 }
  ).pipe(Scope.provide(own), Effect.onError(() => Scope.close(own, Exit.void)))

  const drop = (held: Held, outcome: Settled) => {
    held.phase = "gone"
    held.outcome = outcome
    held.lane.held.delete(held)
    capacity.drop()
    if (held.delivery.isSuspect) trials.left(held)
    const waiters = held.waiters
    held.waiters = undefined
    if (waiters !== undefined) { for (const waiter of waiters) waiter(outcome) }
    if (closing) end.moved()
  }

  const lose = (held: Held) => {
    if (held.phase === "gone") return
    counts.lostLeases++
    reporter.leaseLost(held.delivery)
    drop(held, "lost")
    // Another consumer has the message by now: what this handler still does is in vain.
    held.fiber?.interruptUnsafe()
  }

  const enqueue = (held: Held, settlement: Final) => {
    held.phase = "settling"
    held.lane.outbox.push({ held, settlement })
    held.lane.settlements.openUnsafe()
  }

  const timed = (held: Held) => {
    const { startedAt } = held
    held.startedAt = undefined
    if (startedAt === undefined || !held.isTimed) return
    const nanos = Number(clock.monotonicTimeNanosUnsafe() - startedAt)
    timing.record(nanos)
    capacity.measured(nanos / 1e6)
  }

  /** What judges a handler has failed itself: a mistake of ours, which must not become a busy loop. */
  const broken = (cause: Cause.Cause<never>, { delivery }: Held): Final => {
    reporter.notJudged(delivery, cause)
    return { ...release(delivery), delayMillis: slowest }
  }

  /** Its fiber has died on the spot, and nothing of what it would have done at its end is done. */
  const judged = (held: Held, exit: Exit.Failure<Settlement, never>) => {
    const judging = Effect.runForkWith(Context.add(services, Scope.Scope, held.scope))(
      Effect.andThen(Scope.close(held.scope, exit), options.judge(held, consumer, exit.cause))
    )
    judging.addObserver((verdict) => {
      if (held.phase !== "running") return
      const isSettled = Exit.isSuccess(verdict) && verdict.value._tag !== "Hold"
      enqueue(held, isSettled ? verdict.value as Final : broken(exit.cause, held))
    })
  }

  const finished = (held: Held, exit: Exit.Exit<Settlement>) => {
    running--
    endedHandlers++
    if (capacity.ended()) someEnded.openUnsafe()
    held.isOver = true
    if (held.fiber !== undefined) {
      held.fiber = undefined
      live.delete(held)
    }
    // One that leaves its message open is at it until somebody settles that.
    if (held.phase !== "running" || Exit.isFailure(exit) || exit.value._tag !== "Hold") timed(held)
    if (held.phase === "running") {
      if (Exit.isFailure(exit)) {
        const isInterrupted = Cause.hasInterruptsOnly(exit.cause)
        // At the end of the consumer somebody else is to have it at once; a handler that interrupts itself is paced.
        if (isInterrupted) enqueue(held, closing ? release(held.delivery) : again(held.delivery, 0, "interrupted"))
        else judged(held, exit)
      } else if (exit.value._tag === "Hold") held.phase = "open"
      else enqueue(held, exit.value)
    }
    if (closing) end.moved()
    trials.wake()
    pump()
  }

  const expire = (held: Held) => {
    counts.expired++
    enqueue(
      held,
      options.expired === "drop"
        ? expiredSettlement
        : { _tag: "Bury", failure: { reason: "expired", message: "its time to live ended before it was handled" } }
    )
  }

  const start = (held: Held) => {
    if (held.expiresAtMillis !== Infinity && held.expiresAtMillis <= monotonic()) return expire(held)
    held.phase = "running"
    if (++running >= concurrency) someWait.openUnsafe()
    // Reading the clock costs more than all else here: many are judged by some, and those begin at about the same time.
    held.isTimed = starts < alwaysTimed || starts % timedOneIn === 0
    if (held.isTimed) startingAt = clock.monotonicTimeNanosUnsafe()
    held.startedAt = startingAt
    starts++
    const fiber = Activity.enter(held, run, held)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) {
      // It may have held up the process, and what is next may be another one's by now.
      startingAt = clock.monotonicTimeNanosUnsafe()
      return finished(held, exit)
    }
    held.fiber = fiber
    live.add(held)
    if (closing) end.moved()
    fiber.addObserver((exit) => finished(held, exit))
  }

  const run = (held: Held) =>
    Effect.runForkWith(Context.add(services, Scope.Scope, held.scope))(options.handle(held, consumer))

  const pump = () => {
    if (pumping || head >= queue.length) return
    if (running >= concurrency) return void someWait.openUnsafe()
    pumping = true
    startingAt = clock.monotonicTimeNanosUnsafe()
    const overdue: Array<Held> = []
    let stopped: Set<Lane> | undefined
    while (running + trials.places() < concurrency && head < queue.length && !paused && !closing) {
      const held = queue[head++]!
      if (held.phase !== "waiting") continue
      // This process was frozen, or cut off: another one may be at it. The renewal tells; what came after it waits as well.
      if (startingAt >= held.leasedUntil || stopped?.has(held.lane) === true) {
        stopped = (stopped ?? new Set()).add(held.lane)
        held.lane.overdue.openUnsafe()
        overdue.push(held)
      } else start(held)
    }
    if (overdue.length > 0) {
      queue = [...overdue, ...queue.slice(head)]
      head = 0
    }
    if (head === queue.length) {
      queue = []
      head = 0
    } else {
      someWait.openUnsafe()
      if (head > 1024) {
        queue = queue.slice(head)
        head = 0
      }
    }
    pumping = false
  }

  const trials = yield* Trials.make({
    clock,
    leaseNanos,
    room: () => paused || closing ? 0 : concurrency - running,
    start: (held) => {
      startingAt = clock.monotonicTimeNanosUnsafe()
      start(held)
    },
    giveBack: (held) => enqueue(held, release(held.delivery)),
    lose
  }).pipe(Scope.provide(own))

  /** Puts it where it waits for its handler. */
  const line = (held: Held) => {
    if (held.delivery.isSuspect) trials.add(held)
    else queue.push(held)
  }

  const ready = (held: Held) => {
    line(held)
    if (closing || paused) giveBackWaiting()
    else pump()
  }

  const beginnings = new Map<Lane, Beginning.Beginning<R>>()
  const { keyOf } = options
  if (keyOf !== undefined) {
    for (const lane of lanes) {
      beginnings.set(
        lane,
        Beginning.make(lane.member, (held) => keyOf(held, consumer), {
          end: enqueue,
          begun: (held, begun) => {
            if (begun === "mine") ready(held)
            else enqueue(held, begun === "done" ? duplicateSettlement : later(held.delivery, membership.leaseMillis))
          }
        })
      )
    }
  }

  const giveBackWaiting = () => {
    for (const beginning of beginnings.values()) {
      for (const held of beginning.clear()) if (held.phase === "waiting") enqueue(held, release(held.delivery))
    }
    for (const held of [...trials.clear(), ...queue.slice(head)]) {
      if (held.phase === "waiting") enqueue(held, release(held.delivery))
    }
    queue = []
    head = 0
  }

  /** The only reader keeps all room while it waits. Of several none may keep what another one needs: these wait first, and then take. */
  const isAlone = lanes.length === 1

  const wakeReaders = Effect.suspend(() =>
    Effect.forEach(lanes, (lane) => lane.member.wake, { concurrency: "unbounded", discard: true })
  )

  /** Nothing more is fetched in advance until a handler has ended: neither what would wait, nor again what is given back. */
  const stall = Effect.suspend(() => {
    capacity.stall()
    someEnded.closeUnsafe()
    // A reader may be waiting with room for more.
    return capacity.awaitReleased(isAlone ? wakeReaders : Effect.void)
  })

  /**
   * While all places are taken and no handler ends, nothing more is fetched. What has waited here too long all the same is given back if
   * another member could have it; with nobody else it keeps its place.
   */
  const watchPlaces = Effect.gen(function*() {
    yield* someWait.await
    while (head < queue.length && queue[head]!.phase !== "waiting") head++
    const oldest = queue[head]
    if (oldest === undefined && (running < concurrency || capacity.isStalled)) return someWait.closeUnsafe()
    const waitedMillis = oldest === undefined ? 0 : Number(clock.monotonicTimeNanosUnsafe() - oldest.heldSince) / 1e6
    if (running < concurrency || waitedMillis < patienceMillis) {
      const before = endedHandlers
      const leftMillis = Math.max(1, patienceMillis - waitedMillis)
      yield* Effect.sleep(capacity.isStalled ? leftMillis : Math.min(unmovedMillis, leftMillis))
      const isUnmoved = running >= concurrency && endedHandlers === before
      return isUnmoved && !capacity.isStalled ? yield* stall : undefined
    }
    capacity.waited(waitedMillis)
    yield* stall
    for (const lane of lanes) {
      const waiting = queue.slice(head).filter((held) => held.lane === lane && held.phase === "waiting")
      if (waiting.length === 0) continue
      const shared = yield* lane.member.shared(new Set(waiting.map(({ delivery }) => delivery.channel)))
      for (const held of waiting) {
        if (held.phase === "waiting" && shared.has(held.delivery.channel)) enqueue(held, release(held.delivery))
      }
    }
    // Somebody may come.
    yield* broker.isPolled
      ? Effect.sleep(patienceMillis)
      : Effect.raceFirst(someEnded.await, Effect.raceAllFirst(lanes.map(({ member }) => member.awaitJoin)))
  })

  /**
   * Takes what was asked for at `askedAt`. An answer may have lain in the socket while this process was frozen: its leases count from when
   * it would have been read at the latest.
   */
  const accept = (lane: Lane, askedAt: bigint, deliveries: ReadonlyArray<Delivery>) => {
    const beginning = beginnings.get(lane)
    if (deliveries.length > 0) lane.occupied.openUnsafe()
    const leasedUntil = (askedAt > lane.awakeAt ? askedAt : lane.awakeAt) + leaseNanos
    const heldSince = clock.monotonicTimeNanosUnsafe()
    capacity.hold(deliveries.length)
    for (const delivery of deliveries) {
      const held = new Held(delivery, lane, leasedUntil, heldSince)
      lane.held.add(held)
      if (delivery.malformed !== undefined) {
        enqueue(held, { _tag: "Bury", failure: { reason: "decode", message: delivery.malformed } })
      } else if (delivery.crashes >= Math.max(fewestCrashes, options.maxCrashes)) {
        const message =
          `${delivery.crashes} consumers were lost while its handler was running (a crash, or a handler that blocks the event loop)`
        enqueue(held, { _tag: "Bury", failure: { reason: "crashed", message } })
      } else {
        if (delivery.expiresInMillis !== undefined) held.expiresAtMillis = monotonic() + delivery.expiresInMillis
        if (beginning !== undefined) beginning.add(held)
        else line(held)
      }
    }
    if (closing || paused) giveBackWaiting()
    else pump()
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

  const readNow = (lane: Lane, millis: number) =>
    taking(() => capacity.reserve(), (count, askedAt) =>
      count === 0
        ? Effect.void
        : Effect.map(
          lane.member.read(count, millis),
          (deliveries) => accept(lane, broker.isPolled ? askedAt : clock.monotonicTimeNanosUnsafe(), deliveries)
        ))

  const readOnce = (lane: Lane) =>
    Effect.suspend(() =>
      isAlone && !paused && !closing && capacity.hasRoom ? readNow(lane, blockMillis) : restAndRead(lane)
    )

  const restAndRead = Effect.fnUntraced(function*(lane: Lane) {
    if (!isAlone && !paused && !closing) {
      const isReady = yield* Effect.uninterruptible(lane.member.awaitReady(blockMillis))
      if (!isReady) return
    }
    if (paused || !capacity.hasRoom) {
      lane.pulse.rest()
      yield* resumed.await
      yield* capacity.awaitRoom
      lane.pulse.begin()
    }
    if (closing) return yield* Effect.never
    if (paused) return
    yield* readNow(lane, isAlone ? blockMillis : 0)
  })

  const agreement = Agreement.make(membership.group, membership)

  const claimNow = Effect.fnUntraced(function*(lane: Lane) {
    const found = yield* taking(
      () => capacity.reserveForClaim(),
      (count, askedAt) =>
        Effect.map(lane.member.claim(count), ({ deliveries, nextInMillis, settings, vanished }) => {
          counts.crashed += deliveries.length
          accept(lane, askedAt, deliveries)
          return { nextInMillis, settings, vanished, isMore: nextInMillis === 1 && deliveries.length >= count }
        })
    )
    for (const words of agreement.heard(found.settings)) yield* Effect.logWarning(words)
    if (found.vanished > 0) {
      counts.vanished += found.vanished
      yield* Effect.logWarning(
        `rotif: group "${membership.group}" lost ${found.vanished} messages: a limit of their channel removed them before they were handled`
      )
    }
    return found
  })

  const claimOnce = Effect.fnUntraced(function*(lane: Lane) {
    yield* resumed.await
    if (closing) return yield* Effect.never
    const found = yield* claimNow(lane)
    if (!found.isMore) return found.nextInMillis
    // It comes before what is new: who waits for that with all the room gives it back.
    return (yield* capacity.claimFirst(isAlone ? wakeReaders : Effect.void, claimNow(lane))).nextInMillis
  })

  let removed: GroupRemoved | undefined
  /** Runs what tells when somebody has removed the group: what is held is forgotten with it, and the consumer ends. */
  const whileGroup = <A>(body: Effect.Effect<A, BrokerError | GroupRemoved>): Effect.Effect<A | void, BrokerError> =>
    Effect.catchTag(body, "GroupRemoved", (error) =>
      Effect.suspend(() => {
        if (removed !== undefined) return Effect.void
        removed = error
        for (const lane of lanes) {
          for (const held of lane.held) {
            drop(held, "lost")
            held.fiber?.interruptUnsafe()
          }
        }
        Activity.detach(end.ending.ask)
        return Effect.logWarning(`rotif: ${error.message}`)
      }))

  const tellSlow = (lane: Lane) => {
    const at = clock.monotonicTimeNanosUnsafe()
    for (const held of lane.held) {
      if (held.isSlow || held.startedAt === undefined) continue
      const millis = Number(at - held.startedAt) / 1e6
      if (millis <= options.slowMillis) continue
      held.isSlow = true
      reporter.slow(held.delivery, millis)
    }
  }

  const renewOnce = Effect.fnUntraced(function*(lane: Lane) {
    // One that failed is tried again soon: the lease goes on passing.
    if (!broker.isPolled && lane.held.size === 0) {
      lane.occupied.closeUnsafe()
      yield* lane.occupied.await
    }
    if (!lane.isRenewalDue) yield* Effect.timeoutOption(lane.overdue.await, membership.leaseMillis / 3)
    lane.isRenewalDue = true
    tellSlow(lane)
    lane.awakeAt = lane.roundAt
    lane.roundAt = clock.monotonicTimeNanosUnsafe()
    const held = new Map<Delivery, Held>()
    for (const one of lane.held) held.set(one.delivery, one)
    const leasedUntil = lane.roundAt + leaseNanos
    const lost = held.size === 0 ? [] : yield* lane.member.renew([...held.keys()])
    lane.isRenewalDue = false
    let vanished = 0
    for (const one of held.values()) {
      one.leasedUntil = leasedUntil
      if (!one.isVanished && one.delivery.isVanished) {
        one.isVanished = true
        vanished++
      }
    }
    for (const delivery of lost) lose(held.get(delivery)!)
    if (vanished > 0) {
      counts.vanished += vanished
      yield* Effect.logWarning(
        `rotif: a limit of their channel removed ${vanished} messages that group "${membership.group}" is handling: they are settled ` +
          `as any other, and lost when this process is`
      )
    }
    lane.overdue.closeUnsafe()
    pump()
  })

  const settle = Settling.make({
    clock,
    counts,
    drop,
    enqueue,
    lose,
    reporter,
    isMoreComing: () => broker.isPolled || running > 0 || head < queue.length
  })

  const consumer: Consumer = {
    counts,
    processing: () => timing.summary,
    reset: () => {
      Object.assign(counts, none)
      timing.reset()
      starts = 0
    },
    vitals: () => {
      let earliest: bigint | undefined
      for (const lane of lanes) {
        for (const { startedAt } of lane.held) {
          if (startedAt !== undefined && (earliest === undefined || startedAt < earliest)) earliest = startedAt
        }
      }
      return {
        readers: lanes.map((lane) => lane.pulse),
        isFull: !paused && (running >= concurrency || capacity.isFull),
        sinceSettledMillis: counts.lastSettledAtMillis === undefined
          ? undefined
          : clock.currentTimeMillisUnsafe() - counts.lastSettledAtMillis,
        longestHandlerMillis: earliest === undefined
          ? undefined
          : Number(clock.monotonicTimeNanosUnsafe() - earliest) / 1e6,
        slowMillis: options.slowMillis
      }
    },
    inFlight: () => running,
    held: () => capacity.held,
    isPaused: () => paused,
    settle: (held, settlement) =>
      Effect.callback<Settled>((resume) => {
        if (held.outcome !== undefined) return resume(Effect.succeed(held.outcome))
        const waiter = (outcome: Settled) => resume(Effect.succeed(outcome))
        if (held.waiters === undefined) held.waiters = [waiter]
        else held.waiters.push(waiter)
        // The first settlement counts; a second one waits for it.
        if (held.phase === "open") timed(held)
        if (held.phase !== "settling") enqueue(held, settlement)
      }),
    commit: (held, changes) =>
      Effect.callback<Settled | CommitRefused>((resume) => {
        if (held.phase !== "running") return resume(Effect.succeed(held.outcome ?? "lost"))
        held.phase = "settling"
        held.lane.commits.push({
          held,
          commit: { delivery: held.delivery, ...changes },
          resume: (outcome) => resume(Effect.succeed(outcome))
        })
        held.lane.settlements.openUnsafe()
      }),
    renew: (held) =>
      Effect.suspend(() =>
        held.phase === "gone"
          ? Effect.succeed<Settled>(held.outcome ?? "lost")
          : Effect.map(held.lane.member.renew([held.delivery]), (lost): Settled => {
            if (lost.length === 0) return "done"
            lose(held)
            return "lost"
          })
      ),
    pause: Effect.suspend(() => {
      paused = true
      resumed.closeUnsafe()
      giveBackWaiting()
      return wakeReaders
    }),
    resume: Effect.suspend(() => {
      paused = false
      resumed.openUnsafe()
      trials.wake()
      pump()
      return begun
    }),
    get ending() {
      return end.ending
    },
    removed: () => removed
  }

  const label = `group "${membership.group}"`

  const end = yield* ConsumerEnd.make({
    label,
    drainMillis: options.drainMillis,
    lanes,
    background: () => background,
    running: () => running,
    live,
    enqueue,
    begin: () => {
      closing = true
      giveBackWaiting()
      options.onEnd()
    },
    leave: Effect.andThen(Scope.close(own, Exit.void), options.afterEnd)
  })

  let background: ReadonlyArray<ConsumerEnd.Background> = []
  // What expired while nobody was there comes before what is new.
  yield* Effect.onError(
    Effect.forEach(lanes, (lane) => whileGroup(claimNow(lane)), { concurrency: 8, discard: true }),
    () => Scope.close(own, Exit.void)
  )
  for (const { member } of lanes) yield* Effect.forkIn(whileGroup(member.awaitRemoval), own)
  yield* Effect.forkIn(supervise(`beginning again for ${label}`, trials.next), own)
  yield* Effect.forkIn(supervise(`looking after what waits for ${label}`, watchPlaces), own)
  background = yield* Effect.forEach(lanes, (lane) =>
    Effect.gen(function*() {
      const reader = yield* Effect.forkIn(
        supervise(`reading for ${label}`, whileGroup(readOnce(lane)), lane.pulse),
        own
      )
      const others = yield* Effect.forEach([
        supervise(
          `claiming for ${label}`,
          Effect.flatMap(
            whileGroup(claimOnce(lane)),
            (millis) => millis === undefined ? lane.member.awaitLease : Effect.sleep(millis)
          )
        ),
        supervise(`renewing for ${label}`, renewOnce(lane)),
        supervise(`settling for ${label}`, settle(lane)),
        ...(beginnings.has(lane) ? [supervise(`beginning for ${label}`, beginnings.get(lane)!.next)] : [])
      ], (loop) => Effect.forkIn(loop, own))
      return { lane, reader, claimer: others[0]!, rest: others.slice(1) }
    }))
  yield* begun
  return consumer
})
