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

const idOf = (...parts: ReadonlyArray<string>): string =>
  prefix + createHash("sha256").update(JSON.stringify(parts)).digest("base64url")

/** The id of a message that is to be stored once. */
export const onceId = (
  { generateDedupKey }: RotifConfig,
  channel: string,
  payload: Payload,
  dedupKey: string | undefined
): string =>
  dedupKey !== undefined
    ? idOf(channel, "key", dedupKey)
    : generateDedupKey !== undefined
    ? idOf(channel, "key", generateDedupKey({ channel, payload }))
    : idOf(channel, "payload", canonical(payload))

/**
 * By what a message is handled once: as it was published once, by `generateDedupKey`, else by its id. Not by its payload: two equal
 * payloads may be two pieces of work, and skipping one would lose it.
 */
export const onceKey = (
  config: RotifConfig,
  message: { readonly id: string; readonly channel: string; readonly payload: Payload }
): string =>
  message.id.startsWith(prefix) || config.generateDedupKey === undefined
    ? message.id
    : onceId(config, message.channel, message.payload, undefined)
