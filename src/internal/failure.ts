/**
 * What is stored of a failure. Whatever a handler fails with can be told, also what defies being shown: a message must not be lost to the
 * error that it ends with.
 */
import { Cause, Result } from "effect"
import type { Failure } from "../Broker.ts"
import { calm } from "./shown.ts"

const longestTag = 256
const longestMessage = 1024
const longestCause = 4096

const limit = (text: string, length: number) => text.length <= length ? text : `${text.slice(0, length - 1)}…`

/** Users' getters and `toString` may throw, or give what is no text. */
const told = (tell: () => unknown, length: number): string | undefined => {
  const text = Result.getOrElse(Result.try(tell), () => undefined)
  return typeof text === "string" ? limit(text, length) : undefined
}

const untold = "an error that cannot be shown"

type Fields = { readonly [name: string]: unknown }

/** Whatever is thrown may name itself: by a tag, by the name of its class, or as errors of Node and of services do, by a code. */
const tagOf = (error: unknown): string | undefined => {
  if (typeof error !== "object" || error === null) return undefined
  const fields = error as Fields
  return told(() => fields["_tag"], longestTag) ?? told(() => fields["name"], longestTag) ??
    told(() => typeof fields["code"] === "number" ? String(fields["code"]) : fields["code"], longestTag)
}

/** The `_tag` of an error, by which a policy decides and metrics count; `"Error"` for one without. */
export const errorTagOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string"
    ? error._tag
    : "Error"

/** An object that is no Error would be `[object Object]`: it is told by its message, else as JSON. */
const messageOf = (error: unknown): string | undefined => {
  if (typeof error !== "object" || error === null || error instanceof Error) {
    return told(() => error instanceof Error ? error.message : String(error), longestMessage)
  }
  return told(() => (error as Fields)["message"], longestMessage) ?? told(() => JSON.stringify(error), longestMessage)
}

/** Why a handler gave up on a message. */
export const reasonText = (reason: unknown): string => {
  calm(reason)
  return messageOf(reason) ?? told(() => String(reason), longestMessage) ?? untold
}

/** A cause in full, for the log. */
export const pretty = (cause: Cause.Cause<unknown>): string => told(() => Cause.pretty(cause), longestCause) ?? untold

export const failureOf = (reason: Failure["reason"], cause: Cause.Cause<unknown>): Failure => {
  const error = Cause.squash(cause)
  calm(error)
  return {
    reason,
    errorTag: tagOf(error),
    message: messageOf(error) ?? untold,
    cause: pretty(cause),
    isDefect: Cause.hasDies(cause) ? true : undefined
  }
}
