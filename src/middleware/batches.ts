/**
 * Middleware of handling around a batch.
 *
 * Each message of the batch goes through the chain in a fiber of its own, which waits at the end of the chain. When every message has arrived
 * there, or has ended before, the handler gets those that have arrived, and each chain continues with the outcome of its message. A middleware
 * that knows batches (`AroundBatch`) goes around all of them at once, and needs no fibers.
 */
import type { Context } from "effect"
import { Context as Services, Deferred, Effect, Exit, Fiber, Latch } from "effect"
import type { BatchNext, BatchWrap, Entry } from "./composition.ts"
import { AroundBatch, composeProcess } from "./composition.ts"
import type { AnyMessage, AnyProcess, ProcessNext } from "./definition.ts"

/** An entry at the end of its chain. */
interface Arrived {
  readonly entry: Entry
  readonly context: Context.Context<never>
  readonly outcome: Deferred.Deferred<unknown, unknown>
}

/** The meeting of the messages of one batch at the ends of their chains. */
class Meeting {
  readonly next: BatchNext
  #missing: number
  readonly arrived = new Set<Arrived>()
  hasBegun = false
  /** Open when every message has arrived or ended. */
  readonly complete = Latch.makeUnsafe(false)
  /** Open when no message waits for the handler any more. */
  readonly deserted = Latch.makeUnsafe(false)

  constructor(next: BatchNext, count: number) {
    this.next = next
    this.#missing = count
  }

  /** A message has arrived, or its chain has ended without. */
  met(): void {
    if (--this.#missing === 0) this.complete.openUnsafe()
  }

  left(one: Arrived): void {
    this.arrived.delete(one)
    if (this.hasBegun && this.arrived.size === 0) this.deserted.openUnsafe()
  }
}

/** The way of one message through a chain. */
class Way {
  readonly meeting: Meeting
  readonly place: object
  hasMet = false

  constructor(meeting: Meeting, place: object) {
    this.meeting = meeting
    this.place = place
  }

  meet(): void {
    if (this.hasMet) return
    this.hasMet = true
    this.meeting.met()
  }
}

const CurrentWay = Services.Reference<Way | undefined>("rotif/Middleware/BatchWay", { defaultValue: () => undefined })

/** The end of a chain: waits for the others. A middleware that calls it again handles its message alone. */
const arrive: ProcessNext = (message) =>
  Effect.withFiber((fiber) => {
    const way = fiber.getRef(CurrentWay)!
    const { meeting, place } = way
    const entry: Entry = { place, message }
    if (way.hasMet) return Effect.flatMap(meeting.next([entry]), ([exit]) => exit!) as ReturnType<ProcessNext>
    const outcome = Deferred.makeUnsafe<unknown, unknown>()
    const one: Arrived = { entry, context: fiber.context, outcome }
    meeting.arrived.add(one)
    way.meet()
    return Effect.ensuring(
      Deferred.await(outcome),
      Effect.sync(() => meeting.left(one))
    ) as ReturnType<ProcessNext>
  })

/** Leads each message through these middlewares by itself, and all that arrive at their end to `next`. */
const apart = (middleware: ReadonlyArray<AnyProcess>, next: BatchNext): BatchNext => {
  // The caller's types have the services of the chain.
  const chain = composeProcess(middleware, arrive) as (message: AnyMessage) => Effect.Effect<unknown, unknown>
  return Effect.fnUntraced(function*(entries) {
    const meeting = new Meeting(next, entries.length)
    const all = yield* Effect.forkChild(
      Effect.forEach(entries, ({ message, place }) => {
        const way = new Way(meeting, place)
        return Effect.exit(chain(message)).pipe(
          Effect.ensuring(Effect.sync(() => way.meet())),
          Effect.provideService(CurrentWay, way)
        )
      }, { concurrency: "unbounded" })
    )
    // A chain whose fiber has died ends all.
    yield* Effect.raceFirst(meeting.complete.await, Fiber.await(all))
    const arrived = [...meeting.arrived]
    if (arrived.length > 0) {
      meeting.hasBegun = true
      // The handler has the services that the chain of its first message provides.
      const exits = yield* Effect.raceFirst(
        Effect.provideContext(next(arrived.map(({ entry }) => entry)), arrived[0]!.context),
        Effect.as(meeting.deserted.await, [])
      )
      for (const [i, { outcome }] of arrived.entries()) {
        Deferred.doneUnsafe(outcome, exits[i] ?? Exit.interrupt())
      }
    }
    return yield* Fiber.join(all)
  })
}

/** Composes a chain around a batch; the first is the outermost. */
export const composeBatch = (middleware: ReadonlyArray<AnyProcess>, last: BatchNext): BatchNext => {
  let next = last
  let single: Array<AnyProcess> = []
  const close = () => {
    if (single.length > 0) next = apart(single, next)
    single = []
  }
  for (const one of middleware.toReversed()) {
    const wrap = (one as AnyProcess & { readonly [AroundBatch]?: BatchWrap })[AroundBatch]
    if (wrap === undefined) single.unshift(one)
    else {
      close()
      next = wrap(next)
    }
  }
  close()
  return next
}
