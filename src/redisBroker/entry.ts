/**
 * The wire format: how a message is written into a stream entry, and read back.
 *
 * An entry of a log has the fields `i` (id), `h` (headers as JSON, if there are any), `r` (params, likewise), `x` (ms after its position at
 * which it expires, if it does), `k` (ordering key, if it has one) and `p` (payload). A stream stores repeated field names once, so the short names cost nothing.
 *
 * A message that was ever kept elsewhere has a body instead: one text, which scripts move as a whole. To take a payload out of it, or to
 * put one in, would copy the payload; a copy of 1 MiB holds up the server for about half a millisecond.
 *
 * - The body of a message that waits for its first delivery: `w` with its deduplication window, if it has one (span in ms, name of the call
 *   that opened it, key), then the fields `h`, `r`, `x` and `k` of its entry, each on a line of its own behind its letter (`k` as JSON,
 *   because it may have line feeds), an empty line, and the payload. Most are a line feed and a payload, so a million of them stay small. Its entry of the log has `i`, `b` (the body) and,
 *   where the body has lines, `l`: the ms by which it came late, which it has less until it expires.
 * - Every other body (in a retry stream, waiting for a retry, dead letter): a JSON object with everything beside the payload, a line feed,
 *   and the payload. Its entry has `b`. A dead letter also has `k`: group, channel and reason, so that a script can count it without
 *   parsing JSON.
 */
import type { Failure, NewMessage } from "../Broker.ts"
import type { Letter, PastFailure } from "../broker/deadLetters.ts"
import { historyLength, pastOf } from "../broker/deadLetters.ts"
import { millisOf } from "../broker/position.ts"
import type { Due } from "../broker/publishing.ts"
import { reasons } from "./counters.ts"

type Strings = Readonly<Record<string, string>>

/** The description of a message outside the log of its channel. */
export interface Meta {
  readonly id: string
  readonly headers: Strings
  readonly params: Strings
  readonly publishedAtMillis: number
  /** The number of the next attempt. */
  readonly attempt: number
  /** Hand-outs so far. */
  readonly deliveries: number
  readonly crashes: number
  /** A lost consumer held it, and no handler of it has ended since. */
  readonly isSuspect?: boolean | undefined
  /** The position of the message in the log of its channel; with the channel it is unique, which the id need not be. */
  readonly origin: string
  /** When it expires, by the server's clock. */
  readonly expiresAtMillis?: number | undefined
  readonly orderingKey?: string | undefined
  /** It is the head of its ordering key: whoever reads it may handle it. */
  readonly isHead?: boolean | undefined
  /** Dead letters only. */
  readonly channel?: string | undefined
  readonly group?: string | undefined
  readonly failure?: Failure | undefined
  /** The failures of earlier lives, of a message that was requeued from the dead letters. */
  readonly history?: ReadonlyArray<PastFailure> | undefined
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

type Content = Pick<NewMessage, "payload" | "headers" | "params" | "expiresInMillis" | "orderingKey">

/** The fields of a log entry beside id and payload. */
const extras = (message: Content): ReadonlyArray<readonly [name: string, value: string]> => {
  const fields: Array<readonly [string, string]> = []
  if (!isEmpty(message.headers)) fields.push(["h", JSON.stringify(message.headers)])
  if (!isEmpty(message.params)) fields.push(["r", JSON.stringify(message.params)])
  if (message.expiresInMillis !== undefined) fields.push(["x", String(message.expiresInMillis)])
  if (message.orderingKey !== undefined) fields.push(["k", message.orderingKey])
  return fields
}

/** The fields of a log entry, as arguments of XADD. */
export const logFields = (message: NewMessage): ReadonlyArray<string> =>
  message.headers === undefined && message.params === undefined && message.expiresInMillis === undefined
    ? message.orderingKey === undefined
      ? ["i", message.id, "p", message.payload]
      : ["i", message.id, "k", message.orderingKey, "p", message.payload]
    : ["i", message.id, ...extras(message).flat(), "p", message.payload]

/**
 * Writes the body of a message that waits for its first delivery; `call` is the name of the call that opened its window. JSON has no raw
 * line feed, and keys have no control characters, so the lines are told apart.
 */
export const encodeBody = (message: Content & Pick<NewMessage, "window">, call = "-"): string =>
  (message.window === undefined ? "" : `w${message.window.millis} ${call} ${message.window.key}\n`) +
  `${
    extras(message).map(([name, value]) => `${name}${name === "k" ? JSON.stringify(value) : value}\n`).join("")
  }\n${message.payload}`

/** The lines of a body by their letters, and the payload as `p`; `undefined` when it is no body. */
const linesOf = (body: string): Record<string, string> | undefined => {
  const found: Record<string, string> = Object.create(null)
  let from = 0
  for (let end = body.indexOf("\n"); end !== from; end = body.indexOf("\n", from)) {
    if (end < 0) return undefined
    found[body[from]!] = body.slice(from + 1, end)
    from = end + 1
  }
  found["p"] = body.slice(from + 1)
  return found
}

/** Reads the body of a message that waits for its first delivery; `undefined` when it is none. */
export const decodeBody = (body: string): Content | undefined => {
  const found = linesOf(body)
  if (found === undefined) return undefined
  const { h, k, p, r, x } = found
  return {
    payload: p!,
    headers: h === undefined ? none : strings(parseObject(h)),
    params: r === undefined ? none : strings(parseObject(r)),
    expiresInMillis: x === undefined ? undefined : count(Number(x), 0),
    orderingKey: k === undefined ? undefined : orderingKeyOf(parse(k))
  }
}

/** The due time of a message as the scripts take it: in ms of the server's clock, or a delay behind a plus sign. */
export const encodeDue = (due: Due): string =>
  "atMillis" in due ? String(Math.ceil(due.atMillis)) : `+${Math.ceil(due.delayMillis)}`

/** The fields of an entry of the outbox: the message without its payload, as JSON; the payload; and a unique name. */
export const outboxFields = ({ payload, ...message }: NewMessage, name: string): ReadonlyArray<string> => [
  "m",
  JSON.stringify(message),
  "p",
  payload,
  "n",
  name
]

/** The name of an entry of the outbox. */
export const outboxName = (position: string, fields: ReadonlyArray<string>): string => fields[5] ?? position

/** The message of an entry of the outbox; `undefined` when it holds none. */
export const decodeOutbox = (fields: ReadonlyArray<string>): NewMessage | undefined => {
  const message = parseObject(fields[1] ?? "")
  const payload = fields[3]
  return message === undefined || payload === undefined || typeof message["id"] !== "string"
      || typeof message["channel"] !== "string"
    ? undefined
    // A transaction wrote it, out of a `NewMessage`.
    : { ...message, payload } as unknown as NewMessage
}

const encodeMeta = (meta: Meta): string =>
  JSON.stringify({
    i: meta.id,
    h: isEmpty(meta.headers) ? undefined : meta.headers,
    r: isEmpty(meta.params) ? undefined : meta.params,
    t: meta.publishedAtMillis,
    n: meta.attempt,
    d: meta.deliveries,
    c: meta.crashes,
    s: meta.isSuspect === true ? 1 : undefined,
    o: meta.origin,
    e: meta.expiresAtMillis,
    k: meta.orderingKey,
    kh: meta.isHead === true ? 1 : undefined,
    ch: meta.channel,
    g: meta.group,
    f: meta.failure,
    y: meta.history === undefined || meta.history.length === 0 ? undefined : meta.history
  })

/** Writes the body of a message with its description. JSON has no raw line feed. */
export const encodeDescribed = (meta: Meta, payload: string): string => `${encodeMeta(meta)}\n${payload}`

// JSON.parse gives own properties only, also for "__proto__"; a copy into an object without prototype keeps it that way.
const strings = (value: unknown): Strings => {
  if (typeof value !== "object" || value === null) return none
  const out: Record<string, string> = Object.create(null)
  for (const [key, item] of Object.entries(value)) {
    if (typeof item === "string") out[key] = item
  }
  return out
}

/** At most this attempt is read. A policy steps through all attempts so far: a number of another program must not make it step for ever. */
const mostAttempts = 100_000

const count = (value: unknown, fallback: number): number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : fallback

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const parseObject = (text: string): Record<string, unknown> | undefined => {
  const value = parse(text)
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? value as Record<string, unknown>
    : undefined
}

/** The empty text is no key. */
const orderingKeyOf = (value: unknown) => typeof value === "string" && value !== "" ? value : undefined

const optionalText = (value: unknown) => typeof value === "string" ? value : undefined

const failureOf = (value: unknown): Failure | undefined => {
  if (typeof value !== "object" || value === null) return undefined
  const fields = value as Readonly<Record<string, unknown>>
  return reasons.includes(fields["reason"] as Failure["reason"])
    ? {
      reason: fields["reason"] as Failure["reason"],
      errorTag: optionalText(fields["errorTag"]),
      message: optionalText(fields["message"]) ?? "",
      cause: optionalText(fields["cause"]),
      isDefect: fields["isDefect"] === true ? true : undefined
    }
    : undefined
}

const historyOf = (value: unknown): ReadonlyArray<PastFailure> | undefined => {
  if (!Array.isArray(value)) return undefined
  const out: Array<PastFailure> = []
  for (const item of value as Array<Readonly<Record<string, unknown>> | null>) {
    const failure = failureOf(item)
    if (failure !== undefined) {
      out.push({ ...failure, diedAtMillis: count(item?.["diedAtMillis"], 0), attempt: count(item?.["attempt"], 1) })
    }
  }
  return out.slice(-historyLength)
}

/**
 * The longest entry of a log, in characters; none of ours is longer. Strings of Node end at 2^29 characters and values of Redis at 2^29
 * bytes: a longer entry of another program could be read but not be moved, and its group would read it again for ever.
 */
const longestEntry = 2 ** 27
/** The longest entry elsewhere: it has a description as well. */
const longestMoved = 2 ** 28
/** The longest id. As JSON, one character may be six. */
const longestId = 2 ** 20
/** At most this many characters are kept of an entry that is no message. As JSON, they may be six times as long. */
const keptFields = 2 ** 20

const lengthOf = (fields: ReadonlyArray<string>): number => {
  let length = 0
  for (const field of fields) length += field.length
  return length
}

/** The fields as JSON, or the beginning of them. */
const fieldsAsPayload = (fields: ReadonlyArray<string>): string => {
  // In JSON an empty field has three characters, too.
  if (lengthOf(fields) + fields.length <= keptFields) return JSON.stringify(fields)
  const kept: Array<string> = []
  let room = keptFields
  for (const field of fields) {
    if (room <= 0) break
    kept.push(field.slice(0, room))
    room -= field.length + 1
  }
  return JSON.stringify(kept)
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
  payload: fieldsAsPayload(fields),
  malformed: problem
})

/** Reads the fields of a stream entry. An entry that is no message comes back as `malformed`, with the fields as its payload. */
export const decode = (position: string, fields: ReadonlyArray<string>): Entry => {
  let id: string | undefined
  let headers: string | undefined
  let params: string | undefined
  let expires: string | undefined
  let orderingKey: string | undefined
  let late: string | undefined
  let body: string | undefined
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
      case "x":
        expires = value
        break
      case "k":
        orderingKey = value
        break
      case "l":
        late = value
        break
      case "b":
        body = value
        break
      case "p":
        payload = value
        break
    }
  }
  if (body !== undefined) {
    if (id === undefined) {
      const end = body.indexOf("\n")
      if (end < 0) return malformed(position, fields, "the entry's body has no payload")
      meta = body.slice(0, end)
      payload = body.slice(end + 1)
    } else {
      const lines = linesOf(body)
      if (lines === undefined) return malformed(position, fields, "the entry's body has no payload")
      ;({ h: headers, p: payload, r: params, x: expires } = lines)
      const key = lines["k"]
      orderingKey = key === undefined ? undefined : orderingKeyOf(parse(key))
    }
  }
  if (payload === undefined) return malformed(position, fields, "the entry has no payload field")
  if (lengthOf(fields) > (meta === undefined ? longestEntry : longestMoved)) {
    return malformed(position, fields, "the entry is too long for a message")
  }
  if (id !== undefined && id.length > longestId) return malformed(position, fields, "the entry's id is too long")
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
      attempt: Math.min(mostAttempts, Math.max(1, count(known["n"], 1))),
      deliveries: count(known["d"], 0),
      crashes: count(known["c"], 0),
      isSuspect: known["s"] === 1 ? true : undefined,
      origin: typeof known["o"] === "string" ? known["o"] : position,
      expiresAtMillis: typeof known["e"] === "number" ? known["e"] : undefined,
      orderingKey: orderingKeyOf(known["k"]),
      isHead: known["kh"] === 1 ? true : undefined,
      channel: typeof known["ch"] === "string" ? known["ch"] : undefined,
      group: typeof known["g"] === "string" ? known["g"] : undefined,
      failure: failureOf(known["f"]),
      history: historyOf(known["y"]),
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
    expiresAtMillis: expires === undefined || !Number.isFinite(Number(expires))
      ? undefined
      : millisOf(position) + Number(expires) - count(Number(late), 0),
    orderingKey: orderingKeyOf(orderingKey),
    payload,
    malformed: undefined
  }
}

/** The field `k` of a dead letter, by which scripts count it. */
export const letterKey = (group: string, channel: string, reason: Failure["reason"]): string =>
  `${group}\n${channel}\n${reason}`

/** The field `k` among the fields of an entry. */
export const letterKeyIn = (fields: ReadonlyArray<string>): string | undefined => {
  const at = fields.findIndex((field, i) => i % 2 === 0 && field === "k")
  return at < 0 ? undefined : fields[at + 1]
}

/** Reads a dead letter. An entry of another program comes back as `malformed`. */
export const decodeLetter = (letterId: string, fields: ReadonlyArray<string>): Letter => {
  const entry = decode(letterId, fields)
  const problem = entry.malformed
    ?? (entry.group === undefined || entry.channel === undefined || entry.failure === undefined
      ? "the entry does not say which group failed, on which channel, and why"
      : letterKeyIn(fields) !== letterKey(entry.group, entry.channel, entry.failure.reason)
      ? "the entry's key is not that of its description"
      : undefined)
  return {
    letterId,
    group: entry.group ?? "",
    diedAtMillis: millisOf(letterId),
    failure: entry.failure ?? { reason: "term", message: problem ?? "" },
    id: entry.id,
    channel: entry.channel ?? "",
    payload: entry.payload,
    headers: entry.headers,
    params: entry.params,
    orderingKey: entry.orderingKey,
    publishedAtMillis: entry.publishedAtMillis,
    attempt: entry.attempt,
    deliveryCount: entry.deliveries,
    crashes: entry.crashes,
    history: entry.history ?? [],
    malformed: problem
  }
}

/** Writes the body of a dead letter that goes back to its group: it begins anew, and keeps its past failures. */
export const encodeRequeued = (letterId: string, entry: Entry, failure: Failure, payload: string): string =>
  encodeDescribed({
    id: entry.id,
    headers: entry.headers,
    params: entry.params,
    publishedAtMillis: entry.publishedAtMillis,
    attempt: 1,
    deliveries: entry.deliveries,
    crashes: 0,
    isSuspect: failure.reason === "crashed" ? true : undefined,
    origin: entry.origin,
    // A new arrival: it goes behind what waits for its key.
    orderingKey: entry.orderingKey,
    history: pastOf(entry.history, failure, millisOf(letterId), entry.attempt)
  }, payload)
