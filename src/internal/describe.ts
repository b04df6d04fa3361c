/** Shows unknown values in messages. */
import { Duration } from "effect"

/** Also recognises a Promise of another realm, such as a test runner's. */
export const isPromise = (value: unknown): value is Promise<unknown> =>
  typeof value === "object" && value !== null &&
  (value instanceof Promise || Object.prototype.toString.call(value) === "[object Promise]")

/** Also recognises a Date of another realm. */
export const isDate = (value: unknown): value is Date => Object.prototype.toString.call(value) === "[object Date]"

/** Ignores the rejection of a value that is not awaited: it must not end the process. */
export const calm = (value: unknown): void => {
  if (isPromise(value)) value.catch(() => {})
}

const longest = 80

const limit = (text: string) => text.length <= longest ? text : `${text.slice(0, longest - 1)}…`

const textOf = (value: object): string => {
  try {
    const text = JSON.stringify(value) ?? "an object"
    // A value that JSON shows as empty is shown by its kind.
    const kind = Object.prototype.toString.call(value).slice(8, -1)
    return text !== "{}" || kind === "Object" ? text : `${/^[AEIOU]/.test(kind) ? "an" : "a"} ${kind}`
  } catch {
    // It refers to itself, or cannot be shown for another reason.
    return "an object"
  }
}

/** Shows a given value in a message. Do not use it for secrets. */
export const shown = (value: unknown): string => {
  if (isPromise(value)) return "a Promise"
  if (value === "") return "\"\""
  if (typeof value === "function") return "a function"
  if (typeof value === "bigint") return `the BigInt ${limit(String(value))}`
  if (isDate(value)) return Number.isNaN(value.getTime()) ? "an invalid Date" : value.toISOString()
  if (Duration.isDuration(value)) return `${Duration.toMillis(value)} ms`
  return limit(typeof value === "object" && value !== null ? textOf(value) : String(value))
}

export const messageOf = (error: unknown): string => {
  calm(error)
  try {
    return error instanceof Error ? error.message : limit(String(error))
  } catch {
    return "an error that cannot be shown"
  }
}
