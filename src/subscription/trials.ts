/**
 * Trials: how suspects begin, which are deliveries that were taken over from lost consumers.
 *
 * It is not known whether a message has crashed its consumer, or was only held by it. So a suspect is noted in the backend before its handler
 * begins, and only a note that is lost with its consumer counts as a crash. The first time, suspects begin side by side: most consumers are
 * lost for other reasons. Suspects that had begun when another consumer was lost are tried alone, one at a time in a process, over all of its
 * subscriptions. Then at most the message that causes a crash counts another one. New messages are handled beside them.
 *
 * A suspect that is tried alone for long (`patienceMillis`) is acquitted when another one waits for its turn: its note is taken back, its
 * handler continues, and the next suspect begins.
 */
import type { Clock, Scope } from "effect"
import { Effect, Latch } from "effect"
import type { BrokerError } from "../Broker.ts"
import type { HeldDelivery, ShardConsumer } from "./heldDelivery.ts"
import { giveBack, isPausedOn } from "./heldDelivery.ts"

/** After this long, a suspect that is tried alone no longer keeps others waiting. It is longer if one of the two has more crashes. */
const patienceMillis = (crashes: number) => 5_000 * 6 ** Math.min(3, Math.max(0, crashes - 1))

/** The trial of one suspect alone. */
interface Trial {
  readonly crashes: number
  /** In nanoseconds of the monotonic clock. */
  readonly since: bigint
  /** Takes back the note of the suspect, and gives the turn up. */
  readonly endTrial: Effect.Effect<void, BrokerError>
}

/** The turn to try a suspect alone. */
class Turn {
  /** The trial that has the turn. */
  trial: Trial | undefined
  /** Called when the turn is free. */
  readonly waiting = new Set<() => void>()

  take(trial: Trial): void {
    this.trial = trial
  }

  giveUp(trial: Trial): void {
    if (this.trial !== trial) return
    this.trial = undefined
    for (const wake of this.waiting) wake()
  }
}

/** One turn for each process, because a crash ends all that runs in the process. A simulated clock counts as a process. */
const turns = new WeakMap<Clock.Clock, Turn>()

const turnOf = (clock: Clock.Clock): Turn => {
  const known = turns.get(clock)
  if (known !== undefined) return known
  const turn = new Turn()
  turns.set(clock, turn)
  return turn
}

export interface Trials {
  /** Takes a suspect that may begin. */
  readonly add: (held: HeldDelivery) => void
  /** Takes back the suspects that have not begun. */
  readonly clear: () => ReadonlyArray<HeldDelivery>
  /** To be called when a suspect has left this process. */
  readonly left: (held: HeldDelivery) => void
  /** To be called when a place has become free. */
  readonly wake: () => void
  /** The number of places that are kept free for suspects. */
  readonly places: () => number
  /** Waits for suspects and for room, and begins them. One fiber runs it again and again. */
  readonly next: Effect.Effect<void, BrokerError>
}

export const make = Effect.fnUntraced(function*(options: {
  readonly clock: Clock.Clock
  /** The number of suspects that may begin: 0 while the consumer is paused or ends. */
  readonly room: () => number
  /** The room of a suspect that is tried alone. */
  readonly roomAlone: number
  readonly start: (held: HeldDelivery) => void
  readonly lose: (held: HeldDelivery) => void
}): Effect.fn.Return<Trials, never, Scope.Scope> {
  const { clock, room, roomAlone } = options
  const turn = turnOf(clock)
  const work = Latch.makeUnsafe(false)
  const wake = () => void work.openUnsafe()
  /** The suspects that begin side by side, and those that are tried alone. */
  let together: Array<HeldDelivery> = []
  let alone: Array<HeldDelivery> = []
  let beginning = 0
  let mine: { readonly held: HeldDelivery; readonly trial: Trial } | undefined

  const add = (held: HeldDelivery) => {
    if (held.delivery.crashes > 0) {
      alone.push(held)
      // The suspect with the most crashes comes first.
      alone.sort((a, b) => b.delivery.crashes - a.delivery.crashes)
      turn.waiting.add(wake)
    } else together.push(held)
    wake()
  }

  const takeTurn = (held: HeldDelivery) => {
    const { crashes } = held.delivery
    const trial: Trial = {
      crashes,
      since: clock.monotonicTimeNanosUnsafe(),
      endTrial: Effect.suspend(() =>
        Effect.map(held.shard.member.endTrial([held.delivery]), () => {
          if (mine?.trial === trial) giveUpTurn()
        })
      )
    }
    mine = { held, trial }
    turn.take(trial)
  }

  const giveUpTurn = () => {
    const given = mine
    mine = undefined
    if (given !== undefined) turn.giveUp(given.trial)
  }

  const left = (held: HeldDelivery) => {
    if (mine?.held === held) giveUpTurn()
  }

  /** How long the trial that has the turn may keep it. */
  const leftMillis = (): number | undefined => {
    if (alone.length === 0 || turn.trial === undefined || room() === 0) return undefined
    const passed = Number(clock.monotonicTimeNanosUnsafe() - turn.trial.since) / 1e6
    return Math.max(0, patienceMillis(Math.max(turn.trial.crashes, alone[0]!.delivery.crashes)) - passed)
  }

  const isWaiting = ({ phase }: HeldDelivery) => phase === "waiting"

  /** Takes the suspects that may begin now. */
  const take = (): ReadonlyArray<HeldDelivery> => {
    alone = alone.filter(isWaiting)
    together = together.filter(isWaiting)
    const batch: Array<HeldDelivery> = []
    if (alone.length > 0 && room() > 0 && turn.trial === undefined) {
      const held = alone.shift()!
      takeTurn(held)
      batch.push(held)
    }
    batch.push(...together.splice(0, Math.max(0, room() - batch.length * roomAlone)))
    if (alone.length === 0) turn.waiting.delete(wake)
    return batch
  }

  const again = (held: HeldDelivery) => {
    left(held)
    if (isWaiting(held)) add(held)
  }

  /** Notes that suspects begin, and starts those that are still held. */
  const begin = Effect.fnUntraced(function*(shard: ShardConsumer, some: ReadonlyArray<HeldDelivery>) {
    const askedAt = clock.monotonicTimeNanosUnsafe()
    const refused = new Set(
      yield* Effect.onError(
        shard.member.beginTrial(some.map(({ delivery }) => delivery)),
        () => Effect.sync(() => some.forEach(again))
      )
    )
    for (const held of some) {
      if (refused.has(held.delivery)) {
        options.lose(held)
        continue
      }
      held.leasedUntil = askedAt + shard.leaseNanos
      if (!isWaiting(held)) continue
      beginning--
      if (room() === 0 || isPausedOn(held)) giveBack(held)
      // This process was frozen meanwhile: another consumer may have it.
      else if (clock.monotonicTimeNanosUnsafe() >= held.leasedUntil) again(held)
      else options.start(held)
    }
  })

  const next = Effect.gen(function*() {
    const millis = leftMillis()
    yield* millis === undefined ? work.await : Effect.timeoutOption(work.await, millis)
    work.closeUnsafe()
    if (leftMillis() === 0) yield* turn.trial!.endTrial
    const batch = take()
    if (batch.length === 0) return
    const byShard = Map.groupBy(batch, ({ shard }) => shard)
    beginning = batch.length
    yield* Effect.forEach(byShard, ([shard, some]) => begin(shard, some), { concurrency: "unbounded", discard: true })
      .pipe(
        Effect.ensuring(Effect.sync(() => {
          beginning = 0
          wake()
        }))
      )
  })

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      turn.waiting.delete(wake)
      giveUpTurn()
    })
  )

  return {
    add,
    clear: () => {
      const all = [...alone, ...together]
      alone = []
      together = []
      turn.waiting.delete(wake)
      return all
    },
    left,
    wake: () => {
      if (alone.length > 0 || together.length > 0) wake()
    },
    places: () => beginning + together.length + (alone.length > 0 && turn.trial === undefined ? 1 : 0),
    next
  }
})
