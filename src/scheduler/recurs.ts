/** The recurrence of a message, as a program gives it. */
import type { Duration } from "effect"
import { Cron, DateTime, Result } from "effect"
import { shown } from "../internal/describe.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Limits from "../internal/optionLimits.ts"
import * as Shape from "../internal/optionShape.ts"
import type { CatchUp, Recurrence } from "../internal/recurrence.ts"
import * as Recur from "../internal/recurrence.ts"

/**
 * The recurrence of a message: a cron expression (five fields, or six with seconds first), a `Cron`, or an interval, whose first tick is one
 * interval after the definition.
 *
 * @category models
 * @since 0.1.0
 */
export type Recurs = string | Cron.Cron | { readonly every: Duration.Input }

/**
 * Options of a recurring message: its headers, its time zone, and what happens to missed ticks.
 *
 * @category models
 * @since 0.1.0
 */
export interface RecurringOptions {
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** The ordering key of its messages; see `Publisher.PublishOptions`. */
  readonly orderingKey?: string | null | undefined
  /** The message of a tick is delivered for at most this long; see `Publisher.PublishOptions`. */
  readonly expiresIn?: Duration.Input | undefined
  /** The zone of the cron expression, such as `"Europe/Berlin"`. Default: that of the `Cron`, or UTC. */
  readonly timeZone?: string | DateTime.TimeZone | undefined
  /**
   * What happens to ticks that were missed by more than 30 seconds because no process ran: `"none"` skips them, `"latest"` (the default)
   * publishes the last one, `{ all: max }` publishes all in order, at most the last `max`. (Ticks that follow each other faster than they can
   * be published count as missed, too.)
   */
  readonly catchUp?: CatchUp | undefined
}

/** The options for any channel. */
export type LooseOptions = RecurringOptions & { readonly params?: Readonly<Record<string, string>> | undefined }

const refuse = (option: string, message: string) => Result.fail<Given.Problem>({ option, message })

const catchUpOf: Shape.Check<CatchUp> = (option, catchUp = "latest") =>
  Recur.isCatchUp(catchUp)
    ? Result.succeed(typeof catchUp === "string" ? catchUp : { all: catchUp.all })
    : refuse(option, `${option} must be "none", "latest" or { all: a whole number from 1 to 1,000 }`)

const everyOnly: ReadonlySet<string> = new Set(["every"])
const recursWanted = "a cron expression, a Cron, or { every: a duration }"
const recurringShape = Shape.shape<LooseOptions>()({
  headers: Shape.any,
  orderingKey: Shape.any,
  expiresIn: Shape.any,
  timeZone: Shape.any,
  catchUp: catchUpOf,
  params: Shape.any
})

const zoneOf = (zone: string | DateTime.TimeZone): Result.Result<string, Given.Problem> => {
  if (DateTime.isTimeZone(zone)) return Result.succeed(DateTime.zoneToString(zone))
  return typeof zone === "string" && DateTime.zoneFromString(zone)._tag === "Some"
    ? Result.succeed(zone)
    : refuse("timeZone", `timeZone: "${shown(zone)}" is not a time zone: expected a name such as "Europe/Berlin"`)
}

/** Reads the recurrence of a message. */
export const recurrenceOf = (recurs: Recurs, options: RecurringOptions | undefined) =>
  Result.gen(function*() {
    const { catchUp, timeZone } = yield* recurringShape.optional("options", options)
    if (typeof recurs !== "string" && !Cron.isCron(recurs)) yield* Given.known("recurs", recurs, everyOnly)
    if (recurs === undefined) return yield* Given.refuse("recurs", recursWanted, recurs)
    if (typeof recurs === "object" && "every" in recurs) {
      const everyMillis = Given.millisOf(recurs.every)
      if (!(everyMillis >= 1 && everyMillis <= Limits.longestKept)) {
        return yield* Given.refuse("every", "a duration from 1 ms to 10 years", recurs.every)
      }
      if (timeZone !== undefined) {
        return yield* refuse(
          "timeZone",
          "timeZone has no meaning beside { every }, which counts from now: write a cron expression"
        )
      }
      return { everyMillis: Math.ceil(everyMillis), catchUp } satisfies Recurrence as Recurrence
    }
    if (typeof recurs === "object" && !Cron.isCron(recurs)) {
      return yield* Given.refuse("recurs", recursWanted, recurs)
    }
    const usual = typeof recurs === "string" || recurs.tz._tag === "None" ? "UTC" : recurs.tz.value
    const zone = yield* zoneOf(timeZone === undefined ? usual : timeZone)
    if (typeof recurs !== "string") return Recur.fromCron(recurs, zone, catchUp)
    const cron = yield* Result.mapError(
      Cron.parse(recurs, zone),
      (error): Given.Problem => ({
        option: "recurs",
        message: `"${recurs}" is not a cron expression: ${error.message}`
      })
    )
    return Recur.fromCron(cron, zone, catchUp)
  })
