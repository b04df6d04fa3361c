/**
 * Ends that are the same for all who ask for them, however often and from wherever.
 *
 * Who asks from inside of an activity (a handler that ends its own subscription) waits for everything but the activities that wait for an
 * end themselves. The end goes on when these are over.
 */
import type { Fiber, Scope } from "effect"
import { Deferred, Effect, Latch } from "effect"
import * as Activity from "./activity.ts"

/** How long an end waits for handlers that were interrupted, and for its last settlements. */
export const endMillis = 5_000

/** What ends under way wait for. */
const waits = new Set<() => void>()

/** Waits until something is so; looks again when `moved` is called, and when somebody begins to wait for an end. */
export const makeWait = () => {
  const latch = Latch.makeUnsafe(false)
  const moved = () => {
    latch.openUnsafe()
  }
  return {
    moved,
    /** Whether it was so in time. */
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
  /** Begins the end, if nobody has, and waits for it. */
  readonly ask: Effect.Effect<void>
  /** Completes when it is over. */
  readonly over: Effect.Effect<void>
  readonly hasBegun: () => boolean
  /** Nothing is left but what waits for an end itself. */
  readonly isLeftToAskers: () => boolean
  readonly check: () => void
}

export interface Options {
  /** Done at once when the first one asks. */
  readonly begin?: (() => void) | undefined
  /** Done once, in a fiber of its own: who asked may be interrupted, the end is not. */
  readonly run: Effect.Effect<void>
  /** Whether nothing is left to `run` but to wait for activities that wait for an end themselves. */
  readonly isLeftToAskers: () => boolean
}

const underWay = new Set<Ending>()

/** To be called when something has ended, or begun to wait for an end: it may have been all that an end waited for. */
export const changed = (): void => {
  for (const ending of underWay) ending.check()
}

/** Completes when no end is under way that has begun before. */
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
        // Known as one that asks before the end begins.
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

/** The ends of what runs, for whoever has to end all of it. */
export interface Registry {
  readonly all: ReadonlySet<Ending>
  readonly keep: (ending: Ending) => void
}

/** Asks, at the end of the scope, for the ends of what is left. */
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
