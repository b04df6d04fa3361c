/**
 * Integrity checks of the data of a namespace: `verify` finds states that no operation can produce, `repair` repairs those that can be
 * repaired without losing a message.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"
import { Context, Effect, Layer, Record, Schema, Stream } from "effect"
import type { BrokerError } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import type { Finding, Looked, Suspect } from "./broker/inspection.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Shape from "./internal/optionShape.ts"

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
   * A message that is overdue by more than this counts as never moved, and a delivery that was idle for more than this, and whose message is
   * gone, as a ghost. Longer than the longest lease of the namespace. Default 2 minutes.
   */
  readonly tolerance?: Duration.Input | undefined
  /** A suspect is checked again after this long, and counts if it is still wrong. Default 1 second. */
  readonly confirmAfter?: Duration.Input | undefined
  /** At most this many findings are reported, and at most this many repaired in each of at most 5 rounds. Default 1,000, at most 100,000. */
  readonly limit?: number | undefined
}

/**
 * An option cannot be used. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidInspectorOption extends Schema.TaggedError<InvalidInspectorOption>()("InvalidInspectorOption", {
  option: Schema.String,
  message: Schema.String
}) {}

/**
 * The result of `verify`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly findings: ReadonlyArray<Finding>
  /** How much was checked. */
  readonly looked: Looked
  /** `false` if there was more than `limit`. */
  readonly isComplete: boolean
  /** `false` if the server does not permit to list keys (`SCAN`): keys that nothing refers to were not found then. */
  readonly listsKeys: boolean
}

/**
 * The result of `repair`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Repair {
  /** Findings that were repaired. */
  readonly repaired: ReadonlyArray<Finding>
  /** Findings that were only reported: an operator has to decide. */
  readonly left: ReadonlyArray<Finding>
  /** `false` if there was more than `limit`: call it again. */
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

const plus = (looked: Looked, more: Partial<Looked> = {}): Looked =>
  Record.map({ ...looked }, (count, name) => count + (more[name] ?? 0))

/** At most this many suspects are confirmed at the same time. */
const confirmedAtOnce = 8

/** After at most this many rounds the rest is left to the next call: the repairs of one round may reveal something else. */
const mostRounds = 5

const shape = Shape.shape<Options>()({
  tolerance: Shape.span({ usual: 120_000, least: 0 }),
  confirmAfter: Shape.span({ usual: 1_000, least: 0 }),
  limit: Shape.count({ usual: 1_000, least: 1 })
})

const given = (options?: Options) =>
  Effect.map(
    Given.failing(InvalidInspectorOption)(shape.optional("the options", options)),
    ({ confirmAfter: confirmMillis, limit, tolerance: toleranceMillis }) => ({ confirmMillis, limit, toleranceMillis })
  )

interface Step {
  readonly looked: Partial<Looked> | undefined
  readonly found: ReadonlyArray<Suspect>
}

/**
 * Provides the service on a broker. It is part of `Rotif.layer`. Each call makes a layer of its own: two of them are two services, wherever they
 * are provided.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (): Layer.Layer<Inspector, never, Broker> =>
  Layer.effect(
    Inspector,
    Effect.gen(function*() {
      const { inspection } = yield* Broker

      /** Suspects that are wrong twice: when they are read, and at one time a moment later. */
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

      /** Walks until `isEnough`. At most `limit` findings are reported: those that `onFound` does not take. */
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
          const repaired: Array<Finding> = []
          for (let round = 1;; round++) {
            const before = repaired.length
            // Findings that are only reported must not use up the limit of repairs.
            const { findings, isComplete } = yield* walk(
              settings,
              () => repaired.length - before >= settings.limit,
              ({ finding, repair = Effect.succeed(false) }) =>
                Effect.tap(repair, (isRepaired) =>
                  Effect.sync(() => {
                    if (isRepaired) repaired.push(finding)
                  }))
            )
            if (repaired.length === before || round === mostRounds) {
              return { repaired, left: findings, isComplete, listsKeys }
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
 * Checks a namespace and reports states that no operation can produce: messages in two states, overdue times, ghosts, keys that nothing refers
 * to, wrong counts.
 *
 * **Details**: it changes nothing, and runs while everything else runs: a finding counts if it is confirmed a moment later, at one time. The
 * work is proportional to the number of keys, and of messages that are handed out or wait; logs are not read. It works in pages, each at most
 * a few milliseconds of Redis. See `docs/verify.md`.
 *
 * **Errors**: `BrokerError` if the backend does not answer; calling again is safe. `InvalidInspectorOption`: nothing was done.
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
 * Verifies, and repairs what can be repaired without losing a message.
 *
 * **Details**: each repair confirms its finding once more, in the same step. Findings whose repair would lose something are only reported, in
 * `left`. A second call finds nothing that it could repair. Any number of processes may call it at the same time.
 *
 * **Errors**: `BrokerError` if the backend does not answer; what was repaired by then stays repaired, and calling again is safe.
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
 * Streams the findings of `verify` as they are found.
 *
 * **Errors**: those of `verify`.
 *
 * @category operations
 * @since 0.1.0
 */
export const findings = (
  options?: Options
): Stream.Stream<Finding, BrokerError | InvalidInspectorOption, Inspector> =>
  Stream.unwrap(Inspector.use((inspector) => Effect.succeed(inspector.findings(options))))
