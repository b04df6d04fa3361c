/** Composing: a payload that is encoded becomes a message of the port, with what its options say. */
import type { Durability, NewMessage } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import { none as noLimits } from "../broker/limits.ts"
import type { Due } from "../broker/publishing.ts"
import { durabilityOf } from "../internal/durabilityOption.ts"
import { dueOf, expiryOf } from "./due.ts"
import * as Envelope from "./envelope.ts"
import { identify, orderingKeyOf } from "./identity.ts"
import type { AnyOptions, PublishOptions } from "./options.ts"
import type { RequestError } from "./outcome.ts"
import { InvalidPublishOptions, PayloadTooLarge } from "./outcome.ts"

const none: PublishOptions = {}
const noParams: Readonly<Record<string, string>> = Object.freeze({})

const publishNames: ReadonlySet<string> = new Set<keyof AnyOptions>([
  "headers",
  "id",
  "deduplicate",
  "throttle",
  "debounce",
  "orderingKey",
  "delay",
  "at",
  "expiresIn",
  "durability",
  "params"
])

export interface Options {
  /** The largest message, in bytes. */
  readonly limit: number
  /** The longest window. */
  readonly mostMillis: number
  readonly usualDurability: Durability | undefined
  readonly nextId: () => string
  readonly now: () => number
}

/** Makes the function that makes the message of a payload, or refuses it. */
export const make = ({ limit, mostMillis, nextId, now, usualDurability }: Options) =>
<C extends Channel.Any>(
  channel: C,
  payload: Channel.PayloadOf<C>,
  text: string,
  options: AnyOptions | undefined,
  id?: string
): NewMessage | RequestError => {
  const invalid = (message: string) => new InvalidPublishOptions({ channel: channel.name, message })
  const params = Envelope.paramsOf(channel, options, publishNames)
  if (params instanceof Error) return params
  const identity = identify(
    options ?? none,
    channel.idempotencyKey === undefined ? undefined : () => channel.idempotencyKey!(payload),
    () => id ?? nextId(),
    mostMillis
  )
  if (typeof identity === "string") return invalid(identity)
  let due: Due | undefined = identity.delayMillis === undefined ? undefined : { delayMillis: identity.delayMillis }
  let expiresInMillis: number | undefined
  if (options?.delay !== undefined || options?.at !== undefined) {
    const found = dueOf(options, now())
    if (typeof found === "string") return invalid(found)
    due = found
  }
  if (options?.expiresIn !== undefined) {
    const found = expiryOf(options.expiresIn, now())
    if (typeof found === "string") return invalid(found)
    expiresInMillis = found
  }
  let orderingKey: string | undefined
  if (channel.orderingKey !== undefined || options?.orderingKey !== undefined) {
    const found = orderingKeyOf(
      options?.orderingKey,
      channel.orderingKey === undefined ? undefined : () => channel.orderingKey!(payload, params ?? noParams)
    )
    if (found._tag === "Failure") return invalid(found.failure.message)
    orderingKey = found.success
  }
  let durability = usualDurability
  if (options?.durability !== undefined) {
    const found = options.durability === false ? undefined : durabilityOf("durability", options.durability)
    if (found?._tag === "Failure") return invalid(found.failure.message)
    durability = found?.success
  }
  const message: NewMessage = {
    id: identity.id,
    channel: channel.name,
    payload: text,
    headers: options?.headers,
    params,
    limits: Channel.limits(channel) ?? noLimits,
    window: identity.window,
    due,
    replace: identity.replace,
    expiresInMillis,
    orderingKey,
    durability
  }
  const bytes = Envelope.bytesAbove(limit, message)
  return bytes === undefined ? message : new PayloadTooLarge({ channel: channel.name, bytes, limit })
}
