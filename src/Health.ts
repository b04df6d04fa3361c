/**
 * Health: whether this program can do its work (readiness), and whether its loops still run (liveness).
 *
 * @since 0.1.0
 */
import { Clock, Context, Duration, Effect, Layer, Result } from "effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { BrokerError, Pause, Selector } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import type { GroupSum } from "./Stats.ts"
import { ofGroup } from "./Stats.ts"
import * as Subscription from "./Subscription.ts"
import { Duties } from "./duties/duties.ts"
import type { Heartbeat } from "./internal/heartbeat.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Shape from "./internal/optionShape.ts"

/**
 * Thresholds of a healthy program. A group's threshold that is not given is not checked.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** A check takes at most this long; a backend that has not answered by then is unreachable. Default 2 seconds. */
  readonly timeout?: Duration.Input | undefined
  /** A backend that takes longer to answer is slow. Default 500 ms. */
  readonly latency?: Duration.Input | undefined
  /** A reader or a duty that is overdue by more than this is stale. Default 10 seconds. */
  readonly staleAfter?: Duration.Input | undefined
  /** If a loop is overdue by more than this, with success or without, the program is not live. Default 1 minute. */
  readonly hungAfter?: Duration.Input | undefined
  /**
   * A handler that runs for longer counts as stuck, and is reported once in the log and in the metric `rotif.process.slow`. A subscription can
   * have a span of its own. Default 5 minutes.
   */
  readonly slowHandler?: Duration.Input | undefined
  /** At most this many messages wait to be handed out to a group of this program. */
  readonly maxLag?: number | undefined
  /** At most this many messages are handed out to such a group and not settled. */
  readonly maxPending?: number | undefined
  /** The oldest message that such a group has not settled is at most this old. */
  readonly maxAge?: Duration.Input | undefined
  /** Such a group makes at most this many dead letters within this span, as the checks of this program see it. */
  readonly deadLetters?: { readonly max: number; readonly within: Duration.Input } | undefined
}

/**
 * Overall status. `degraded`: the program works, and needs attention. `unhealthy`: it cannot do its work.
 *
 * @category models
 * @since 0.1.0
 */
export type Status = "healthy" | "degraded" | "unhealthy"

/**
 * The kind of a reason.
 *
 * - `Unreachable`: the backend does not answer. - `Slow`: it answers slowly. - `Unreadable`: it answers, but its counts cannot be read.
 * - `StaleReader`: a subscription has read nothing for too long, although it could. - `StaleDuty`: a duty of this program (promoter, ticker,
 *   janitor, relay) is overdue.
 * - `Hung`: a loop does not run any more. - `StuckHandler`: a handler runs for too long; unhealthy if all handlers of its subscription are busy
 *   and nothing was settled for as long.
 * - `EndedStream`: the consumer of a `Subscription.stream` failed, and none has begun again.
 * - `Lag`, `Pending`, `Age`, `DeadLetters`: a group exceeds its threshold.
 *
 * @category models
 * @since 0.1.0
 */
export type ReasonKind =
  | "Unreachable"
  | "Slow"
  | "Unreadable"
  | "StaleReader"
  | "StaleDuty"
  | "Hung"
  | "StuckHandler"
  | "EndedStream"
  | "Lag"
  | "Pending"
  | "Age"
  | "DeadLetters"

/**
 * One reason why a report is not `healthy`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reason {
  readonly kind: ReasonKind
  readonly status: "degraded" | "unhealthy"
  /** The group, the duty, or `"backend"`. */
  readonly subject: string
  readonly message: string
}

/**
 * The health of a program: its status, with reasons.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  /** The worst of its reasons. */
  readonly status: Status
  /** Whether every loop of this program still runs: if not, only a restart helps. It does not depend on the backend. */
  readonly isLive: boolean
  /** Whether it can do its work: `status` is not `unhealthy`. */
  readonly isReady: boolean
  /** How long the backend took to answer; `undefined` if it did not. */
  readonly latencyMillis: number | undefined
  readonly reasons: ReadonlyArray<Reason>
  /** The pauses of its groups (`Groups.pause`), as its consumers know them. A paused group is no reason: somebody wants it so. */
  readonly paused: ReadonlyArray<Pause>
}

/**
 * The service behind the functions of this module.
 *
 * @category services
 * @since 0.1.0
 */
export class Health extends Context.Service<Health, {
  readonly check: Effect.Effect<Report>
  readonly liveness: Effect.Effect<{ readonly isLive: boolean; readonly reasons: ReadonlyArray<Reason> }>
}>()("rotif/Health") {}

const spoken = (millis: number) => Duration.format(Duration.millis(Math.round(millis)))

const threshold = (usual: number) => Shape.span({ usual, least: 0, most: Infinity })
const number = Shape.count({ usual: Number.NaN, least: 0, most: Number.MAX_SAFE_INTEGER })

/** Both must be there: what is left out is no number. */
const letterShape = Shape.shape<NonNullable<Options["deadLetters"]>>()({
  max: (option, value) => number(option, value ?? Number.NaN),
  within: (option, value) => threshold(0)(option, value ?? Number.NaN)
})

const shape = Shape.shape<Options>()({
  timeout: Shape.span({ usual: 2_000, least: 1 }),
  latency: threshold(500),
  staleAfter: threshold(10_000),
  hungAfter: threshold(60_000),
  slowHandler: threshold(300_000),
  maxLag: Shape.optional(number),
  maxPending: Shape.optional(number),
  maxAge: Shape.optional(threshold(0)),
  deadLetters: Shape.optional((option, value) =>
    letterShape.optional(option, value as Options["deadLetters"], `${option}.`)
  )
})

/**
 * Reads the thresholds; dies if one cannot be used.
 *
 * @internal
 */
export const thresholdsOf = (options: Options | undefined) => Given.orDie(shape.optional("health", options, "health."))

/** The result of a check within its time, or why there is none. */
const within = <A>(effect: Effect.Effect<A, BrokerError>, millis: number): Effect.Effect<Result.Result<A, string>> =>
  effect.pipe(
    Effect.mapError(({ message }) => message),
    Effect.timeoutOrElse({
      duration: millis,
      orElse: () => Effect.fail(`no answer within ${spoken(millis)}`)
    }),
    Effect.result
  )

/** At most this many samples of the number of dead letters are kept; growth is measured between them. */
const samples = 60

interface Sample {
  readonly atMillis: number
  readonly dead: ReadonlyMap<string, number>
}

interface Watched {
  readonly name: string
  readonly group: string
  readonly selector: Selector
}

/**
 * Provides the service. It is part of `Rotif.layer`, with its option `health`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<Health, never, Broker | Duties | Subscription.Subscriptions> =>
  Layer.effect(
    Health,
    Effect.gen(function*() {
      const broker = yield* Broker
      const { pulses } = yield* Duties
      const { failures, running, watched } = yield* Subscription.Subscriptions
      const clock = yield* Clock.Clock
      const thresholds = yield* thresholdsOf(options)
      const { deadLetters: letters, maxAge, maxLag, maxPending } = thresholds
      const judgesGroups = [maxLag, maxPending, maxAge, letters].some((one) => one !== undefined)
      const withinMillis = letters?.within ?? 0
      const monotonic = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
      let history: ReadonlyArray<Sample> = []

      const groups = (): ReadonlyArray<Watched> =>
        [...running].flatMap((subscription) => {
          const { group, pattern } = subscription
          const found = watched.get(subscription)
          return found === undefined
            ? []
            : [{ name: `group "${group}" on ${pattern}`, group, selector: found.selector }]
        })

      const hung = (pulse: Heartbeat, subject: string): ReadonlyArray<Reason> =>
        pulse.sinceTurnMillis <= pulse.roundMillis + thresholds.hungAfter ? [] : [{
          kind: "Hung",
          status: "unhealthy",
          subject,
          message: `${pulse.name} has not come round for ${spoken(pulse.sinceTurnMillis)}`
        }]

      /** The reasons that this program finds without the backend. */
      const look = (): ReadonlyArray<Reason> => {
        const reasons: Array<Reason> = []
        for (const subscription of running) {
          const { group, pattern } = subscription
          const subject = `group "${group}" on ${pattern}`
          const vitals = watched.get(subscription)?.vitals()
          if (vitals === undefined) continue
          for (const pulse of vitals.readers) {
            reasons.push(...hung(pulse, subject))
            if (pulse.sincePassMillis > pulse.roundMillis + thresholds.staleAfter) {
              reasons.push({
                kind: "StaleReader",
                status: "unhealthy",
                subject,
                message: `the reader of ${pulse.name} has not completed a read for ${spoken(pulse.sincePassMillis)}`
              })
            }
          }
          const longest = vitals.longestHandlerMillis
          if (longest !== undefined && longest > vitals.slowMillis) {
            // While its other handlers end, the subscription works.
            const isStuck = vitals.isFull && (vitals.sinceSettledMillis ?? Infinity) > vitals.slowMillis
            reasons.push({
              kind: "StuckHandler",
              status: isStuck ? "unhealthy" : "degraded",
              subject,
              message: `a handler has been running for ${spoken(longest)}${
                isStuck ? ", and no more messages are begun" : ""
              }`
            })
          }
        }
        for (const { group, message, pattern } of failures.values()) {
          reasons.push({
            kind: "EndedStream",
            status: "unhealthy",
            subject: `group "${group}" on ${pattern}`,
            message
          })
        }
        for (const pulse of pulses) {
          reasons.push(...hung(pulse, pulse.name))
          if (pulse.sincePassMillis > pulse.roundMillis + thresholds.staleAfter) {
            reasons.push({
              kind: "StaleDuty",
              status: "degraded",
              subject: pulse.name,
              message: `the ${pulse.name} has not done its duty for ${spoken(pulse.sincePassMillis)}`
            })
          }
        }
        return reasons
      }

      /** The pauses of its groups: each once, if several subscriptions keep it. */
      const paused = (): ReadonlyArray<Pause> => [
        ...new Map(
          [...running].flatMap((subscription) =>
            (watched.get(subscription)?.vitals().pauses ?? []).map((pause) =>
              [`${pause.group}\n${pause.pattern}`, pause] as const
            )
          )
        ).values()
      ]

      const beyond = (
        kind: ReasonKind,
        subject: string,
        value: number | undefined,
        most: number | undefined,
        tell: (value: number, most: number) => string
      ): ReadonlyArray<Reason> =>
        value === undefined || most === undefined || value <= most
          ? []
          : [{ kind, status: "degraded", subject, message: tell(value, most) }]

      /** The growth of the number of dead letters since the beginning of the span. */
      const growth = (sums: ReadonlyMap<string, GroupSum>): ReadonlyMap<string, number> => {
        const atMillis = monotonic()
        const dead = new Map([...sums].map(([name, { totals }]) => [name, totals.dead]))
        // The last sample before the span is the base of the comparison.
        const from = history.findLastIndex((sample) => sample.atMillis <= atMillis - withinMillis)
        history = history.slice(Math.max(0, from))
        const last = history.at(-1)
        if (last === undefined || atMillis - last.atMillis >= withinMillis / samples) {
          history = [...history, { atMillis, dead }]
        }
        const first = history[0]!.dead
        return new Map([...dead].map(([name, count]) => [name, count - (first.get(name) ?? count)]))
      }

      const judgeGroups = Effect.gen(function*() {
        const sums = new Map<string, GroupSum>()
        for (const { group, name, selector } of groups()) {
          if (sums.has(name)) continue
          const sum = ofGroup(yield* broker.stats.read(selector), group)
          if (sum !== undefined) sums.set(name, sum)
        }
        const grown = growth(sums)
        return [...sums].flatMap(([name, { lag, oldestMillis, pauses, pending }]) => [
          // What waits because of a pause is no fault.
          ...beyond("Lag", name, pauses.length > 0 ? undefined : lag, maxLag, (n, most) =>
            `${n} messages wait to be handed out, ${most} may`),
          ...beyond("Pending", name, pending, maxPending, (n, most) =>
            `${n} messages are handed out and not settled, ${most} may be`),
          ...beyond("Age", name, pauses.length > 0 ? undefined : oldestMillis, maxAge, (age, most) =>
            `the oldest message is not settled after ${spoken(age)}, ${spoken(most)} is allowed`),
          ...beyond("DeadLetters", name, grown.get(name), letters?.max, (n, most) =>
            `${n} new dead letters within ${spoken(withinMillis)}, ${most} may be`)
        ])
      })

      const ask = Effect.gen(function*() {
        const from = monotonic()
        const answer = yield* within(broker.ping, thresholds.timeout)
        const tookMillis = monotonic() - from
        if (Result.isFailure(answer)) {
          const reason: Reason = {
            kind: "Unreachable",
            status: "unhealthy",
            subject: "backend",
            message: answer.failure
          }
          return { latencyMillis: undefined, reasons: [reason] }
        }
        const slow = beyond("Slow", "backend", tookMillis, thresholds.latency, (took, most) =>
          `it answered after ${spoken(took)}, ${spoken(most)} is allowed`)
        if (!judgesGroups) {
          return { latencyMillis: tookMillis, reasons: slow }
        }
        const judged = yield* within(judgeGroups, Math.max(0, thresholds.timeout - tookMillis))
        const reasons: ReadonlyArray<Reason> = Result.isSuccess(judged)
          ? judged.success
          : [{ kind: "Unreadable", status: "degraded", subject: "backend", message: judged.failure }]
        return { latencyMillis: tookMillis, reasons: [...slow, ...reasons] }
      })

      return {
        check: Effect.map(ask, ({ latencyMillis, reasons: asked }): Report => {
          const reasons = [...asked, ...look()]
          const isUnhealthy = reasons.some(({ status }) =>
            status === "unhealthy"
          )
          return {
            status: isUnhealthy ? "unhealthy" : reasons.length > 0 ? "degraded" : "healthy",
            isLive: reasons.every(({ kind }) =>
              kind !== "Hung"
            ),
            isReady: !isUnhealthy,
            latencyMillis,
            reasons,
            paused: paused()
          }
        }),
        liveness: Effect.sync(() => {
          const reasons = look().filter(({ kind }) =>
            kind === "Hung"
          )
          return { isLive: reasons.length === 0, reasons }
        })
      }
    })
  )

/**
 * Checks the backend, the subscriptions and duties of this program, and its groups that have thresholds.
 *
 * **Details**: it ends after about `timeout`, whatever the backend does, and never fails. A subscription that is paused, or that holds as many
 * messages as it may, is not expected to read. Another program of the namespace may do a duty: if it is not done here, that is `degraded`.
 *
 * **Example** (What is wrong)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Health } from "rotif"
 *
 * const report = Effect.gen(function*() {
 *   const { reasons, status } = yield* Health.check
 *   yield* Effect.log(status, ...reasons.map(({ message, subject }) => `${subject}: ${message}`))
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const check: Effect.Effect<Report, never, Health> = Health.use((health) => health.check)

/**
 * Checks whether the loops of this program still run. It asks no backend, so a backend that is down does not make a program look dead.
 *
 * @category operations
 * @since 0.1.0
 */
export const liveness: Effect.Effect<
  { readonly isLive: boolean; readonly reasons: ReadonlyArray<Reason> },
  never,
  Health
> = Health.use((health) => health.liveness)

/**
 * Options of `layerRoutes`: the paths.
 *
 * @category models
 * @since 0.1.0
 */
export interface RouteOptions {
  /** Default `"/health/live"`. */
  readonly live?: HttpRouter.PathInput | undefined
  /** Default `"/health/ready"`. */
  readonly ready?: HttpRouter.PathInput | undefined
}

const uncached = { "cache-control": "no-store" }

/**
 * Serves liveness and readiness by HTTP: both routes answer 200 for yes and 503 for no, with the reasons as JSON.
 *
 * **Details**: `live` is `liveness`, `ready` is the whole report. They name groups, channels and patterns, and no payloads.
 *
 * **Example** (Serving them)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { Health, Rotif } from "rotif"
 *
 * const server = HttpRouter.serve(Health.layerRoutes()).pipe(Layer.provide(Rotif.layerMemory))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRoutes = (options?: RouteOptions): Layer.Layer<never, never, HttpRouter.HttpRouter | Health> =>
  Layer.unwrap(Effect.map(Health, (health) =>
    Layer.mergeAll(
      HttpRouter.add(
        "GET",
        options?.live ?? "/health/live",
        Effect.map(
          health.liveness,
          (answer) => HttpServerResponse.jsonUnsafe(answer, { status: answer.isLive ? 200 : 503, headers: uncached })
        )
      ),
      HttpRouter.add(
        "GET",
        options?.ready ?? "/health/ready",
        Effect.map(
          health.check,
          (report) => HttpServerResponse.jsonUnsafe(report, { status: report.isReady ? 200 : 503, headers: uncached })
        )
      )
    )))
