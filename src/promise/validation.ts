/**
 * Validators of channels: they are asked before a payload is stored, and before a handler gets it.
 */
import type { Schema } from "effect"
import { Effect } from "effect"
import * as Channel from "../Channel.ts"
import { messageOf } from "../internal/describe.ts"
import type { StandardSchema, ValidationIssue, ValidationResult } from "./standardSchema.ts"

type Any = Channel.Channel<string, Schema.Unknown>

/** Gives the payload that the validator makes, or fails with what it found wrong. */
export type Validator = (
  operation: "encode" | "decode",
  payload: unknown
) => Effect.Effect<unknown, Channel.InvalidPayload>

/** At most this many issues are in the message of an error; the error has all. */
const mostTold = 5

const placeOf = ({ path = [] }: ValidationIssue): string =>
  path.map((part) => String(typeof part === "object" ? part.key : part)).join(".")

const issuesOf = new WeakMap<Channel.InvalidPayload, ReadonlyArray<ValidationIssue>>()

/** What a validator found wrong; nothing if the payload was refused for another reason. */
export const issuesIn = (error: Channel.InvalidPayload): ReadonlyArray<ValidationIssue> => issuesOf.get(error) ?? []

const validatorOf = (channel: string, schema: StandardSchema): Validator => {
  const refuse = (operation: "encode" | "decode", why: string, issues: ReadonlyArray<ValidationIssue> = []) => {
    const error = new Channel.InvalidPayload({
      channel,
      operation,
      message: `the payload for "${channel}" does not fit its schema: ${why}`
    })
    issuesOf.set(error, issues)
    return Effect.fail(error)
  }
  const outcome = (operation: "encode" | "decode", result: ValidationResult<unknown>) => {
    if (result.issues === undefined) return Effect.succeed(result.value)
    const told = result.issues.slice(0, mostTold).map((issue) => {
      const place = placeOf(issue)
      return place === "" ? issue.message : `${place}: ${issue.message}`
    })
    const rest = result.issues.length - told.length
    return refuse(operation, told.join("; ") + (rest > 0 ? `; and ${rest} more` : ""), result.issues)
  }
  return (operation, payload) => {
    let result: ReturnType<StandardSchema["~standard"]["validate"]>
    try {
      result = schema["~standard"].validate(payload)
    } catch (error) {
      return refuse(operation, `the validator threw: ${messageOf(error)}`)
    }
    if (!(result instanceof Promise)) return outcome(operation, result)
    const pending = result
    return Effect.tryPromise({ try: () => pending, catch: (error) => error }).pipe(
      Effect.matchEffect({
        onFailure: (error) => refuse(operation, `the validator threw: ${messageOf(error)}`),
        onSuccess: (result) => outcome(operation, result)
      })
    )
  }
}

/** The channel whose stored payloads go through the validator. */
export const validated = (channel: Any, validator: Validator): Any => ({
  ...channel,
  codec: {
    encode: (payload) => channel.codec.encode(payload),
    decode: (text) => Effect.flatMap(channel.codec.decode(text), (payload) => validator("decode", payload))
  }
})

/** The validators of the channels that have one. */
export const validatorsOf = (
  channels: Readonly<Record<string, { readonly schema?: unknown } | undefined>>
): ReadonlyMap<string, Validator> =>
  new Map(
    Object.entries(channels).flatMap(([name, options]) =>
      options?.schema === undefined ? [] : [[name, validatorOf(name, options.schema as StandardSchema)] as const]
    )
  )
