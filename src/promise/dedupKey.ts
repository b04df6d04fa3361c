/**
 * Deduplication keys: when two messages are the same, for exactly-once publishing and handling.
 */
import { Effect, Result } from "effect"
import { createHash } from "node:crypto"
import * as Channel from "../Channel.ts"
import { calm, isDate, messageOf, shown } from "../internal/describe.ts"
import { madeKey } from "./checks.ts"
import type { Payload } from "./message.ts"
import type { RotifConfig } from "./options.ts"

/**
 * Values that JSON leaves out or changes in silence: NaN becomes `null`, a function is gone, a Map is empty. The stored message would differ
 * from the published one. Only an `undefined` field of an object may be left out. Call it after `JSON.stringify`, which has refused values
 * that refer to themselves.
 */
const checkWhole = (value: unknown, key: string): void => {
  switch (typeof value) {
    case "number":
      if (!Number.isFinite(value)) refuse(value, key)
      return
    case "function":
    case "symbol":
      return refuse(value, key)
    case "object":
      if (value !== null) checkObject(value, key)
  }
}

const checkObject = (value: object, key: string): void => {
  if (Array.isArray(value)) {
    for (const item of value as ReadonlyArray<unknown>) {
      if (item === undefined) refuse(item, key)
      checkWhole(item, key)
    }
  } else if (isDate(value)) {
    if (Number.isNaN(value.getTime())) refuse(value, key)
  } else if ("toJSON" in value && typeof value.toJSON === "function") {
    checkWhole(value.toJSON(key), key)
  } else if (isBoxed(value)) checkWhole(value.valueOf(), key)
  else if (isFormless(value)) refuse(value, key)
  else for (const name of Object.keys(value)) checkWhole((value as Readonly<Record<string, unknown>>)[name], name)
}

const tagOf = (value: object): string => Object.prototype.toString.call(value)

const isBoxed = (value: object): boolean => /^\[object (Number|String|Boolean)\]$/.test(tagOf(value))

/** Objects whose content JSON does not see: a Map, a buffer, an iterator, a Blob, a RegExp, a Promise. */
const isFormless = (value: object): boolean =>
  value instanceof Error || ArrayBuffer.isView(value) ||
  (tagOf(value) !== "[object Object]" && Object.keys(value).length === 0)

const refuse = (value: unknown, key: string): never => {
  calm(value)
  throw new TypeError(`${key === "" ? "it" : JSON.stringify(key)} is ${shown(value)}, which has no JSON form`)
}

/**
 * The payload in its JSON form: with `toJSON` applied and without undefined fields. A value without a JSON form is refused.
 */
export const plain = (channel: string, payload: Payload): Effect.Effect<Payload, Channel.InvalidPayload> =>
  Effect.flatMap(
    Effect.try({
      try: (): string | undefined => {
        const text = JSON.stringify(payload)
        checkWhole(payload, "")
        return text
      },
      catch: (error) => unserialisable(channel, messageOf(error))
    }),
    (text) =>
      text === undefined
        ? Effect.fail(unserialisable(channel, `${shown(payload)} has no JSON form`))
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

/** An invalid key is refused: all messages would share it. */
const keyOf = (
  where: string,
  make: NonNullable<RotifConfig["generateDedupKey"]>,
  channel: string,
  payload: Payload
): string => {
  const made = madeKey(where, () => make({ channel, payload }))
  if (Result.isSuccess(made)) return made.success
  throw made.failure
}

/** The key by which only one of several messages is stored. */
export const publishKey = (
  { generateDedupKey }: RotifConfig,
  channel: string,
  payload: Payload,
  dedupKey: string | undefined
): string =>
  dedupKey !== undefined
    ? hashOf(channel, "key", dedupKey)
    : generateDedupKey !== undefined
    ? hashOf(channel, "key", keyOf("publish", generateDedupKey, channel, payload))
    : hashOf(channel, "payload", canonical(payload))

/** A message that was accepted by its key has an id of its own: accepted again after its window, it is another message. */
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
