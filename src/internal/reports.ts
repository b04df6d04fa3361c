/**
 * What is said of messages that go wrong: the words, how often, and to whom. Nothing fails in silence, and no storm of failures fills a log.
 *
 * - A dead letter is one warning. - A kind of defect is one warning, then one at its rounds 2, 4, 8, ….
 * - What is given back without a failure (a handler that ends by interruption, a release, a key that stays busy) is told at its rounds 1, 2,
 *   4, 8, …. - A failure that is retried is a line for debugging; from the eighth attempt on each doubling is a warning.
 * - What expired and is dropped is a line for debugging; from the eighth of a channel on each doubling is a warning.
 * - A message that was not judged, which is a mistake of ours, is an error at its rounds 1, 2, 4, 8, ….
 * - A group has at most `mostLines` in `windowMillis`; then one line tells how many were left out.
 * - A function for reports has all of them. Each call has its time; where it does not keep up, reports wait, up to `mostWaiting`, and then
 *   are left out and counted in the same line.
 */
import type { Fiber, LogLevel, Scope } from "effect"
import { Cause, Clock, Effect, Exit, Metric, References } from "effect"
import type { Delivery } from "../Broker.ts"
import { Attribute, MetricName, system } from "../Telemetry.ts"
import { Bounded } from "./boundedMap.ts"
import { failureOf, pretty } from "./failure.ts"
import * as Given from "./optionChecks.ts"
import type { Because, Settlement } from "./settlement.ts"
import { monotonicMillis } from "./times.ts"

/** What a report is about; see `Subscription.Report`. */
export type Kind =
  | "DeadLetter"
  | "Defect"
  | "Failure"
  | "Interrupted"
  | "Released"
  | "Busy"
  | "LeaseLost"
  | "SlowHandler"
  | "Expired"
  | "NotJudged"

/** What went wrong with one message of a group. */
export interface Report {
  readonly kind: Kind
  readonly group: string
  readonly channel: string
  /** The id of the message. */
  readonly id: string
  readonly attempt: number
  /**
   * How often it has happened to this message, from 1; how often this kind of defect has happened (`Defect`); how many messages of the
   * channel have expired (`Expired`).
   */
  readonly round: number
  /** Of a dead letter, and of what expired. */
  readonly reason: string | undefined
  /** The `_tag` or name of what the handler failed with. */
  readonly tag: string | undefined
  /** The whole line that would be logged. It holds no payload. */
  readonly message: string
}

/** Where reports go; see `Subscription.Defaults.reports`. */
export type Sink = LogLevel.Severity | "None" | ((report: Report) => Effect.Effect<unknown, unknown>)

const levels: ReadonlyArray<unknown> = ["Fatal", "Error", "Warn", "Info", "Debug", "Trace", "None"]

/** What is wrong with the option `reports`, if anything is. */
export const sinkProblem = (sink: unknown): string | undefined =>
  sink === undefined || typeof sink === "function" || levels.includes(sink)
    ? undefined
    : "reports must be a log level such as \"Warn\", \"None\", or a function of a report to an Effect"

/** Whether something that happens again and again is told this time: at rounds 1, 2, 4, 8, …. */
export const isTold = (round: number): boolean => (round & (round - 1)) === 0

/** Tells of something that fails again and again, at its rounds 1, 2, 4, 8, …; `succeeded` begins anew. */
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

/** Tells that a stream ended because whoever took its elements failed. Its end for any other reason is what its user wanted. */
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

/** At most so many calls of one function for reports are under way. */
const mostCalls = 100

/** At most so many reports wait for one function. */
const mostWaiting = 10_000

/**
 * From this attempt on, a failure that is retried is a warning at each doubling. By default no message has so many attempts. From so many
 * on, messages that expired and are dropped are a warning at each doubling.
 */
const many = 8

/** So many messages, and kinds of defects, are remembered with their rounds in each group. */
const mostRemembered = 1_000

/** How often something happened, by name; what was heard of longest ago is forgotten first. */
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

/** What the subscriptions of one group share in one program. */
interface Budget {
  readonly rounds: Rounds
  users: number
  lines: number
  endsAt: number
  /** What was left out in this window, by kind. */
  readonly omitted: Map<Kind, number>
}

/** The groups that have subscriptions in this program. */
export type Budgets = Map<string, Budget>

const slow = Metric.counter(MetricName.SlowHandlers, {
  description: "Handlers that have run for longer than slowHandler",
  incremental: true
})

/** The handler of a dead letter runs for too long. */
export const tellSlowLetter = (
  name: string,
  { channel, group, letterId }: { readonly channel: string; readonly group: string; readonly letterId: string },
  millis: number
): Effect.Effect<void> =>
  Effect.andThen(
    Metric.update(Metric.withAttributes(slow, { [Attribute.System]: system, [Attribute.Group]: group }), 1),
    Effect.logWarning(
      `rotif: "${name}" has been handling dead letter ${letterId} of group "${group}" on "${channel}" for ${
        Math.round(millis)
      } ms now; it may hang`
    )
  )

const words = (report: Pick<Report, "kind" | "round" | "reason">, detail: string): string => {
  const times = report.round === 1 ? "" : ` ${report.round} times`
  switch (report.kind) {
    case "DeadLetter":
      return `became a dead letter, reason ${report.reason}${detail}`
    case "Defect":
      return `met a defect in its handler and is tried again (this kind of defect has happened ${report.round} times)${detail}`
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
      return `expired before it was handled and is dropped (so have ${report.round} of this channel here)`
    case "NotJudged":
      return `was not judged${times}, and is given back: a mistake of Rotif's${detail}`
    case "SlowHandler":
      return `keeps its handler running${detail}`
  }
}

/** The error of a failure in a few words. What does not decode is not shown: its text quotes the payload. */
const detailOf = (failure: ReturnType<typeof failureOf>): string => {
  if (failure.reason === "decode") return ": the dead letter has the details"
  const text = failure.message.replace(/\s+/g, " ")
  const short = text.length > 200 ? `${text.slice(0, 199)}…` : text
  return `: ${failure.errorTag === undefined || failure.errorTag === short ? short : `${failure.errorTag}: ${short}`}`
}

/** A kind of defect: its name, and its message without numbers. */
const defectName = (channel: string, { errorTag, message }: ReturnType<typeof failureOf>) =>
  `defect\n${channel}\n${errorTag ?? ""}\n${message.slice(0, 200).replace(/\d+/g, "#")}`

/** Tells of the deliveries of one subscription. Nothing here waits or fails: it is called between deliveries. */
export interface Reporter {
  /** A settlement has been stored. */
  readonly settled: (delivery: Delivery, settlement: Settlement) => void
  readonly leaseLost: (delivery: Delivery) => void
  /** What judges its handler has died. */
  readonly noVerdict: (delivery: Delivery, cause: Cause.Cause<unknown>) => void
  /** Its handler runs longer than it should; called once for each. */
  readonly slow: (delivery: Delivery, millis: number) => void
}

/** Reports of a subscription, until its scope ends. What was left out is told then at the latest. */
export const make = Effect.fnUntraced(function*(
  budgets: Budgets,
  group: string,
  sink: Sink
): Effect.fn.Return<Reporter, never, Scope.Scope> {
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
      // What still waits is too late for a function that does not keep up.
      for (const { kind } of waiting.splice(0)) omitted.set(kind, (omitted.get(kind) ?? 0) + 1)
      flushing?.interruptUnsafe()
      return tellOmitted
    })
  )

  /** The milliseconds that are left of the window. */
  const left = (): number => {
    const at = monotonicMillis(clock)
    if (at >= budget.endsAt) {
      if (omitted.size > 0) runFork(tellOmitted)
      budget.endsAt = at + windowMillis
      budget.lines = 0
    }
    return budget.endsAt - at
  }

  /** It is counted, and the count is told when the window ends. */
  const leaveOut = (kind: Kind) => {
    const millis = left()
    if (omitted.size === 0) flushing = runFork(Effect.andThen(Effect.sleep(millis), tellOmitted))
    omitted.set(kind, (omitted.get(kind) ?? 0) + 1)
  }

  /** Whether there is room for one more line; if not it is left out. */
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

  const tell = (
    delivery: Delivery,
    about: Pick<Report, "kind" | "round" | "reason" | "tag">,
    detail: string,
    at: LogLevel.Severity | undefined
  ) => {
    const { attempt, channel, id } = delivery
    const report: Report = {
      ...about,
      group,
      channel,
      id,
      attempt,
      message: `rotif: message ${id} of channel "${channel}" for group "${group}" (attempt ${attempt}) ${
        words(about, detail)
      }`
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
    tell(
      delivery,
      { kind: isDefect ? "Defect" : "Failure", round, reason: undefined, tag: failure.errorTag },
      detailOf(failure),
      isOften || (isDefect && isTold(round)) ? undefined : "Debug"
    )
  }

  const givenBack = (delivery: Delivery, because: Exclude<Because, Cause.Cause<unknown>>) => {
    const kind = kinds[because]
    const round = rounds.next(`${kind}\n${delivery.channel}\n${delivery.id}`)
    if (!isTold(round)) return
    // A handler may release a message once, and a key be busy: that is how they are meant to be used.
    const isUsual = round === 1 && kind !== "Interrupted"
    tell(delivery, { kind, round, reason: undefined, tag: undefined }, "", isUsual ? "Info" : undefined)
  }

  return {
    settled: (delivery, settlement) => {
      if (settlement._tag === "Bury") {
        const { errorTag, reason } = settlement.failure
        tell(
          delivery,
          { kind: "DeadLetter", round: 1, reason, tag: errorTag },
          detailOf(settlement.failure),
          undefined
        )
      } else if (settlement._tag === "Drop") {
        const round = rounds.next(`expired\n${delivery.channel}`)
        const level = round >= many && isTold(round) ? undefined : "Debug"
        tell(delivery, { kind: "Expired", round, reason: "expired", tag: undefined }, "", level)
      } else if (settlement._tag === "Redeliver" && settlement.because !== undefined) {
        const { because } = settlement
        if (typeof because === "string") givenBack(delivery, because)
        else failed(delivery, because)
      }
    },
    leaseLost: (delivery) =>
      tell(delivery, { kind: "LeaseLost", round: 1, reason: undefined, tag: undefined }, "", undefined),
    noVerdict: (delivery, cause) => {
      const round = rounds.next(`not judged\n${delivery.channel}\n${delivery.id}`)
      if (!isTold(round)) return
      const tag = failureOf("exhausted", cause).errorTag
      tell(delivery, { kind: "NotJudged", round, reason: undefined, tag }, `: ${pretty(cause)}`, "Error")
    },
    slow: (delivery, millis) => {
      runFork(Metric.update(
        Metric.withAttributes(slow, { [Attribute.System]: system, [Attribute.Group]: group }),
        1
      ))
      const detail = ` for ${Math.round(millis)} ms now; it may hang, and what waits for it waits on`
      tell(delivery, { kind: "SlowHandler", round: 1, reason: undefined, tag: undefined }, detail, undefined)
    }
  }
})
