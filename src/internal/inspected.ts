/**
 * How things look in `console.log`: what a user sees of them, and nothing of how they work. Node, Bun and Deno ask an object by this symbol.
 */
import type { Delivery } from "../Broker.ts"

export const Inspect: unique symbol = Symbol.for("nodejs.util.inspect.custom") as never

/** Shows an object as another one. It changes nothing else of it: the way is not enumerable. */
export const showAs = <A extends object>(object: A, show: () => object): A =>
  Object.defineProperty(object, Inspect, { value: show, enumerable: false, configurable: true })

const ofPort = [
  "id",
  "channel",
  "payload",
  "headers",
  "params",
  "orderingKey",
  "publishedAtMillis",
  "attempt",
  "deliveryCount",
  "crashes",
  "isSuspect",
  "isVanished",
  "expiresInMillis",
  "malformed",
  "origin"
] as const satisfies ReadonlyArray<keyof Delivery>

/** What of a delivery is of the port, and not of an adapter. */
export const publicPart = (delivery: Delivery): object =>
  Object.fromEntries(ofPort.map((name) => [name, delivery[name]]))

/** An object without its effects and functions. */
export const withoutCode = (object: object, code: ReadonlySet<string>): object =>
  Object.fromEntries(Object.entries(object).filter(([name]) => !code.has(name)))
