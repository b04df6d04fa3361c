/**
 * The envelope of a message: payload, headers and params, and their limits. It is the same for stored messages and for Pub/Sub.
 */
import { Result } from "effect"
import * as Channel from "../Channel.ts"
import * as Given from "../internal/optionChecks.ts"

type Strings = Readonly<Record<string, string>>

/** A larger message holds up all clients of the server, and at 512 MiB the connection breaks. */
const largestBytes = 64 * 1024 * 1024

/** At most this many headers: each is read and copied at every hand-out. */
const mostHeaders = 256

/** Reads the option `maxPayloadBytes`. */
export const limitOf = (maxPayloadBytes: number = 1024 * 1024): Result.Result<number, Given.Problem> =>
  Given.count(
    "maxPayloadBytes",
    typeof maxPayloadBytes === "number" && maxPayloadBytes > largestBytes ? largestBytes : maxPayloadBytes,
    { usual: largestBytes, least: 1, most: largestBytes }
  )

/** Finds a problem with the arguments of a publish that its types do not allow. */
export const callProblem = (channel: unknown, options: unknown): string | undefined =>
  !Channel.isChannel(channel)
    ? "a publish goes to a channel made by Channel.make: no pattern, union or name"
    : options !== undefined && (typeof options !== "object" || options === null)
    ? Given.refuse("the options", "an object", options).failure.message
    : undefined

/** Finds the problem with the payloads of one call, if they are no list. */
export const payloadsProblem = (payloads: unknown): string | undefined =>
  typeof payloads === "string" || (typeof payloads === "object" && payloads !== null && Symbol.iterator in payloads)
    ? undefined
    : Given.refuse("the payloads", "an Iterable such as a list", payloads).failure.message

/** Finds the problem with the options of a publish, if they are no options or have an unknown name. */
export const optionsProblem = (options: object | undefined, names: ReadonlySet<string>): string | undefined => {
  const found = Given.known("the options", options, names)
  return found._tag === "Failure" ? found.failure.message : undefined
}

/** Finds the problem with the headers, if there is one. */
export const headersProblem = (headers: Strings | undefined): string | undefined => {
  if (headers === undefined) return undefined
  if (Given.record("headers", headers)._tag === "Failure") return "headers must be a record of strings"
  const entries = Object.entries(headers)
  if (entries.length > mostHeaders) {
    return `a message has at most ${mostHeaders} headers, this one has ${entries.length}`
  }
  for (const [name, value] of entries) {
    if (typeof value !== "string") {
      const header = `headers: the header ${JSON.stringify(name.slice(0, 80))}`
      return Given.refuse(header, "a string", value).failure.message
    }
  }
  return undefined
}

const noParams = Result.succeed(undefined)

/** Checks the params of a channel; `undefined` if it has none. */
export const paramsOf = (
  channel: Channel.Any,
  params: Strings | undefined
): Result.Result<Strings | undefined, Channel.InvalidParams> =>
  channel.paramNames.length > 0 || params !== undefined
    ? Channel.checkParams(channel, params)
    : noParams

interface Envelope {
  readonly payload: string
  readonly headers?: Strings | undefined
  readonly params?: Strings | undefined
}

/** Measures a message, unless it is surely within the limit: a character has at most three bytes, so most messages need no measuring. */
export const bytesAbove = (limit: number, { headers, params, payload }: Envelope): number | undefined => {
  if (headers === undefined && params === undefined && payload.length * 3 <= limit) return undefined
  let bytes = Buffer.byteLength(payload)
  for (const strings of [headers, params]) {
    for (const key in strings) bytes += Buffer.byteLength(key) + Buffer.byteLength(strings[key]!)
  }
  return bytes > limit ? bytes : undefined
}
