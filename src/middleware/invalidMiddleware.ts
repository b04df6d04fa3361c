import type { Result } from "effect"
import { Data } from "effect"
import * as Given from "../internal/optionChecks.ts"

/**
 * A middleware cannot be used: an option is invalid, or a function of it returned an invalid value. Options are refused where the
 * middleware is made; the others fail the publish or the attempt.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidMiddleware extends Data.TaggedError("InvalidMiddleware")<{
  readonly option: string
  readonly message: string
}> {}

/** @internal */
export const checked = <A>(found: Result.Result<A, Given.Problem>): A =>
  Given.orThrow(found, (problem) => new InvalidMiddleware(problem))
