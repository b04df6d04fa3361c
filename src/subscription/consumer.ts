/**
 * The engine of a subscription: takes deliveries from the members of a group, runs a handler for each, settles them.
 *
 * Everything here is about one process. Deliveries are held from the moment they are read until their settlement is
 * confirmed; what is held is renewed, counts against the capacity, and is given back when the consumer ends. On the way of a
 * message there is no Stream operator, no queue of Effect's and no fiber but the handler's own.
 */
import { Cause, Context, Effect, Exit, Latch, Scope } from "effect"
import type { Broker, BrokerError, Commit, CommitRefused, Delivery, GroupRemoved, Membership } from "../Broker.ts"
import * as GroupSettings from "../broker/groupSettings.ts"
import * as Activity from "../internal/activity.ts"
import type * as Ending from "../internal/ending.ts"
import { Heartbeat } from "../internal/heartbeat.ts"
import { yieldTurns } from "../internal/pause.ts"
import type { Reporter } from "../internal/reports.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { again, duplicateSettlement, expiredSettlement, later, release } from "../internal/settlement.ts"
import { slowest, supervise } from "../internal/supervise.ts"
import type { Prefetch } from "./capacity.ts"
import { Capacity } from "./capacity.ts"
import * as ConsumerEnd from "./consumerEnd.ts"
import type { Processing } from "./handlerTimes.ts"
import { HandlerTimes } from "./handlerTimes.ts"
import type { Counts, Settled, ShardConsumer } from "./heldDelivery.ts"
import { HeldDelivery } from "./heldDelivery.ts"
import * as OnceGate from "./onceGate.ts"
import * as Settlements from "./settlements.ts"
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
  readonly keyOf?: ((held: HeldDelivery, consumer: Consumer) => ReturnType<OnceGate.KeyOf<R>>) | undefined
  /** It runs with the scope of the delivery, and closes it. */
  readonly handle: (held: HeldDelivery, consumer: Consumer) => Effect.Effect<HandlerOutcome, never, R | Scope.Scope>
  /** Judges a delivery whose fiber has died past `handle`: something in the handler was no effect (`Given.contained`). */
  readonly verdict: (
    held: HeldDelivery,
    consumer: Consumer,
    cause: Cause.Cause<never>
  ) => Effect.Effect<HandlerOutcome, never, R | Scope.Scope>
  /** Told at once when the end begins. */
  readonly onEnd: () => void
  /** The last part of the end. */
  readonly afterEnd: Effect.Effect<void>
}

/** How the consumer is, for those who watch over it. */
export interface Vitals {
  /** Its readers, one for each shard; one that waits for room, or is paused, rests. */
  readonly readers: ReadonlyArray<Heartbeat>
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
  readonly settle: (held: HeldDelivery, settlement: Settlement) => Effect.Effect<Settled>
  /** Acknowledges together with messages and writes; when they are refused the delivery is as it was before. */
  readonly commit: (held: HeldDelivery, changes: Omit<Commit, "delivery">) => Effect.Effect<Settled | CommitRefused>
  readonly renew: (held: HeldDelivery) => Effect.Effect<Settled, BrokerError>
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
  const capacity = new Capacity(
    concurrency,
    options.prefetch,
    (): number => running + queue.length - head + trials.places()
  )

  const blockMillis = broker.isPolled ? options.blockMillis : Infinity
  /** What there is for it has begun, where that takes no time. */
  const begun = broker.isPolled ? Effect.void : yieldTurns

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
  const timing = new HandlerTimes()
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
  let queue: Array<HeldDelivery> = []
  let head = 0
  const resumed = Latch.makeUnsafe(true)
  /** Handlers that run, but for those that end at once. */
  const live = new Set<HeldDelivery>()
  /** Open when a handler has ended since nothing more was fetched in advance. */
  const someEnded = Latch.makeUnsafe(false)
  /** Open when something waits for a handler, or all places are taken. */
  const someWait = Latch.makeUnsafe(false)

  const shards = yield* Effect.forEach(
    broker.shardsOf(membership.selector),
    (shard) =>
      Effect.map(broker.join({ ...membership, shard }), (member): ShardConsumer => ({
        member,
        held: new Set(),
        settlements: Latch.makeUnsafe(false),
        heartbeat: new Heartbeat(`shard ${shard}`, options.blockMillis, monotonic, broker.isPolled),
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

  const drop = (held: HeldDelivery, outcome: Settled) => {
    held.phase = "gone"
    held.outcome = outcome
    held.shard.held.delete(held)
    capacity.drop()
    if (held.delivery.isSuspect) trials.left(held)
    const waiters = held.waiters
    held.waiters = undefined
    if (waiters !== undefined) { for (const waiter of waiters) waiter(outcome) }
    if (closing) end.moved()
  }

  const lose = (held: HeldDelivery) => {
    if (held.phase === "gone") return
    counts.lostLeases++
    reporter.leaseLost(held.delivery)
    drop(held, "lost")
    // Another consumer has the message by now: what this handler still does is in vain.
    held.fiber?.interruptUnsafe()
  }

  const enqueue = (held: HeldDelivery, settlement: Settlement) => {
    held.phase = "settling"
    held.shard.outbox.push({ held, settlement })
    held.shard.settlements.openUnsafe()
  }

  const timed = (held: HeldDelivery) => {
    const { startedAt } = held
    held.startedAt = undefined
    if (startedAt === undefined || !held.isTimed) return
    const nanos = Number(clock.monotonicTimeNanosUnsafe() - startedAt)
    timing.record(nanos)
    capacity.measured(nanos / 1e6)
  }

  /** What judges a handler has failed itself: a mistake of ours, which must not become a busy loop. */
  const broken = (cause: Cause.Cause<never>, { delivery }: HeldDelivery): Settlement => {
    reporter.noVerdict(delivery, cause)
    return { ...release(delivery), delayMillis: slowest }
  }

  /** Its fiber has died on the spot, and nothing of what it would have done at its end is done. */
  const verdictOnDefect = (held: HeldDelivery, exit: Exit.Failure<HandlerOutcome, never>) => {
    const judging = Effect.runForkWith(Context.add(services, Scope.Scope, held.scope))(
      Effect.andThen(Scope.close(held.scope, exit), options.verdict(held, consumer, exit.cause))
    )
    judging.addObserver((verdict) => {
      if (held.phase !== "running") return
      const isSettled = Exit.isSuccess(verdict) && verdict.value._tag !== "Hold"
      enqueue(held, isSettled ? verdict.value as Settlement : broken(exit.cause, held))
    })
  }

  const finished = (held: HeldDelivery, exit: Exit.Exit<HandlerOutcome>) => {
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
        else verdictOnDefect(held, exit)
      } else if (exit.value._tag === "Hold") held.phase = "open"
      else enqueue(held, exit.value)
    }
    if (closing) end.moved()
    trials.wake()
    pump()
  }

  const expire = (held: HeldDelivery) => {
    counts.expired++
    enqueue(
      held,
      options.expired === "drop"
        ? expiredSettlement
        : { _tag: "Bury", failure: { reason: "expired", message: "its time to live ended before it was handled" } }
    )
  }

  const start = (held: HeldDelivery) => {
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

  const run = (held: HeldDelivery) =>
    Effect.runForkWith(Context.add(services, Scope.Scope, held.scope))(options.handle(held, consumer))

  const pump = () => {
    if (pumping || head >= queue.length) return
    if (running >= concurrency) return void someWait.openUnsafe()
    pumping = true
    startingAt = clock.monotonicTimeNanosUnsafe()
    const overdue: Array<HeldDelivery> = []
    let stopped: Set<ShardConsumer> | undefined
    while (running + trials.places() < concurrency && head < queue.length && !paused && !closing) {
      const held = queue[head++]!
      if (held.phase !== "waiting") continue
      // This process was frozen, or cut off: another one may be at it. The renewal tells; what came after it waits as well.
      if (startingAt >= held.leasedUntil || stopped?.has(held.shard) === true) {
        stopped = (stopped ?? new Set()).add(held.shard)
        held.shard.overdue.openUnsafe()
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
  const line = (held: HeldDelivery) => {
    if (held.delivery.isSuspect) trials.add(held)
    else queue.push(held)
  }

  const ready = (held: HeldDelivery) => {
    line(held)
    if (closing || paused) giveBackWaiting()
    else pump()
  }

  const gates = new Map<ShardConsumer, OnceGate.OnceGate<R>>()
  const { keyOf } = options
  if (keyOf !== undefined) {
    for (const shard of shards) {
      gates.set(
        shard,
        OnceGate.make(shard.member, (held) => keyOf(held, consumer), {
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
    for (const gate of gates.values()) {
      for (const held of gate.clear()) if (held.phase === "waiting") enqueue(held, release(held.delivery))
    }
    for (const held of [...trials.clear(), ...queue.slice(head)]) {
      if (held.phase === "waiting") enqueue(held, release(held.delivery))
    }
    queue = []
    head = 0
  }

  /** The only reader keeps all room while it waits. Of several none may keep what another one needs: these wait first, and then take. */
  const isAlone = shards.length === 1

  const wakeReaders = Effect.suspend(() =>
    Effect.forEach(shards, (shard) => shard.member.wake, { concurrency: "unbounded", discard: true })
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
    for (const shard of shards) {
      const waiting = queue.slice(head).filter((held) => held.shard === shard && held.phase === "waiting")
      if (waiting.length === 0) continue
      const shared = yield* shard.member.shared(new Set(waiting.map(({ delivery }) => delivery.channel)))
      for (const held of waiting) {
        if (held.phase === "waiting" && shared.has(held.delivery.channel)) enqueue(held, release(held.delivery))
      }
    }
    // Somebody may come.
    yield* broker.isPolled
      ? Effect.sleep(patienceMillis)
      : Effect.raceFirst(someEnded.await, Effect.raceAllFirst(shards.map(({ member }) => member.awaitJoin)))
  })

  /**
   * Takes what was asked for at `askedAt`. An answer may have lain in the socket while this process was frozen: its leases count from when
   * it would have been read at the latest.
   */
  const accept = (shard: ShardConsumer, askedAt: bigint, deliveries: ReadonlyArray<Delivery>) => {
    const gate = gates.get(shard)
    if (deliveries.length > 0) shard.occupied.openUnsafe()
    const leasedUntil = (askedAt > shard.awakeAt ? askedAt : shard.awakeAt) + leaseNanos
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
        if (delivery.expiresInMillis !== undefined) held.expiresAtMillis = monotonic() + delivery.expiresInMillis
        if (gate !== undefined) gate.add(held)
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

  const readNow = (shard: ShardConsumer, millis: number) =>
    taking(() => capacity.reserve(), (count, askedAt) =>
      count === 0
        ? Effect.void
        : Effect.map(
          shard.member.read(count, millis),
          (deliveries) => accept(shard, broker.isPolled ? askedAt : clock.monotonicTimeNanosUnsafe(), deliveries)
        ))

  const readOnce = (shard: ShardConsumer) =>
    Effect.suspend(() =>
      isAlone && !paused && !closing && capacity.hasRoom ? readNow(shard, blockMillis) : restAndRead(shard)
    )

  const restAndRead = Effect.fnUntraced(function*(shard: ShardConsumer) {
    if (!isAlone && !paused && !closing) {
      const isReady = yield* Effect.uninterruptible(shard.member.awaitReady(blockMillis))
      if (!isReady) return
    }
    if (paused || !capacity.hasRoom) {
      shard.heartbeat.rest()
      yield* resumed.await
      yield* capacity.awaitRoom
      shard.heartbeat.begin()
    }
    if (closing) return yield* Effect.never
    if (paused) return
    yield* readNow(shard, isAlone ? blockMillis : 0)
  })

  const agreement = GroupSettings.make(membership.group, membership)

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
    for (const words of agreement.heard(found.settings)) yield* Effect.logWarning(words)
    if (found.vanished > 0) {
      counts.vanished += found.vanished
      yield* Effect.logWarning(
        `rotif: group "${membership.group}" lost ${found.vanished} messages: a limit of their channel removed them before they were handled`
      )
    }
    return found
  })

  const claimOnce = Effect.fnUntraced(function*(shard: ShardConsumer) {
    yield* resumed.await
    if (closing) return yield* Effect.never
    const found = yield* claimNow(shard)
    if (!found.isMore) return found.nextInMillis
    // It comes before what is new: who waits for that with all the room gives it back.
    return (yield* capacity.claimFirst(isAlone ? wakeReaders : Effect.void, claimNow(shard))).nextInMillis
  })

  let removed: GroupRemoved | undefined
  /** Runs what tells when somebody has removed the group: what is held is forgotten with it, and the consumer ends. */
  const whileGroup = <A>(body: Effect.Effect<A, BrokerError | GroupRemoved>): Effect.Effect<A | void, BrokerError> =>
    Effect.catchTag(body, "GroupRemoved", (error) =>
      Effect.suspend(() => {
        if (removed !== undefined) return Effect.void
        removed = error
        for (const shard of shards) {
          for (const held of shard.held) {
            drop(held, "lost")
            held.fiber?.interruptUnsafe()
          }
        }
        Activity.detach(end.ending.ask)
        return Effect.logWarning(`rotif: ${error.message}`)
      }))

  const tellSlow = (shard: ShardConsumer) => {
    const at = clock.monotonicTimeNanosUnsafe()
    for (const held of shard.held) {
      if (held.isSlow || held.startedAt === undefined) continue
      const millis = Number(at - held.startedAt) / 1e6
      if (millis <= options.slowMillis) continue
      held.isSlow = true
      reporter.slow(held.delivery, millis)
    }
  }

  const renewOnce = Effect.fnUntraced(function*(shard: ShardConsumer) {
    // One that failed is tried again soon: the lease goes on passing.
    if (!broker.isPolled && shard.held.size === 0) {
      shard.occupied.closeUnsafe()
      yield* shard.occupied.await
    }
    if (!shard.isRenewalDue) yield* Effect.timeoutOption(shard.overdue.await, membership.leaseMillis / 3)
    shard.isRenewalDue = true
    tellSlow(shard)
    shard.awakeAt = shard.roundAt
    shard.roundAt = clock.monotonicTimeNanosUnsafe()
    const held = new Map<Delivery, HeldDelivery>()
    for (const one of shard.held) held.set(one.delivery, one)
    const leasedUntil = shard.roundAt + leaseNanos
    const lost = held.size === 0 ? [] : yield* shard.member.renew([...held.keys()])
    shard.isRenewalDue = false
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
    shard.overdue.closeUnsafe()
    pump()
  })

  const settle = Settlements.make({
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
      for (const shard of shards) {
        for (const { startedAt } of shard.held) {
          if (startedAt !== undefined && (earliest === undefined || startedAt < earliest)) earliest = startedAt
        }
      }
      return {
        readers: shards.map((shard) => shard.heartbeat),
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
        held.shard.commits.push({
          held,
          commit: { delivery: held.delivery, ...changes },
          resume: (outcome) => resume(Effect.succeed(outcome))
        })
        held.shard.settlements.openUnsafe()
      }),
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
    shards,
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
    Effect.forEach(shards, (shard) => whileGroup(claimNow(shard)), { concurrency: 8, discard: true }),
    () => Scope.close(own, Exit.void)
  )
  for (const { member } of shards) yield* Effect.forkIn(whileGroup(member.awaitRemoval), own)
  yield* Effect.forkIn(supervise(`beginning again for ${label}`, trials.next), own)
  yield* Effect.forkIn(supervise(`looking after what waits for ${label}`, watchPlaces), own)
  background = yield* Effect.forEach(shards, (shard) =>
    Effect.gen(function*() {
      const reader = yield* Effect.forkIn(
        supervise(`reading for ${label}`, whileGroup(readOnce(shard)), shard.heartbeat),
        own
      )
      const others = yield* Effect.forEach([
        supervise(
          `claiming for ${label}`,
          Effect.flatMap(
            whileGroup(claimOnce(shard)),
            (millis) => millis === undefined ? shard.member.awaitLease : Effect.sleep(millis)
          )
        ),
        supervise(`renewing for ${label}`, renewOnce(shard)),
        supervise(`settling for ${label}`, settle(shard)),
        ...(gates.has(shard) ? [supervise(`beginning for ${label}`, gates.get(shard)!.next)] : [])
      ], (loop) => Effect.forkIn(loop, own))
      return { shard, reader, claimer: others[0]!, rest: others.slice(1) }
    }))
  yield* begun
  return consumer
})
