/** The names of channels, and patterns: sequences of dot-separated segments. */
import { Result, Schema } from "effect"
import { globProblem } from "../internal/pattern.ts"

/**
 * A name or pattern cannot be used. `make`, `pattern` and `union` throw it, because it is a mistake in the program; `checkName` returns it, for
 * names that users choose.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidChannelName extends Schema.TaggedError<InvalidChannelName>()("InvalidChannelName", {
  name: Schema.String,
  message: Schema.String
}) {}

const maxNameBytes = 1024
const maxWildcards = 64

// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const control = /[\u0000-\u001f\u007f-\u009f]/

const problemOf = (name: string, kind: "name" | "pattern"): string | undefined => {
  if (typeof name !== "string") return `a ${kind} must be a string`
  if (name === "") return `a ${kind} must not be empty`
  if (Buffer.byteLength(name) > maxNameBytes) {
    return `a ${kind} is at most 1,024 bytes long, this one has ${Buffer.byteLength(name)}`
  }
  if (!name.isWellFormed()) return `a ${kind} must be well-formed Unicode: half of a surrogate pair is missing`
  const glob = kind === "pattern" ? globProblem(name) : undefined
  if (glob !== undefined) return glob
  const segments = name.split(".")
  let wildcards = 0
  const params = new Set<string>()
  for (const [i, segment] of segments.entries()) {
    const where = `segment ${i + 1} of ${segments.length}`
    if (segment === "") return `${where} is empty: write segments with single dots between them, none at the ends`
    if (control.test(segment)) return `${where} has a control character: remove it`
    if (segment.includes("*")) {
      if (kind === "name") return `${where} has a "*": only Channel.pattern takes wildcards`
      if (segment !== "*" && segment !== "**") {
        return `${where} mixes "*" with text: a wildcard is a whole segment, "*" for one or "**" for one or more`
      }
      if (++wildcards > maxWildcards) return `it has more than ${maxWildcards} wildcards`
    }
    if (kind === "name" && segment.length > 1 && segment.startsWith(":")) {
      if (params.has(segment)) return `${where} repeats the param "${segment}": give each param a name of its own`
      params.add(segment)
    }
  }
  return undefined
}

/**
 * Checks a name or pattern, for names that users choose.
 *
 * @category guards
 * @since 0.1.0
 */
export const checkName = (name: string, kind: "name" | "pattern"): Result.Result<void, InvalidChannelName> => {
  const problem = problemOf(name, kind)
  return problem === undefined
    ? Result.succeed(undefined)
    : Result.fail(
      new InvalidChannelName({
        name: String(name),
        message: `invalid channel ${kind} ${JSON.stringify(String(name).slice(0, 80))}: ${problem}`
      })
    )
}

/** Throws if a name or pattern cannot be used. */
export const checked = (name: string, kind: "name" | "pattern") => {
  const result = checkName(name, kind)
  if (Result.isFailure(result)) throw result.failure
}
