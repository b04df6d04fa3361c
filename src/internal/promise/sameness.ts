/**
 * What makes two messages the same, for exactly-once publishing and handling.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as Channel from "../../Channel.ts"
import type { Payload, RotifConfig } from "./options.ts"

/**
 * The payload as JSON has it: what `toJSON` says, without what is undefined. What has no JSON form is refused.
 */
export const plain = (channel: string, payload: Payload): Effect.Effect<Payload, Channel.InvalidPayload> =>
  Effect.flatMap(
    Effect.try({
      try: (): string | undefined => JSON.stringify(payload),
      catch: (error) => unserialisable(channel, error instanceof Error ? error.message : String(error))
    }),
    (text) =>
      text === undefined
        ? Effect.fail(unserialisable(channel, `${typeof payload} has no JSON form`))
        : Effect.sync((): Payload => JSON.parse(text))
  )

const unserialisable = (channel: string, why: string) =>
  new Channel.InvalidPayload({
    channel,
    operation: "encode",
    message: `the payload for "${channel}" cannot be stored as JSON: ${why}`
  })

/** The order of keys does not matter. */
const canonical = (payload: Payload): string =>
  JSON.stringify(payload, (_, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1))
      : value)

const prefix = "once-"

const hashOf = (...parts: ReadonlyArray<string>): string =>
  createHash("sha256").update(JSON.stringify(parts)).digest("base64url")

/** What is the same for messages of which one is to be stored. */
export const publishKey = (
  { generateDedupKey }: RotifConfig,
  channel: string,
  payload: Payload,
  dedupKey: string | undefined
): string =>
  dedupKey !== undefined
    ? hashOf(channel, "key", dedupKey)
    : generateDedupKey !== undefined
    ? hashOf(channel, "key", generateDedupKey({ channel, payload }))
    : hashOf(channel, "payload", canonical(payload))

/** A message that was accepted by its key has an id of its own: what is accepted again after its window is another message. */
export const freshId = (): string => prefix + globalThis.crypto.randomUUID()

/**
 * By what messages are handled once, where it is not each by itself: by `generateDedupKey`, but for those that were published by a key,
 * which are handled whenever they were accepted. Not by the payload: two equal payloads may be two pieces of work, and skipping one
 * would lose it.
 */
export const handleKey = (
  config: RotifConfig
): ((message: { readonly id: string; readonly channel: string; readonly payload: Payload }) => string) | undefined =>
  config.generateDedupKey === undefined
    ? undefined
    : ({ channel, id, payload }) => id.startsWith(prefix) ? id : publishKey(config, channel, payload, undefined)
