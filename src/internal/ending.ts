/**
 * Ends: an end is the same for all who ask for it, however often and from wherever.
 *
 * A caller inside of an activity (a handler that ends its own subscription) waits for everything but the activities that wait for an end
 * themselves. The end continues when these are over.
 */
import type { Fiber, Scope } from "effect"
import { Deferred, Effect, Latch } from "effect"
import * as Activity from "./activity.ts"

/** An end waits this long for handlers that were interrupted, and for its last settlements. */
export const endMillis = 5_000

/** The waits of ends under way. */
const waits = new Set<() => void>()

/** Makes a wait for a condition. The condition is checked again when `moved` is called, and when an activity begins to wait for an end. */
export const makeWait = () => {
  const latch = Latch.makeUnsafe(false)
  const moved = () => {
    latch.openUnsafe()
  }
  return {
    moved,
    /** Waits until the condition holds, at most `millis`. Returns whether it did. */
    within: (millis: number, isSo: () => boolean): Effect.Effect<boolean> =>
      Effect.suspend(() =>
        isSo() || millis <= 0
          ? Effect.succeed(isSo())
          : Effect.suspend(() => {
            waits.add(moved)
            return Effect.timeoutOption(
              Effect.whileLoop({
                while: () => !isSo(),
                body: () => {
                  latch.closeUnsafe()
                  return latch.await
                },
                step: () => {}
              }),
              millis
            )
          }).pipe(
            Effect.ensuring(Effect.sync(() => waits.delete(moved))),
            Effect.map((done) => done._tag === "Some")
          )
      )
  }
}

export interface Ending {
  /** Begins the end, unless it has begun, and waits for it. */
  readonly ask: Effect.Effect<void>
  /** Completes when the end is over. */
  readonly over: Effect.Effect<void>
  readonly hasBegun: () => boolean
  /** Whether nothing is left but activities that wait for an end themselves. */
  readonly isLeftToAskers: () => boolean
  readonly check: () => void
}

export interface Options {
  /** Done at once when the first caller asks. */
  readonly begin?: (() => void) | undefined
  /** Done once, in a fiber of its own: a caller may be interrupted, the end is not. */
  readonly run: Effect.Effect<void>
  /** Whether `run` only waits for activities that wait for an end themselves. */
  readonly isLeftToAskers: () => boolean
}

const underWay = new Set<Ending>()

/** To be called when an activity has ended, or has begun to wait for an end: it may have been the last that an end waited for. */
export const changed = (): void => {
  for (const ending of underWay) ending.check()
}

/** Completes when all ends that are under way now are over. */
export const allOver: Effect.Effect<void> = Effect.suspend(() =>
  Effect.forEach([...underWay], ({ over }) => over, { concurrency: "unbounded", discard: true })
)

const asking = <A, E, R>(inside: Activity.Activity, effect: Effect.Effect<A, E, R>) => {
  const mark = (by: 1 | -1) => {
    for (let one: Activity.Activity | undefined = inside; one !== undefined; one = one.within) one.asks += by
  }
  return Effect.suspend(() => {
    mark(1)
    // An end that has begun before waits for this one no longer.
    for (const moved of waits) moved()
    changed()
    return Effect.ensuring(effect, Effect.sync(() => mark(-1)))
  })
}

export const make = (options: Options): Effect.Effect<Ending> =>
  Effect.map(Effect.context<never>(), (context) => {
    const runFork = Effect.runForkWith(context)
    const over = Deferred.makeUnsafe<void>()
    const waiting = new Set<() => void>()
    let hasBegun = false
    let isOver = false

    const begin = () => {
      if (hasBegun) return
      hasBegun = true
      underWay.add(ending)
      options.begin?.()
      const run = Effect.onExit(options.run, (exit) =>
        Effect.sync(() => {
          isOver = true
          underWay.delete(ending)
          Deferred.doneUnsafe(over, exit)
          changed()
        }))
      Activity.enter(undefined, runFork, run)
    }

    const leftToAskers = Effect.callback<void>((resume) => {
      const entry = () => resume(Effect.void)
      waiting.add(entry)
      ending.check()
      return Effect.sync(() => waiting.delete(entry))
    })

    const ending: Ending = {
      ask: Effect.suspend(() => {
        const inside = Activity.current()
        const wait = Effect.suspend(() => {
          begin()
          return inside === undefined
            ? Deferred.await(over)
            : Effect.raceFirst(Deferred.await(over), leftToAskers)
        })
        // It must be known as an asker before the end begins.
        return inside === undefined ? wait : asking(inside, wait)
      }),
      over: Deferred.await(over),
      hasBegun: () => hasBegun,
      isLeftToAskers: () => isOver || options.isLeftToAskers(),
      check: () => {
        if (waiting.size === 0 || !ending.isLeftToAskers()) return
        const entries = [...waiting]
        waiting.clear()
        for (const entry of entries) entry()
      }
    }
    return ending
  })

/**
 * The fiber of what has an end: it completes as `ended` does, and an interruption asks for the end. The end does not wait for a handler that
 * asks for it. So each interruption asks where it is called: the finalizer of the fiber would know only the first caller.
 */
export const fiberOf = <E>(ending: Ending, ended: Effect.Effect<void, E>): Fiber.Fiber<void, E> => {
  const asked = Deferred.makeUnsafe<void>()
  const fiber = Activity.detach(Effect.onInterrupt(ended, () => Deferred.await(asked)))
  const interrupt = fiber.interruptUnsafe.bind(fiber)
  const interruptUnsafe: typeof interrupt = (...given) => {
    Effect.runFork(Effect.andThen(ending.ask, Deferred.succeed(asked, undefined)))
    interrupt(...given)
  }
  return Object.assign(fiber, { interruptUnsafe })
}

/** A registry of ends. */
export interface Registry {
  readonly all: ReadonlySet<Ending>
  readonly keep: (ending: Ending) => void
}

/** Makes a registry. At the end of the scope it asks for all ends that are left. */
export const registry: Effect.Effect<Registry, never, Scope.Scope> = Effect.suspend(() => {
  const all = new Set<Ending>()
  return Effect.as(
    Effect.addFinalizer(() => Effect.forEach([...all], ({ ask }) => ask, { concurrency: "unbounded", discard: true })),
    {
      all,
      keep: (ending: Ending) => {
        all.add(ending)
        Activity.detach(Effect.ensuring(ending.over, Effect.sync(() => all.delete(ending))))
      }
    }
  )
})
