/**
 * What a fault run is: it starts real servers, puts load on them, injects faults, and accounts for every message.
 *
 * Each repetition is a process of its own (`one.ts`), which also looks for what a run cannot see itself: rejections nobody handles,
 * sockets, timers and fibers that are left, memory that grows. `main.ts` (`npm run faults`) repeats the runs and writes the table.
 */
import type { Scope } from "effect"
import { Effect, Schedule } from "effect"
import { type Channel, Inspector } from "rotif"
import { leftover, nothingLeft } from "../contract/kit.ts"

export interface Setting {
  readonly seed: number
  /** The version for CI: a few seconds. The long one is what the table is made of. */
  readonly isShort: boolean
  /**
   * So many times its bound a recovery may take: 1, but 5 in the short version, which shares its machine with other tests. How fast it
   * is, is what the long one measures.
   */
  readonly patience: number
}

export interface Outcome {
  /** Acknowledged publishes. */
  readonly messages: number
  /** Faults injected. */
  readonly faults: number
  /** Acknowledged, and neither handled nor kept anywhere. */
  readonly lost: number
  /** Handled more than once by a group. */
  readonly repeated: number
  /** Milliseconds from the end of a fault, or from the moment its run names, to the first message that is handled again. */
  readonly recoveries: ReadonlyArray<number>
  /** What must not be, in words. A run passes without any. */
  readonly violations: ReadonlyArray<string>
}

export interface Run {
  /** Of the list in `docs/reliability.md`. */
  readonly number: number
  /** The row of the table: the fault, and on what. */
  readonly title: string
  /** The most milliseconds a recovery may take. */
  readonly recoveryWithin?: number | undefined
  /** What is lost is part of the fault: counted in the table, and no violation. */
  readonly mayLose?: boolean | undefined
  /** Default: 20. */
  readonly repetitions?: number | undefined
  /** The most MiB its process may take, RSS. Default: 400. */
  readonly memoryMiB?: number | undefined
  /** Random numbers come from `Random`, which has the seed: draw the plan of the faults first. */
  readonly body: (setting: Setting) => Effect.Effect<Outcome, unknown, Scope.Scope>
}

/** Waits for what only a question can tell, and no longer than so many milliseconds; whether it came to be. */
export const happens = <E, R>(check: Effect.Effect<boolean, E, R>, within: number): Effect.Effect<boolean, E, R> =>
  Effect.timeoutOrElse(
    Effect.as(Effect.repeat(check, { until: (done) => done, schedule: Schedule.spaced(10) }), true),
    { duration: within, orElse: () => Effect.succeed(false) }
  )

/** Waits as well; after a minute it is a failure that says what was waited for. */
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
  /** What the fault itself was. */
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

/** Looked at twice: the counts are not taken at one moment, and a message on its way from one to another is in none of them. */
export const leftTwice = Effect.fnUntraced(function*(source: Channel.Source) {
  const left = yield* leftover(source)
  return isNothing(left) ? yield* leftover(source) : left
})

/**
 * Waits until no message of the channels is unread, pending or waiting, and says what is left when that does not happen; then looks for what
 * cannot be in the whole namespace.
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

/** I5: what nothing may leave behind in Redis, when all is settled and nobody is at work. */
export const sound = (except?: ReadonlyArray<Inspector.Kind>) => found(except, { tolerance: 0, confirmAfter: 300 })
