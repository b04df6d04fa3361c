/**
 * The envelope of a message: payload, headers and params, and their limits. It is the same for stored messages and for Pub/Sub.
 */
import type { Result } from "effect"
import * as Channel from "../Channel.ts"
import * as Given from "../internal/optionChecks.ts"
import { InvalidPublishOptions } from "./outcome.ts"

type Strings = Readonly<Record<string, string>>

/** A larger message holds up all clients of the server, and at 512 MiB the connection breaks. */
const largestBytes = 64 * 1024 * 1024

/** At most this many headers: each is read and copied at every hand-out. */
const mostHeaders = 256

/** Reads the option `maxPayloadBytes`. */
export const limitOf = (option: string, value: unknown): Result.Result<number, Given.Problem> =>
  Given.count(option, typeof value === "number" && value > largestBytes ? largestBytes : value as number | undefined, {
    usual: 1024 * 1024,
    least: 1,
    most: largestBytes
  })

/** Finds the problem with the payloads of one call, if they are no list. */
const payloadsProblem = (payloads: unknown): string | undefined =>
  typeof payloads === "string" || (typeof payloads === "object" && payloads !== null && Symbol.iterator in payloads)
    ? undefined
    : Given.refuse("the payloads", "an Iterable such as a list", payloads).failure.message

/** The error of arguments that the types of a publish do not allow. */
export const misgiven = (
  channel: Channel.Any,
  options: unknown,
  payloads: unknown = []
): InvalidPublishOptions | undefined => {
  const problem = !Channel.isChannel(channel)
    ? "a publish goes to a channel made by Channel.make: no pattern, union or name"
    : options !== undefined && (typeof options !== "object" || options === null)
    ? Given.refuse("the options", "an object", options).failure.message
    : payloadsProblem(payloads)
  return problem === undefined ? undefined : new InvalidPublishOptions({
    channel: Channel.isSource(channel) ? Channel.describe(channel) : "",
    message: problem
  })
}

/** Finds the problem with the headers, if there is one. */
const headersProblem = (headers: Strings | undefined): string | undefined => {
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

/** The options that every message has. */
interface Options {
  readonly headers?: Strings | undefined
  readonly params?: Strings | undefined
}

/** Checks the params of a channel, which are `undefined` if it has none, the names of the options, and the headers. */
export const paramsOf = (
  channel: Channel.Any,
  options: Options | undefined,
  names: ReadonlySet<string>
): Strings | undefined | Channel.InvalidParams | InvalidPublishOptions => {
  let params: Strings | undefined
  if (channel.paramNames.length > 0 || options?.params !== undefined) {
    const found = Channel.checkParams(channel, options?.params)
    if (found._tag === "Failure") return found.failure
    params = found.success
  }
  if (options === undefined) return params
  const known = Given.known("the options", options, names)
  const problem = known._tag === "Failure" ? known.failure.message : headersProblem(options.headers)
  return problem === undefined ? params : new InvalidPublishOptions({ channel: channel.name, message: problem })
}

interface Envelope extends Options {
  readonly payload: string
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
