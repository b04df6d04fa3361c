/**
 * The types of channels: the payload of each name, of the names that match a pattern, and the validators that say so at run time.
 */
import type { Payload, RotifMessage } from "./message.ts"
import type { StandardSchema } from "./standardSchema.ts"

/**
 * Options of one channel.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChannelOptions<T> {
  /**
   * The validator of its payloads, as they are stored: as JSON. A payload that does not fit is refused by `publish`, and a stored one becomes a
   * dead letter with reason `decode`. Handlers get what the validator makes of it.
   */
  readonly schema?: T | StandardSchema<NoInfer<InputOf<T>>, NoInfer<OutputOf<T>>> | undefined
}

/**
 * The channels of a manager without a map of its own: any name, and any payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface AnyChannels {
  readonly [channel: string]: Payload
}

/**
 * What `publish` takes for an entry of the map of channels: the payload itself, or what its validator takes.
 *
 * @category models
 * @since 0.1.0
 */
export type InputOf<T> = T extends StandardSchema<infer Input, infer _> ? Input : T

/**
 * What handlers get for an entry of the map of channels: the payload itself, or what its validator makes of it.
 *
 * @category models
 * @since 0.1.0
 */
export type OutputOf<T> = T extends StandardSchema<infer _, infer Output> ? Output : T

/**
 * The names of the channels of a map.
 *
 * @category models
 * @since 0.1.0
 */
export type ChannelName<Channels extends object> = keyof Channels & string

/**
 * Any name if the manager has no map of channels. With a map, no other name is accepted.
 *
 * @category models
 * @since 0.1.0
 */
export type AnyName<Channels extends object> = string extends keyof Channels ? string : never

/**
 * The names and the patterns of a map of channels.
 *
 * @category models
 * @since 0.1.0
 */
export type ChannelPattern<Channels extends object> = ChannelName<Channels> | `${string}*${string}`

/**
 * Those of the names that match a pattern: `*` is one segment between dots, `**` one or more.
 *
 * @category models
 * @since 0.1.0
 */
export type MatchingNames<Name extends string, Pattern extends string> = Name extends Pattern ? Name
  : Name extends string ? Matches<Name, Pattern> extends true ? Name : never
  : never

type Matches<Name extends string, Pattern extends string> = Pattern extends "**" ? true
  : Pattern extends `${infer P}.${infer Ps}` ?
    Name extends `${infer N}.${infer Ns}` ? P extends "**" ? Matches<Ns, Ps> extends true ? true : Matches<Ns, Pattern>
      : P extends "*" | N ? Matches<Ns, Ps>
      : false
    : false
  : Pattern extends "*" ? Name extends `${string}.${string}` ? false : true
  : Name extends Pattern ? true
  : false

/**
 * The message of a handler for a name or a pattern: a union, told apart by `channel`, if several channels match.
 *
 * @category models
 * @since 0.1.0
 */
export type MessageOf<Channels extends object, Pattern extends string> = {
  [Name in MatchingNames<ChannelName<Channels>, Pattern>]: RotifMessage<OutputOf<Channels[Name]>, Name>
}[MatchingNames<ChannelName<Channels>, Pattern>]
