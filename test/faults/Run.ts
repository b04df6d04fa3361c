/**
 * A fault run starts real servers, puts load on them, injects faults, and accounts for every message.
 *
 * Each repetition is a process of its own (`one.ts`). That process also reports what a run cannot see itself: unhandled rejections,
 * sockets, timers and fibers that are left, memory that grows. `main.ts` (`npm run faults`) repeats the runs and writes the table.
 */
import type { Scope } from "effect"
import { Effect, Schedule } from "effect"
import { type Channel, Inspector } from "rotif"
import { leftover, nothingLeft } from "../contract/kit.ts"

export interface Setting {
  readonly seed: number
  /** Chooses the short version, which takes a few seconds and is played by tests. The table shows the long one. */
  readonly isShort: boolean
  /**
   * A recovery may take its bound times this: 1, but 5 in the short version, which shares its machine with other tests. The long
   * version measures recoveries.
   */
  readonly patience: number
}

export interface Outcome {
  /** Acknowledged publishes. */
  readonly messages: number
  /** Faults injected. */
  readonly faults: number
  /** Acknowledged publishes that are neither handled nor kept anywhere. */
  readonly lost: number
  /** Messages that a group handled more than once. */
  readonly repeated: number
  /** Milliseconds from the end of a fault, or from the moment its run names, to the first message that is handled again. */
  readonly recoveries: ReadonlyArray<number>
  /** Broken rules, in words. A run passes without any. */
  readonly violations: ReadonlyArray<string>
}

export interface Run {
  /** Its number in the list of `docs/reliability.md`. */
  readonly number: number
  /** The fault and its target, as the table shows them. */
  readonly title: string
  /** A recovery may take at most this many milliseconds. */
  readonly recoveryWithin?: number | undefined
  /** Losses are part of the fault: the table counts them, and they are no violation. */
  readonly mayLose?: boolean | undefined
  /** Repetitions of the long version. Default: 20. */
  readonly repetitions?: number | undefined
  /** Its process may take at most this many MiB, RSS. Default: 400. */
  readonly memoryMiB?: number | undefined
  /** Random numbers come from `Random`, which has the seed. Draw the plan of the faults first. */
  readonly body: (setting: Setting) => Effect.Effect<Outcome, unknown, Scope.Scope>
}

/** Repeats a check until it holds, for at most `within` milliseconds; gives whether it held. */
export const happens = <E, R>(check: Effect.Effect<boolean, E, R>, within: number): Effect.Effect<boolean, E, R> =>
  Effect.timeoutOrElse(
    Effect.as(Effect.repeat(check, { until: (done) => done, schedule: Schedule.spaced(10) }), true),
    { duration: within, orElse: () => Effect.succeed(false) }
  )

/** Repeats a check until it holds; after `within` milliseconds it dies with the name of the condition. */
export const until = <E, R>(
  what: string,
  check: Effect.Effect<boolean, E, R>,
  within = 60_000
): Effect.Effect<void, E, R> =>
  Effect.flatMap(
    happens(check, within),
    (done) => done ? Effect.void : Effect.die(new Error(`not within ${within} ms: ${what}`))
  )

export interface Expected {
  /** Milliseconds. Default: a minute. */
  readonly within?: number | undefined
  /** Findings that the fault itself explains. */
  readonly except?: ReadonlyArray<Inspector.Kind> | undefined
}

const found = (except: ReadonlyArray<Inspector.Kind> = [], options?: Inspector.Options) =>
  Effect.map(
    Inspector.verify(options),
    ({ findings }) =>
      findings.filter(({ kind }) => !except.includes(kind)).slice(0, 5)
        .map(({ key, kind, message }) => `I5: ${kind} in ${key}: ${message}`)
  )

export const isNothing = (left: unknown) => JSON.stringify(left) === JSON.stringify(nothingLeft)

/** Reads the unfinished messages twice: the counts are not taken at one moment, and a message that moves between two of them is in none. */
export const leftTwice = Effect.fnUntraced(function*(source: Channel.Source) {
  const left = yield* leftover(source)
  return isNothing(left) ? yield* leftover(source) : left
})

/**
 * Waits until no message of the channels is unread, pending or waiting, and reports the rest when that does not happen. Then verifies
 * the whole namespace.
 */
export const settled = Effect.fnUntraced(function*(
  source: Channel.Source,
  { except, within = 60_000 }: Expected = {}
) {
  let left: unknown
  const isDone = Effect.map(Effect.result(leftTwice(source)), (result) => {
    left = result._tag === "Success" ? result.success : result.failure
    return isNothing(left)
  })
  if (!(yield* happens(isDone, within))) return [`I5: after ${within} ms there is left ${JSON.stringify(left)}`]
  return yield* found(except)
})

/** I5: verifies the namespace when all is settled and no process runs. */
export const sound = (except?: ReadonlyArray<Inspector.Kind>) => found(except, { tolerance: 0, confirmAfter: 300 })
