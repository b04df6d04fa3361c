/**
 * The wire format of Pub/Sub mode: `channel LF envelope LF payload`. The envelope is empty, or JSON with the headers (`h`) and params (`p`) of
 * the message. Neither a channel nor JSON contains a line feed.
 */
import type { BroadcastMessage } from "../broker/broadcast.ts"

export const encode = ({ channel, headers, params, payload }: BroadcastMessage): string =>
  headers === undefined && params === undefined
    ? `${channel}\n\n${payload}`
    : `${channel}\n${JSON.stringify({ h: headers, p: params })}\n${payload}`

const isRecord = (value: unknown): value is Readonly<Record<string, string>> =>
  typeof value === "object" && value !== null && Object.values(value).every((each) => typeof each === "string")

/** Reads a message; `undefined` for a text that `encode` did not write. */
export const decode = (text: string): BroadcastMessage | undefined => {
  const first = text.indexOf("\n")
  const second = text.indexOf("\n", first + 1)
  if (first < 1 || second < 0) return undefined
  const channel = text.slice(0, first)
  const payload = text.slice(second + 1)
  if (second === first + 1) return { channel, payload }
  let envelope: unknown
  try {
    envelope = JSON.parse(text.slice(first + 1, second))
  } catch {
    return undefined
  }
  if (typeof envelope !== "object" || envelope === null) return undefined
  const headers: unknown = Reflect.get(envelope, "h")
  const params: unknown = Reflect.get(envelope, "p")
  if ((headers !== undefined && !isRecord(headers)) || (params !== undefined && !isRecord(params))) return undefined
  return { channel, payload, headers, params }
}
