/** The codec of a channel: payloads as JSON, by the JSON codec of their schema. */
import { Effect, Schema } from "effect"
import { calm } from "../internal/describe.ts"
import { isDone } from "../internal/immediate.ts"

/**
 * The payload does not fit the schema of the channel. The message names the place, never the value.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidPayload extends Schema.TaggedError<InvalidPayload>()("InvalidPayload", {
  channel: Schema.String,
  operation: Schema.Literals(["encode", "decode"]),
  message: Schema.String
}) {}

// Methods, so that a channel of any payload is an `Any`. They return an `Exit` if the schema has its result at once.
export interface Codec<S extends Schema.Constraint> {
  encode(payload: S["Type"]): Effect.Effect<string, InvalidPayload, S["EncodingServices"]>
  decode(text: string): Effect.Effect<S["Type"], InvalidPayload, S["DecodingServices"]>
}

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

export const codecOf = <S extends Schema.Constraint>(name: string, schema: S): Codec<S> => {
  const json = Schema.toCodecJson(schema)
  const encode = Schema.encodeUnknownEffect(json)
  const decode = Schema.decodeUnknownEffect(json)
  const fail = (operation: "encode" | "decode", message: string) =>
    Effect.fail(
      new InvalidPayload({ channel: name, operation, message: `${operation} of a payload for "${name}": ${message}` })
    )
  // A value that refers to itself or is nested too deeply makes the codec throw.
  const guard = <A, R>(
    operation: "encode" | "decode",
    effect: Effect.Effect<A, Schema.SchemaError, R>,
    given: unknown
  ) =>
    Effect.catchCause(effect, (cause): Effect.Effect<A, InvalidPayload> => {
      calm(given)
      for (const reason of cause.reasons) {
        if (reason._tag === "Interrupt") return Effect.interrupt
        return fail(operation, messageOf(reason._tag === "Fail" ? reason.error : reason.defect))
      }
      return fail(operation, "it failed without a reason")
    })
  const stringify = (encoded: unknown): Effect.Effect<string, InvalidPayload> => {
    let text: string | undefined
    try {
      text = JSON.stringify(encoded)
    } catch (error) {
      return fail("encode", messageOf(error))
    }
    return text === undefined ? fail("encode", "it has no JSON form") : Effect.succeed(text)
  }
  // Most schemas have their result at once: a fiber would take longer than the schema itself.
  const attempt = <A, R>(
    operation: "encode" | "decode",
    run: () => Effect.Effect<A, Schema.SchemaError, R>,
    given: unknown
  ): Effect.Effect<A, InvalidPayload, R> => {
    let effect: Effect.Effect<A, Schema.SchemaError, R>
    try {
      effect = run()
    } catch (error) {
      return fail(operation, messageOf(error))
    }
    return isDone(effect) ? effect : guard(operation, effect, given)
  }
  return {
    encode: (payload) => {
      const encoded = attempt("encode", () => encode(payload), payload)
      return isDone(encoded)
        ? stringify(encoded.value)
        : Effect.flatMap(encoded, stringify)
    },
    decode: (text) => {
      let value: unknown
      try {
        value = JSON.parse(text)
      } catch {
        // What JSON.parse says quotes the text.
        return fail("decode", "it is not JSON")
      }
      return attempt("decode", () => decode(value), value)
    }
  }
}
