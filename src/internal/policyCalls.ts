/** Calls of retry policies, which are code of the user. */
import { Effect } from "effect"
import { pretty } from "./failure.ts"
import * as Given from "./optionChecks.ts"
import * as Reports from "./reports.ts"

/**
 * Runs the decision of a policy. If the policy dies or does not answer, the message must not be lost: `otherwise` is the decision then, and it is
 * logged at rounds 1, 2, 4, 8, ….
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
