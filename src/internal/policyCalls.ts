/** Asks a retry policy of the user's what becomes of a message. */
import { Effect } from "effect"
import { pretty } from "./failure.ts"
import * as Given from "./optionChecks.ts"
import * as Reports from "./reports.ts"

/**
 * A policy that dies, or never answers, must not take the message with it: `otherwise` is what happens then, and it is told at its rounds 1,
 * 2, 4, 8, ….
 */
export const make = (name: string) => {
  const broken = Reports.makeRepeating((round, cause) =>
    Effect.logError(`rotif: the retry policy of ${name} failed (${round} so far)`, pretty(cause))
  )
  return <A, B>(asked: Effect.Effect<A>, otherwise: B): Effect.Effect<A | B> =>
    Effect.catchCause(
      Given.prompt("it", asked),
      (cause) => Effect.as(broken.failed(cause), otherwise)
    )
}
