/**
 * Channels: named, typed places that messages are published to.
 *
 * A name is a sequence of dot-separated segments. A segment that starts with `:` is a parameter; such a channel is one stream for all values,
 * which travel with each message. Names and patterns are checked when they are defined.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"
import { Effect, Result, Schema } from "effect"
import type { Limits, Selector } from "./Broker.ts"
import type { Codec, InvalidPayload } from "./channel/codec.ts"
import { codecOf } from "./channel/codec.ts"
import { checked, InvalidChannelName } from "./channel/name.ts"
import * as Given from "./internal/optionChecks.ts"

export { InvalidPayload } from "./channel/codec.ts"
export { checkName, InvalidChannelName } from "./channel/name.ts"

/**
 * The params do not fit the template of the channel.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidParams extends Schema.TaggedError<InvalidParams>()("InvalidParams", {
  channel: Schema.String,
  message: Schema.String
}) {}

/**
 * The names of the params in a template: `"userId"` of `"users.:userId.notices"`.
 *
 * @category models
 * @since 0.1.0
 */
export type ParamNames<Name extends string> = string extends Name ? never
  : Name extends `${infer Segment}.${infer Rest}` ? ParamName<Segment> | ParamNames<Rest>
  : ParamName<Name>

type ParamName<Segment extends string> = Segment extends `:${infer Param}` ? Param extends "" ? never : Param : never

/**
 * Options of `make`: the schema of the payload, the key that makes a publish repeatable, and limits on what the channel keeps.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChannelOptions<S extends Schema.Constraint, Params = Readonly<Record<string, string>>> {
  /** The schema of the payload. Payloads are stored as JSON, by the JSON codec of the schema. */
  readonly payload: S
  /**
   * Makes the id of a message that is published without one: publishing the same again within its window stores nothing. An id has 1 to 512
   * bytes.
   */
  readonly idempotencyKey?: ((payload: S["Type"]) => string) | undefined
  /**
   * Makes the ordering key of a message that is published without one: 1 to 512 bytes, or `null` for none. A group handles the messages of the
   * channel with the same key one after the other, in the order in which they were stored. See `docs/ordering.md`.
   */
  readonly orderingKey?: ((payload: S["Type"], params: Params) => string | null) | undefined
  /**
   * Limits on what the channel keeps, in addition to the rule that a message is removed when every group has acknowledged it. A message that a
   * limit removes is lost for the groups that have not handled it.
   */
  readonly limits?: {
    /** Keeps at most about this many messages, at least 1. */
    readonly maxLength?: number | undefined
    /** Removes messages older than this. */
    readonly maxAge?: Duration.Input | undefined
    /** Removes messages below this position. */
    readonly minId?: string | undefined
  } | undefined
}

const TypeId = "~rotif/Channel"

/**
 * A channel: its name, or template, and the schema of its payloads.
 *
 * @category models
 * @since 0.1.0
 */
export interface Channel<Name extends string, S extends Schema.Constraint> {
  readonly [TypeId]: "Channel"
  readonly name: Name
  readonly payload: S
  readonly paramNames: ReadonlyArray<string>
  readonly limits: Limits | undefined
  idempotencyKey?(payload: S["Type"]): string
  orderingKey?(payload: S["Type"], params: Readonly<Record<string, string>>): string | null
  readonly codec: Codec<S>
}

/**
 * A pattern: all channels that match it, now and in future. It can be subscribed to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pattern<S extends Schema.Constraint> {
  readonly [TypeId]: "Pattern"
  readonly pattern: string
  readonly payload: S
  readonly codec: Codec<S>
  /**
   * Channels that match, and decode their payloads in a way of their own.
   *
   * @internal
   */
  readonly own?: ReadonlyArray<Channel<string, S>> | undefined
}

/**
 * A union: several channels read as one. It can be subscribed to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Union<Members extends ReadonlyArray<Any>> {
  readonly [TypeId]: "Union"
  readonly members: Members
}

/**
 * Any channel.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Channel<string, Schema.Constraint>

/**
 * A source, which can be subscribed to: a channel, a pattern or a union.
 *
 * @category models
 * @since 0.1.0
 */
export type Source = Any | Pattern<Schema.Constraint> | Union<ReadonlyArray<Any>>

/**
 * The type of a channel's payloads.
 *
 * @category models
 * @since 0.1.0
 */
export type PayloadOf<C extends Any> = C["payload"]["Type"]

/**
 * The params of a channel: an empty record if it has none.
 *
 * @category models
 * @since 0.1.0
 */
export type ParamsOf<C extends Any> = C extends Channel<infer Name, infer _>
  ? { readonly [Param in ParamNames<Name>]: string }
  : never

/**
 * The options of a call about one message of a channel: with its params, if it has any.
 *
 * @category models
 * @since 0.1.0
 */
export type WithParams<C extends Any, Options> = keyof ParamsOf<C> extends never ? Options
  : Options & { readonly params: ParamsOf<C> }

/**
 * The options as the last argument of a call: required exactly if the channel has params.
 *
 * @category models
 * @since 0.1.0
 */
// Nothing fits `[missingParams: never]`: with it, the error of a call without options shows the params that are missing, and not a number of
// arguments.
export type OptionsArgument<C extends Any, Options> = keyof ParamsOf<C> extends never ? [options?: Options | undefined]
  : [options: Options] | [missingParams: never]

/**
 * The services that encoding a channel's payloads needs.
 *
 * @category models
 * @since 0.1.0
 */
export type EncodingServices<C extends Any> = C["payload"]["EncodingServices"]

/**
 * The services that decoding a source's payloads needs.
 *
 * @category models
 * @since 0.1.0
 */
export type DecodingServices<S extends Source> = S extends Union<infer Members> ?
  Members[number]["payload"]["DecodingServices"]
  : S extends { readonly payload: infer P extends Schema.Constraint } ? P["DecodingServices"]
  : never

/**
 * The part of a message that depends on its source: one member for each channel of a union, discriminated by `channel`.
 *
 * @category models
 * @since 0.1.0
 */
export type MessageShape<S extends Source> = S extends Union<infer Members> ? ChannelShape<Members[number]>
  : S extends Any ? ChannelShape<S>
  : S extends Pattern<infer P>
    ? { readonly channel: string; readonly payload: P["Type"]; readonly params: Readonly<Record<string, string>> }
  : never

type ChannelShape<C extends Any> = C extends Any
  ? { readonly channel: C["name"]; readonly payload: C["payload"]["Type"]; readonly params: ParamsOf<C> }
  : never

/** Constructors. */

const limitNames: ReadonlySet<string> = new Set(["maxLength", "maxAge", "minId"])
const optionNames: ReadonlySet<string> = new Set<keyof ChannelOptions<Schema.Constraint>>([
  "payload",
  "idempotencyKey",
  "orderingKey",
  "limits"
])

/** Refuses what is no schema, which would fail at the first message only. */
const optionsOf = <O extends { readonly payload: Schema.Constraint }>(name: string, options: O): O => {
  const given = Given.orThrow(
    Result.flatMap(Given.record("the options", options), () => Given.known("the options", options, optionNames)),
    ({ message }) => new InvalidChannelName({ name, message: `invalid channel "${name}": ${message}` })
  )
  if (Schema.isSchema(given.payload)) return given
  throw new InvalidChannelName({ name, message: `invalid channel "${name}": payload must be a Schema` })
}

const limitsOf = (name: string, limits: ChannelOptions<Schema.Constraint>["limits"]): Limits | undefined => {
  if (limits === undefined) return undefined
  const invalid = (message: string) =>
    new InvalidChannelName({ name, message: `invalid limits of channel "${name}": ${message}` })
  const orThrow = <A>(found: Result.Result<A, Given.Problem>): A =>
    Given.orThrow(found, ({ message }) => invalid(message))
  const { maxAge, maxLength, minId } = orThrow(Given.known("limits", limits, limitNames, "limits."))
  if (maxLength !== undefined && !(Number.isSafeInteger(maxLength) && maxLength >= 1)) {
    orThrow(
      Given.refuse(
        "maxLength",
        "a whole number, 1 or more (0 would drop every message; leave it out for no limit)",
        maxLength
      )
    )
  }
  if (minId !== undefined) orThrow(Given.position("minId", minId))
  const maxAgeMillis = maxAge === undefined ? undefined : Given.millisOf(maxAge)
  if (maxAgeMillis !== undefined && !(maxAgeMillis > 0 && maxAgeMillis < Infinity)) {
    orThrow(Given.refuse("maxAge", "a duration above 0 (leave it out for no limit)", maxAge))
  }
  return { maxLength, minId, maxAgeMillis }
}

/**
 * Defines a channel.
 *
 * **Details**: segments of the name that start with `:` are params; `publish` requires their values, and the handler gets them. If the name is
 * not a literal, the compiler does not know its params.
 *
 * **Errors**: throws `InvalidChannelName`.
 *
 * **Example** (A channel, and a template)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Channel } from "rotif"
 *
 * const OrderPlaced = Channel.make("orders.placed", {
 *   payload: Schema.Struct({ id: Schema.String, at: Schema.Date })
 * })
 * const Notice = Channel.make("users.:userId.notices", { payload: Schema.Struct({ text: Schema.String }) })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Name extends string, S extends Schema.Constraint>(
  name: Name,
  options: ChannelOptions<S, { readonly [Param in ParamNames<Name>]: string }>
): Channel<Name, S> => {
  checked(name, "name")
  optionsOf(name, options)
  for (const option of ["idempotencyKey", "orderingKey"] as const) {
    if (options[option] === undefined || typeof options[option] === "function") continue
    throw new InvalidChannelName({ name, message: `invalid channel "${name}": ${option} must be a function` })
  }
  return {
    [TypeId]: "Channel",
    name,
    payload: options.payload,
    paramNames: name.split(".").filter((segment) => segment.length > 1 && segment.startsWith(":")).map((segment) =>
      segment.slice(1)
    ),
    limits: limitsOf(name, options.limits),
    ...(options.idempotencyKey === undefined ? {} : { idempotencyKey: options.idempotencyKey }),
    // Every publish checks that the params are those of the name.
    ...(options.orderingKey === undefined ? {} : { orderingKey: options.orderingKey as Any["orderingKey"] & {} }),
    codec: codecOf(name, options.payload)
  }
}

/**
 * Defines a source by a pattern: `*` is exactly one segment, `**` one or more.
 *
 * **Errors**: throws `InvalidChannelName`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const pattern = <S extends Schema.Constraint>(
  pattern: string,
  options: { readonly payload: S }
): Pattern<S> => {
  checked(pattern, "pattern")
  optionsOf(pattern, options)
  return { [TypeId]: "Pattern", pattern, payload: options.payload, codec: codecOf(pattern, options.payload) }
}

/**
 * Joins channels into one source. Its messages are discriminated by `channel`.
 *
 * **Errors**: throws `InvalidChannelName` if there is no channel, or if two have the same name.
 *
 * @category constructors
 * @since 0.1.0
 */
export const union = <const Members extends ReadonlyArray<Any>>(members: Members): Union<Members> => {
  if (!Array.isArray(members) || !members.every(isChannel)) {
    throw new InvalidChannelName({ name: "", message: "a union takes a list of channels, made by Channel.make" })
  }
  const names = members.map((member) => member.name)
  if (names.length === 0) throw new InvalidChannelName({ name: "", message: "a union needs at least one channel" })
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) {
    throw new InvalidChannelName({ name: twice, message: `the channel "${twice}" is in the union twice: name it once` })
  }
  return { [TypeId]: "Union", members }
}

/** Operations. */

/**
 * Encodes a payload as it is stored.
 *
 * @category operations
 * @since 0.1.0
 */
export const encode = <C extends Any>(
  channel: C,
  payload: PayloadOf<C>
): Effect.Effect<string, InvalidPayload, EncodingServices<C>> => Effect.suspend(() => channel.codec.encode(payload))

/**
 * Encodes as `encode` does, but returns an `Exit` if the schema has its result at once. For code that runs in a fiber already.
 *
 * @internal
 */
export const encodeNow = <C extends Any>(
  channel: C,
  payload: PayloadOf<C>
): Effect.Effect<string, InvalidPayload, EncodingServices<C>> => channel.codec.encode(payload)

/**
 * Decodes a stored payload.
 *
 * @category operations
 * @since 0.1.0
 */
export const decode = <C extends Any>(
  channel: C,
  text: string
): Effect.Effect<PayloadOf<C>, InvalidPayload, C["payload"]["DecodingServices"]> =>
  Effect.suspend(() => channel.codec.decode(text))

/**
 * Checks the params of a publish: each is a string that is not empty, none is missing, none is unknown.
 *
 * @category operations
 * @since 0.1.0
 */
export const checkParams = (
  channel: Any,
  params: unknown
): Result.Result<Readonly<Record<string, string>>, InvalidParams> => {
  const fail = (message: string) =>
    Result.fail(new InvalidParams({ channel: channel.name, message: `"${channel.name}": ${message}` }))
  if (params !== undefined && Result.isFailure(Given.record("params", params))) return fail("params must be a record")
  const given = new Map<string, unknown>(Object.entries(params ?? {}))
  const out: Record<string, string> = {}
  for (const name of channel.paramNames) {
    const value = given.get(name)
    if (typeof value !== "string" || value === "") return fail(`the param "${name}" must be a string that is not empty`)
    Object.defineProperty(out, name, { value, enumerable: true })
    given.delete(name)
  }
  const [unknown] = given.keys()
  return unknown === undefined
    ? Result.succeed(out)
    : fail(`it has no param "${unknown.slice(0, 80)}"; it has ${channel.paramNames.join(", ") || "none"}`)
}

/**
 * Checks whether a value is a source, which can be subscribed to.
 *
 * @category guards
 * @since 0.1.0
 */
export const isSource = (value: unknown): value is Source =>
  typeof value === "object" && value !== null && TypeId in value

/** @internal */
export const checkSource = <S>(option: string, value: S): Result.Result<S, Given.Problem> =>
  isSource(value)
    ? Result.succeed(value)
    : Result.fail({ option, message: `the ${option} must be made by Channel.make, Channel.pattern or Channel.union` })

/**
 * Checks whether a value is a channel, which can be published to.
 *
 * @category guards
 * @since 0.1.0
 */
export const isChannel = (value: unknown): value is Any => isSource(value) && value[TypeId] === "Channel"

/**
 * Describes a source in a text: its name, its pattern, or the names of a union.
 *
 * @category operations
 * @since 0.1.0
 */
export const describe = (source: Source): string =>
  source[TypeId] === "Channel"
    ? source.name
    : source[TypeId] === "Pattern"
    ? source.pattern
    : source.members.map((member) => member.name).join(",")

/**
 * Returns the selector by which a backend reads a source.
 *
 * @category operations
 * @since 0.1.0
 */
export const selector = (source: Source): Selector =>
  source[TypeId] === "Channel"
    ? { _tag: "Channels", names: [source.name] }
    : source[TypeId] === "Pattern"
    ? { _tag: "Pattern", pattern: source.pattern }
    : { _tag: "Channels", names: source.members.map((member) => member.name) }

/**
 * Returns the decoder for each channel of a source.
 *
 * @category operations
 * @since 0.1.0
 */
export const decoderFor = <S extends Source>(
  source: S
): (channel: string) => ((text: string) => Effect.Effect<unknown, InvalidPayload, DecodingServices<S>>) | undefined => {
  // The services of each codec are those of its schema, which the union of all sources does not have.
  type Decode = (text: string) => Effect.Effect<unknown, InvalidPayload, DecodingServices<S>>
  const decoderOf = ({ codec }: { readonly codec: Codec<Schema.Constraint> }): Decode =>
    ((text: string) => codec.decode(text)) as Decode
  const any: Source = source
  const members = any[TypeId] === "Union" ? any.members : any[TypeId] === "Pattern" ? any.own ?? [] : []
  const others = any[TypeId] === "Union" ? undefined : decoderOf(any)
  if (members.length === 0) return () => others
  const decoders = new Map(members.map((member) => [member.name, decoderOf(member)]))
  return (channel) => decoders.get(channel) ?? others
}

/**
 * Returns the limits of a channel in the form of the port.
 *
 * @category operations
 * @since 0.1.0
 */
export const limits = (channel: Any): Limits | undefined => channel.limits
