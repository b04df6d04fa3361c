/**
 * Looks for what cannot be in the data of a namespace, and mends what can be mended without losing a message.
 *
 * @since 0.1.0
 */
import type { Duration, Result } from "effect"
import { Context, Data, Effect, Layer, Stream } from "effect"
import type { BrokerError } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import type { Finding, Looked, Suspect } from "./broker/inspection.ts"
import * as Given from "./internal/optionChecks.ts"

export { Finding, Kind } from "./broker/inspection.ts"
export type { Looked } from "./broker/inspection.ts"

/**
 * Options of `verify` and `repair`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * How late something may be before it counts as never moved, and how long a delivery whose message is gone may be left alone before it
   * counts as a ghost. Longer than the longest lease of the namespace. Default 2 minutes.
   */
  readonly tolerance?: Duration.Input | undefined
  /** What looks wrong is judged again after so long, and counts if it is so then. Default 1 second. */
  readonly confirmAfter?: Duration.Input | undefined
  /** So many findings are told, and so many are mended in one of at most 5 rounds. Default 1,000, at most 100,000. */
  readonly limit?: number | undefined
}

/**
 * An option cannot be used. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidInspectorOption extends Data.TaggedError("InvalidInspectorOption")<{
  readonly option: string
  readonly message: string
}> {}

/**
 * What a walk has found.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly findings: ReadonlyArray<Finding>
  /** What was looked at. */
  readonly looked: Looked
  /** `false` when there was more than `limit`. */
  readonly isComplete: boolean
  /** `false` where the server does not permit to list keys (`SCAN`): then keys that nothing names were not found. */
  readonly listsKeys: boolean
}

/**
 * What `repair` has done.
 *
 * @category models
 * @since 0.1.0
 */
export interface Repair {
  /** What was mended. */
  readonly mended: ReadonlyArray<Finding>
  /** What was only found: somebody has to look. */
  readonly left: ReadonlyArray<Finding>
  /** `false` when there was more than `limit`: call it again. */
  readonly isComplete: boolean
  readonly listsKeys: boolean
}

/**
 * The service behind the functions of this module.
 *
 * @category services
 * @since 0.1.0
 */
export class Inspector extends Context.Service<Inspector, {
  readonly verify: (options?: Options) => Effect.Effect<Report, BrokerError | InvalidInspectorOption>
  readonly repair: (options?: Options) => Effect.Effect<Repair, BrokerError | InvalidInspectorOption>
  readonly findings: (options?: Options) => Stream.Stream<Finding, BrokerError | InvalidInspectorOption>
}>()("rotif/Inspector") {}

const nothing: Looked = {
  keys: 0,
  channels: 0,
  groups: 0,
  pending: 0,
  ready: 0,
  waiting: 0,
  bodies: 0,
  letters: 0,
  recurring: 0
}

const plus = (looked: Looked, more: Partial<Looked> = {}): Looked => ({
  keys: looked.keys + (more.keys ?? 0),
  channels: looked.channels + (more.channels ?? 0),
  groups: looked.groups + (more.groups ?? 0),
  pending: looked.pending + (more.pending ?? 0),
  ready: looked.ready + (more.ready ?? 0),
  waiting: looked.waiting + (more.waiting ?? 0),
  bodies: looked.bodies + (more.bodies ?? 0),
  letters: looked.letters + (more.letters ?? 0),
  recurring: looked.recurring + (more.recurring ?? 0)
})

/** Suspects that are confirmed at the same time. */
const confirmedAtOnce = 8

/** After so many rounds what is still found is left to the next call: what a round mends may bring out something else. */
const mostRounds = 5

const names: ReadonlySet<string> = new Set<keyof Options>(["tolerance", "confirmAfter", "limit"])

const given = (options: Options = {}) =>
  Effect.gen(function*() {
    const read = <A>(found: Result.Result<A, Given.Problem>) =>
      Effect.mapError(Effect.fromResult(found), (problem) => new InvalidInspectorOption(problem))
    yield* read(Given.known("the options", options, names))
    return {
      toleranceMillis: yield* read(Given.span("tolerance", options.tolerance, { usual: 120_000, least: 0 })),
      confirmMillis: yield* read(Given.span("confirmAfter", options.confirmAfter, { usual: 1_000, least: 0 })),
      limit: yield* read(Given.count("limit", options.limit, { usual: 1_000, least: 1 }))
    }
  })

interface Step {
  readonly looked: Partial<Looked> | undefined
  readonly found: ReadonlyArray<Suspect>
}

/**
 * The service, on a broker. Part of `Rotif.layer`. Each call makes a layer of its own: two of them are two services, wherever they are provided.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (): Layer.Layer<Inspector, never, Broker> =>
  Layer.effect(
    Inspector,
    Effect.gen(function*() {
      const { inspection } = yield* Broker

      /** What is seen twice: when it is read, and at one time a moment later. */
      const steps = (toleranceMillis: number, confirmMillis: number): Stream.Stream<Step, BrokerError> =>
        Stream.mapEffect(inspection.walk({ toleranceMillis }), ({ looked, suspects }) =>
          suspects.length === 0
            ? Effect.succeed({ looked, found: [] })
            : Effect.gen(function*() {
              const first = yield* Effect.filter(suspects, ({ confirm }) => confirm, { concurrency: confirmedAtOnce })
              if (first.length === 0) return { looked, found: [] }
              yield* Effect.sleep(confirmMillis)
              return {
                looked,
                found: yield* Effect.filter(first, ({ confirm }) => confirm, { concurrency: confirmedAtOnce })
              }
            }))

      /** A walk until `isEnough`, at most `limit` findings of which are told: those that `onFound` does not take. */
      const walk = Effect.fnUntraced(function*(
        { confirmMillis, limit, toleranceMillis }: Effect.Success<ReturnType<typeof given>>,
        isEnough: (told: number) => boolean,
        onFound: (suspect: Suspect) => Effect.Effect<boolean, BrokerError>
      ) {
        let looked = nothing
        let isComplete = true
        const told = new Map<string, Finding>()
        yield* steps(toleranceMillis, confirmMillis).pipe(
          Stream.mapEffect(Effect.fnUntraced(function*(step) {
            looked = plus(looked, step.looked)
            for (const suspect of step.found) {
              const { finding } = suspect
              const { channel, group, id, key, kind } = finding
              const name = JSON.stringify([kind, key, group, channel, id])
              // A server may list a key twice.
              if (told.has(name) || (yield* onFound(suspect))) continue
              if (told.size < limit) told.set(name, finding)
              else isComplete = false
            }
          })),
          Stream.takeWhile(() => !isEnough(told.size)),
          Stream.runDrain
        )
        return { findings: [...told.values()], looked, isComplete: isComplete && !isEnough(told.size) }
      })

      return {
        verify: Effect.fn("Inspector.verify")(function*(options) {
          const settings = yield* given(options)
          const listsKeys = yield* inspection.listsKeys
          const isEnough = (told: number) => told >= settings.limit
          return { ...yield* walk(settings, isEnough, () => Effect.succeed(false)), listsKeys }
        }),
        repair: Effect.fn("Inspector.repair")(function*(options) {
          const settings = yield* given(options)
          const listsKeys = yield* inspection.listsKeys
          const mended: Array<Finding> = []
          for (let round = 1;; round++) {
            const before = mended.length
            // What is left does not keep it from what can be mended.
            const { findings, isComplete } = yield* walk(
              settings,
              () => mended.length - before >= settings.limit,
              ({ finding, repair = Effect.succeed(false) }) =>
                Effect.tap(repair, (isMended) =>
                  Effect.sync(() => {
                    if (isMended) mended.push(finding)
                  }))
            )
            if (mended.length === before || round === mostRounds) {
              return { mended, left: findings, isComplete, listsKeys }
            }
          }
        }),
        findings: (options) =>
          Stream.unwrap(
            Effect.map(given(options), ({ confirmMillis, limit, toleranceMillis }) =>
              steps(toleranceMillis, confirmMillis).pipe(
                Stream.map(({ found }) => found.map(({ finding }) => finding)),
                Stream.flattenIterable,
                Stream.take(limit)
              ))
          )
      }
    })
  )

/**
 * Goes through a namespace and reports what cannot be: messages in two states, times that passed, ghosts, keys that nothing names, counts that
 * are wrong.
 *
 * **Details**: it changes nothing, and works while everything else does: what is found counts when it is so again a moment later, seen
 * at one time. The work is proportional to the number of keys, and of messages that are handed out or wait; logs are not read. It
 * goes in pages, each a few milliseconds of Redis at most. See `docs/verify.md`.
 *
 * **Errors**: `BrokerError` when the backend does not answer; calling again is safe. `InvalidInspectorOption`.
 *
 * **Example** (Failing a check when something is wrong)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Inspector } from "rotif"
 *
 * const check = Effect.gen(function*() {
 *   const { findings } = yield* Inspector.verify()
 *   for (const { key, kind, message } of findings) yield* Effect.logError(`${kind} ${key}: ${message}`)
 *   return findings.length === 0
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const verify = (
  options?: Options
): Effect.Effect<Report, BrokerError | InvalidInspectorOption, Inspector> =>
  Inspector.use((inspector) => inspector.verify(options))

/**
 * Verifies, and mends what can be mended without losing a message.
 *
 * **Details**: each mend judges once more, in the same step. What would lose something is only reported, in `left`. Called again, it
 * finds nothing it could mend; any number of processes may call it at once.
 *
 * **Errors**: `BrokerError` when the backend does not answer; what was mended by then stays so, and calling again is safe.
 * `InvalidInspectorOption`.
 *
 * @category operations
 * @since 0.1.0
 */
export const repair = (
  options?: Options
): Effect.Effect<Repair, BrokerError | InvalidInspectorOption, Inspector> =>
  Inspector.use((inspector) => inspector.repair(options))

/**
 * What `verify` finds, as it finds it.
 *
 * **Errors**: as of `verify`.
 *
 * @category operations
 * @since 0.1.0
 */
export const findings = (
  options?: Options
): Stream.Stream<Finding, BrokerError | InvalidInspectorOption, Inspector> =>
  Stream.unwrap(Inspector.use((inspector) => Effect.succeed(inspector.findings(options))))
