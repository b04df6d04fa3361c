/**
 * Reports about messages that fail: their words, how often they are made, and their destination. No failure is silent, and many failures do
 * not fill a log.
 *
 * - A dead letter is one warning.
 * - A kind of defect is a warning at its rounds 1, 2, 4, 8, ….
 * - A message that is given back without a failure (its handler was interrupted or released it, or its key is busy) is reported at its rounds
 *   1, 2, 4, 8, ….
 * - A failure that is retried is a line of level `Debug`; from the eighth attempt on, each doubling is a warning.
 * - A message that expired and is dropped is a line of level `Debug`; from the eighth of a channel on, each doubling is a warning.
 * - A message without a verdict, which is a mistake in Rotif, is an error at its rounds 1, 2, 4, 8, ….
 * - A group has at most `mostLines` in `windowMillis`; then one line gives the number of lines left out.
 * - A function for reports gets all of them. Each call has a time limit. If it does not keep up, at most `mostWaiting` reports wait; more are
 *   left out and counted in the same line.
 */
import type { Fiber, LogLevel } from "effect"
import { Cause, Clock, Effect, Exit, Metric, References, Result } from "effect"
import type { Delivery } from "../Broker.ts"
import { Attribute, MetricName, system } from "../Telemetry.ts"
import { Bounded } from "./boundedMap.ts"
import { failureOf, pretty } from "./failure.ts"
import * as Given from "./optionChecks.ts"
import type { Kind, Report } from "./report.ts"
import type { Because, Settlement } from "./settlement.ts"
import { monotonicMillis } from "./times.ts"

/** The destination of reports; see `Subscription.Defaults.reports`. */
export type Sink = LogLevel.Severity | "None" | ((report: Report) => Effect.Effect<unknown, unknown>)

const levels: ReadonlyArray<unknown> = ["Fatal", "Error", "Warn", "Info", "Debug", "Trace", "None"]

/** Checks the option `reports`. */
export const sinkOf = (option: string, sink: unknown = "Warn"): Result.Result<Sink, Given.Problem> =>
  typeof sink === "function" || levels.includes(sink) ? Result.succeed(sink as Sink) : Result.fail({
    option,
    message: `${option} must be a log level such as "Warn", "None", or a function of a report to an Effect`
  })

/** Whether something that happens repeatedly is reported in this round: 1, 2, 4, 8, …. */
export const isTold = (round: number): boolean => (round & (round - 1)) === 0

/** Reports something that fails repeatedly, at its rounds 1, 2, 4, 8, …. `succeeded` starts again at 1. */
export interface Repeating {
  readonly failed: (cause: Cause.Cause<unknown>) => Effect.Effect<void>
  readonly succeeded: () => void
}

export const makeRepeating = (
  tell: (round: number, cause: Cause.Cause<unknown>) => Effect.Effect<void>
): Repeating => {
  let round = 0
  return {
    failed: (cause) => Effect.suspend(() => isTold(++round) ? tell(round, cause) : Effect.void),
    succeeded: () => {
      round = 0
    }
  }
}

/** How often something has failed, for the log. */
export const times = (round: number): string => round === 1 ? "once" : `${round} times in a row`

/** Logs that a stream ended because its consumer failed. It ends for any other reason because its user wants it. */
export const tellEnd = (
  what: string,
  exit: Exit.Exit<unknown, unknown>,
  onFailure?: (first: string) => void
): Effect.Effect<void> => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return Effect.void
  const text = pretty(exit.cause)
  onFailure?.(text.split("\n", 1)[0]!)
  return Effect.logError(`rotif: ${what} ended, because its consumer failed; nobody takes what comes next`, text)
}

const mostLines = 10
const windowMillis = 10_000

/** At most this many calls of one function for reports run at a time. */
const mostCalls = 100

/** At most this many reports wait for one function. */
const mostWaiting = 10_000

/**
 * From this attempt on, a failure that is retried is a warning at each doubling. By default no message has this many attempts. From this number
 * on, messages of a channel that expired and are dropped are a warning at each doubling.
 */
const many = 8

/** At most this many messages and kinds of defects are remembered with their rounds, in each group. */
const mostRemembered = 1_000

/** Counts rounds by name. The name that was counted longest ago is forgotten first. */
class Rounds {
  private readonly counts = new Bounded<string, number>(mostRemembered)

  next(name: string): number {
    const round = (this.counts.get(name) ?? 0) + 1
    this.counts.delete(name)
    this.counts.set(name, round)
    return round
  }
}

const kinds = { interrupted: "Interrupted", released: "Released", busy: "Busy" } as const

/** The log budget that the subscriptions of one group share in one program. */
interface Budget {
  readonly rounds: Rounds
  users: number
  lines: number
  endsAt: number
  /** The number of reports left out in this window, by kind. */
  readonly omitted: Map<Kind, number>
}

/** The budgets of the groups that have subscriptions in this program. */
export type Budgets = Map<string, Budget>

const slow = Metric.counter(MetricName.SlowHandlers, {
  description: "Handlers that have run for longer than slowHandler",
  incremental: true
})

const countSlow = (group: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(slow, { [Attribute.System]: system, [Attribute.Group]: group }), 1)

/** Reports a slow handler of a dead letter. */
export const tellSlowLetter = (
  name: string,
  { channel, group, letterId }: { readonly channel: string; readonly group: string; readonly letterId: string },
  millis: number
): Effect.Effect<void> =>
  Effect.andThen(
    countSlow(group),
    Effect.logWarning(
      `rotif: "${name}" has been handling dead letter ${letterId} of group "${group}" on "${channel}" for ${
        Math.round(millis)
      } ms now; it may hang`
    )
  )

const words = (kind: Kind, round: number, reason: string | undefined, detail: string): string => {
  const times = round === 1 ? "" : ` ${round} times`
  switch (kind) {
    case "DeadLetter":
      return `became a dead letter, reason ${reason}${detail}`
    case "Defect":
      return `met a defect in its handler and is tried again (this kind of defect has happened ${round} times)${detail}`
    case "Failure":
      return `failed and is tried again${detail}`
    case "Interrupted":
      return `was given back${times} because its handler ended by interruption; no attempt is counted`
    case "Released":
      return `was released${times} by its handler or its retry policy; no attempt is counted`
    case "Busy":
      return `was put off${times} because another message with its exactlyOnce key is being handled`
    case "LeaseLost":
      return "lost its lease before it was settled, and will be handled again; a longer lease helps, or a handler that does not block the " +
        "event loop"
    case "Expired":
      return `expired before it was handled and is dropped (so have ${round} of this channel here)`
    case "NotJudged":
      return `was not judged${times}, and is given back: a mistake of Rotif's${detail}`
    case "SlowHandler":
      return `keeps its handler running${detail}`
  }
}

/** The error of a failure in a few words. A decode error is not shown: its text quotes the payload. */
const detailOf = (failure: ReturnType<typeof failureOf>): string => {
  if (failure.reason === "decode") return ": the dead letter has the details"
  const text = failure.message.replace(/\s+/g, " ")
  const short = text.length > 200 ? `${text.slice(0, 199)}…` : text
  return `: ${failure.errorTag === undefined || failure.errorTag === short ? short : `${failure.errorTag}: ${short}`}`
}

/** The name of a kind of defect: its tag, and its message without numbers. */
const defectName = (channel: string, { errorTag, message }: ReturnType<typeof failureOf>) =>
  `defect\n${channel}\n${errorTag ?? ""}\n${message.slice(0, 200).replace(/\d+/g, "#")}`

/** Reports about the deliveries of one subscription. Its functions neither wait nor fail: they are called between deliveries. */
export type Reporter = Effect.Success<ReturnType<typeof make>>

/** Makes the reporter of a subscription. The number of reports left out is logged at the end of the scope at the latest. */
export const make = Effect.fnUntraced(function*(budgets: Budgets, group: string, sink: Sink) {
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const clock = yield* Clock.Clock
  const least = yield* References.MinimumLogLevel
  const isDebugging = least === "All" || least === "Trace" || least === "Debug"

  const budget: Budget = budgets.get(group) ??
    { rounds: new Rounds(), users: 0, lines: 0, endsAt: -Infinity, omitted: new Map() }
  budget.users++
  budgets.set(group, budget)
  const { omitted, rounds } = budget

  const level = typeof sink === "string" && sink !== "None" ? sink : "Warn"
  const tellOmitted = Effect.suspend(() => {
    if (omitted.size === 0) return Effect.void
    const all = [...omitted.values()].reduce((sum, count) => sum + count, 0)
    const kinds = [...omitted].map(([kind, count]) => `${count} ${kind}`).join(", ")
    omitted.clear()
    return Effect.logWithLevel(level)(`rotif: group "${group}": ${all} more reports were left out (${kinds})`)
  })
  let flushing: Fiber.Fiber<void> | undefined
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      if (--budget.users === 0) budgets.delete(group)
      // Reports that still wait are too late for a function that does not keep up.
      for (const { kind } of waiting.splice(0)) omitted.set(kind, (omitted.get(kind) ?? 0) + 1)
      flushing?.interruptUnsafe()
      return tellOmitted
    })
  )

  /** Returns the milliseconds that are left of the window. */
  const left = (): number => {
    const at = monotonicMillis(clock)
    if (at >= budget.endsAt) {
      if (omitted.size > 0) runFork(tellOmitted)
      budget.endsAt = at + windowMillis
      budget.lines = 0
    }
    return budget.endsAt - at
  }

  /** Leaves a report out. The number is logged when the window ends. */
  const leaveOut = (kind: Kind) => {
    const millis = left()
    if (omitted.size === 0) flushing = runFork(Effect.andThen(Effect.sleep(millis), tellOmitted))
    omitted.set(kind, (omitted.get(kind) ?? 0) + 1)
  }

  /** Whether there is room for one more line. If not, it is left out. */
  const mayTell = (kind: Kind): boolean => {
    left()
    if (budget.lines < mostLines) {
      budget.lines++
      return true
    }
    leaveOut(kind)
    return false
  }

  const waiting: Array<Report> = []
  let calls = 0
  const call = (sink: Exclude<Sink, string>, report: Report) =>
    Effect.catchCause(Given.prompt("it", Given.effect("the function for reports", () => sink(report))), (cause) => {
      const round = rounds.next("sink")
      return isTold(round)
        ? Effect.logError(`rotif: the function for reports of group "${group}" failed ${round} times`, pretty(cause))
        : Effect.void
    })
  const callAll = Effect.fnUntraced(function*(sink: Exclude<Sink, string>, first: Report) {
    for (let report: Report | undefined = first; report !== undefined; report = waiting.shift()) {
      yield* call(sink, report)
    }
    calls--
  })
  const give = (sink: Exclude<Sink, string>, report: Report): void => {
    if (calls < mostCalls) {
      calls++
      runFork(callAll(sink, report))
    } else if (waiting.length < mostWaiting) waiting.push(report)
    else leaveOut(report.kind)
  }

  /** Reports in the log at the level `at`, by default that of the option. */
  const tell = (
    delivery: Delivery,
    kind: Kind,
    { at, detail = "", reason, round = 1, tag }: {
      readonly round?: number
      readonly reason?: string
      readonly tag?: string | undefined
      readonly detail?: string
      readonly at?: LogLevel.Severity | undefined
    } = {}
  ) => {
    const { attempt, channel, id } = delivery
    const what = words(kind, round, reason, detail)
    const report: Report = {
      kind,
      round,
      reason,
      tag,
      group,
      channel,
      id,
      attempt,
      message: `rotif: message ${id} of channel "${channel}" for group "${group}" (attempt ${attempt}) ${what}`
    }
    if (typeof sink === "function") {
      give(sink, report)
      return
    }
    if (at === "Debug") return void (isDebugging && runFork(Effect.logDebug(report.message)))
    if (sink !== "None" && mayTell(report.kind)) runFork(Effect.logWithLevel(at ?? level)(report.message))
  }

  const failed = (delivery: Delivery, cause: Cause.Cause<unknown>) => {
    const isDefect = Cause.hasDies(cause)
    const isOften = delivery.attempt >= many && isTold(delivery.attempt)
    if (!isDefect && !isOften && !isDebugging && typeof sink !== "function") return
    const failure = failureOf("exhausted", cause)
    const round = isDefect ? rounds.next(defectName(delivery.channel, failure)) : delivery.attempt
    tell(delivery, isDefect ? "Defect" : "Failure", {
      round,
      tag: failure.errorTag,
      detail: detailOf(failure),
      at: isOften || (isDefect && isTold(round)) ? undefined : "Debug"
    })
  }

  const givenBack = (delivery: Delivery, because: Exclude<Because, Cause.Cause<unknown>>) => {
    const kind = kinds[because]
    const round = rounds.next(`${kind}\n${delivery.channel}\n${delivery.id}`)
    if (!isTold(round)) return
    // One release, or one wait for a busy key, is normal.
    const isUsual = round === 1 && kind !== "Interrupted"
    tell(delivery, kind, { round, at: isUsual ? "Info" : undefined })
  }

  return {
    /** A settlement has been stored. */
    settled: (delivery: Delivery, settlement: Settlement): void => {
      if (settlement._tag === "Bury") {
        const { errorTag, reason } = settlement.failure
        tell(delivery, "DeadLetter", { reason, tag: errorTag, detail: detailOf(settlement.failure) })
      } else if (settlement._tag === "Drop") {
        const round = rounds.next(`expired\n${delivery.channel}`)
        tell(delivery, "Expired", {
          round,
          reason: "expired",
          at: round >= many && isTold(round) ? undefined : "Debug"
        })
      } else if (settlement._tag === "Redeliver" && settlement.because !== undefined) {
        const { because } = settlement
        if (typeof because === "string") givenBack(delivery, because)
        else failed(delivery, because)
      }
    },
    leaseLost: (delivery: Delivery): void => tell(delivery, "LeaseLost"),
    /** No verdict about the failure of its handler could be made. */
    noVerdict: (delivery: Delivery, cause: Cause.Cause<unknown>): void => {
      const round = rounds.next(`not judged\n${delivery.channel}\n${delivery.id}`)
      if (!isTold(round)) return
      const tag = failureOf("exhausted", cause).errorTag
      tell(delivery, "NotJudged", { round, tag, detail: `: ${pretty(cause)}`, at: "Error" })
    },
    /** Its handler is slow. Called once for each delivery. */
    slow: (delivery: Delivery, millis: number): void => {
      runFork(countSlow(group))
      const detail = ` for ${Math.round(millis)} ms now; it may hang, and what waits for it waits on`
      tell(delivery, "SlowHandler", { detail })
    }
  }
})
