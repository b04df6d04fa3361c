import { Schema } from "effect"
import * as Given from "../internal/optionChecks.ts"

/**
 * A middleware cannot be used: an option is invalid, or a function of it returned an invalid value. Options are refused where the
 * middleware is made; the others fail the publish or the attempt.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidMiddleware
  extends Schema.TaggedError<InvalidMiddleware>()("InvalidMiddleware", Given.problemFields)
{}

/** @internal */
export const checked = Given.throwing(InvalidMiddleware)
