/**
 * The wire format: how a message is written into a stream entry, and read back.
 *
 * A message in a channel's log has the fields `i` (id), `h` (headers, JSON; left out when there are none), `r` (params,
 * JSON; likewise) and `p` (payload). Everything else that carries a message (retry streams, waiting messages, dead letters)
 * has `m`, a JSON object with what is known beside the payload, and `p`. A stream stores repeated field names once, so the
 * short names cost nothing; the payload is a field of its own so that no script ever has to parse it.
 */
import type { Failure, NewMessage } from "../Broker.ts"

type Strings = Readonly<Record<string, string>>

/** What travels with a payload outside a channel's log. */
export interface Meta {
  readonly id: string
  readonly headers: Strings
  readonly params: Strings
  readonly publishedAtMillis: number
  /** The attempt the next hand-out will be. */
  readonly attempt: number
  /** Hand-outs so far. */
  readonly deliveries: number
  readonly crashes: number
  /** The position of the message in the log of its channel; with the channel it is unique, which the id need not be. */
  readonly origin: string
  /** Dead letters only. */
  readonly channel?: string | undefined
  readonly group?: string | undefined
  readonly failure?: Failure | undefined
}

export interface Entry extends Meta {
  readonly payload: string
  readonly malformed: string | undefined
}

export const none: Strings = Object.freeze(Object.create(null) as Record<string, string>)

const isEmpty = (strings: Strings | undefined): strings is undefined => {
  for (const _ in strings) return false
  return true
}

/** The fields of a log entry, as arguments of XADD. */
export const logFields = (message: NewMessage): ReadonlyArray<string> => {
  if (isEmpty(message.headers) && isEmpty(message.params)) {
    return ["i", message.id, "p", message.payload]
  }
  const fields = ["i", message.id]
  if (!isEmpty(message.headers)) fields.push("h", JSON.stringify(message.headers))
  if (!isEmpty(message.params)) fields.push("r", JSON.stringify(message.params))
  fields.push("p", message.payload)
  return fields
}

export const encodeMeta = (meta: Meta): string =>
  JSON.stringify({
    i: meta.id,
    h: isEmpty(meta.headers) ? undefined : meta.headers,
    r: isEmpty(meta.params) ? undefined : meta.params,
    t: meta.publishedAtMillis,
    n: meta.attempt,
    d: meta.deliveries,
    c: meta.crashes,
    o: meta.origin,
    ch: meta.channel,
    g: meta.group,
    f: meta.failure
  })

/** The time part of a position. */
export const millisOf = (position: string): number => Number(position.slice(0, position.indexOf("-")))

// JSON.parse gives own properties only, also for "__proto__"; a copy into an object without prototype keeps it that way.
const strings = (value: unknown): Strings => {
  if (typeof value !== "object" || value === null) return none
  const out: Record<string, string> = Object.create(null)
  for (const [key, item] of Object.entries(value)) {
    if (typeof item === "string") out[key] = item
  }
  return out
}

const count = (value: unknown, fallback: number): number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : fallback

const parseObject = (text: string): Record<string, unknown> | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? value as Record<string, unknown>
      : undefined
  } catch {
    return undefined
  }
}

const malformed = (position: string, fields: ReadonlyArray<string>, problem: string): Entry => ({
  id: position,
  headers: none,
  params: none,
  publishedAtMillis: millisOf(position),
  attempt: 1,
  deliveries: 0,
  crashes: 0,
  origin: position,
  payload: JSON.stringify(fields),
  malformed: problem
})

/** Reads the fields of a stream entry. What is not a message comes back as `malformed`, with the fields as its payload. */
export const decode = (position: string, fields: ReadonlyArray<string>): Entry => {
  let id: string | undefined
  let headers: string | undefined
  let params: string | undefined
  let meta: string | undefined
  let payload: string | undefined
  for (let i = 0; i + 1 < fields.length; i += 2) {
    const value = fields[i + 1]!
    switch (fields[i]) {
      case "i":
        id = value
        break
      case "h":
        headers = value
        break
      case "r":
        params = value
        break
      case "m":
        meta = value
        break
      case "p":
        payload = value
        break
    }
  }
  if (payload === undefined) return malformed(position, fields, "the entry has no payload field")
  if (meta !== undefined) {
    const known = parseObject(meta)
    if (known === undefined || typeof known["i"] !== "string") {
      return malformed(position, fields, "the entry's description is not a JSON object with an id")
    }
    return {
      id: known["i"],
      headers: strings(known["h"]),
      params: strings(known["r"]),
      publishedAtMillis: count(known["t"], millisOf(position)),
      attempt: count(known["n"], 1),
      deliveries: count(known["d"], 0),
      crashes: count(known["c"], 0),
      origin: typeof known["o"] === "string" ? known["o"] : position,
      channel: typeof known["ch"] === "string" ? known["ch"] : undefined,
      group: typeof known["g"] === "string" ? known["g"] : undefined,
      failure: known["f"] as Failure | undefined,
      payload,
      malformed: undefined
    }
  }
  if (id === undefined) return malformed(position, fields, "the entry has no id field")
  const parsedHeaders = headers === undefined ? undefined : parseObject(headers)
  const parsedParams = params === undefined ? undefined : parseObject(params)
  if ((headers !== undefined && parsedHeaders === undefined) || (params !== undefined && parsedParams === undefined)) {
    return malformed(position, fields, "the entry's headers or params are not a JSON object")
  }
  return {
    id,
    headers: parsedHeaders === undefined ? none : strings(parsedHeaders),
    params: parsedParams === undefined ? none : strings(parsedParams),
    publishedAtMillis: millisOf(position),
    attempt: 1,
    deliveries: 0,
    crashes: 0,
    origin: position,
    payload,
    malformed: undefined
  }
}
