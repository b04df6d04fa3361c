/**
 * The stored form of a failure. Every value that a handler fails with has one, even a value that cannot be shown: its error must not lose a
 * message.
 */
import { Cause, Result } from "effect"
import type { Failure } from "../Broker.ts"
import { calm } from "./describe.ts"

const longestTag = 256
const longestMessage = 1024
const longestCause = 4096

const limit = (text: string, length: number) => text.length <= length ? text : `${text.slice(0, length - 1)}…`

/** Reads a text. Getters and `toString` of users may throw, or return no text. */
const told = (tell: () => unknown, length: number): string | undefined => {
  const text = Result.getOrElse(Result.try(tell), () => undefined)
  return typeof text === "string" ? limit(text, length) : undefined
}

const untold = "an error that cannot be shown"

type Fields = { readonly [name: string]: unknown }

/** The name of a thrown value: its tag, the name of its class, or its code, as errors of Node and of services have. */
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

/** The message of an error. An object that is no Error would be `[object Object]`: it is shown by its message, else as JSON. */
const messageOf = (error: unknown): string | undefined => {
  if (typeof error !== "object" || error === null || error instanceof Error) {
    return told(() => error instanceof Error ? error.message : String(error), longestMessage)
  }
  return told(() => (error as Fields)["message"], longestMessage) ?? told(() => JSON.stringify(error), longestMessage)
}

/** The reason that a handler gives for a dead letter, as a text. */
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
