/**
 * The identity of a message: its id and its deduplication window, from the options of a publish.
 */
import type { Duration } from "effect"
import { Result } from "effect"
import type { Delivery, NewMessage } from "../Broker.ts"
import { windowOf } from "../broker/idWindow.ts"
import * as Given from "../internal/optionChecks.ts"
import { calm, shown } from "../internal/describe.ts"
import type { When } from "./due.ts"

/** The prefix of ids that debouncing makes. */
const debounced = "debounce:"

/**
 * The default key by which a delivery is handled once: the stored message. The id alone is not enough: a message that is published again after
 * its window is accepted, and so must be handled.
 */
export const keyOf = ({ id, origin }: Pick<Delivery, "id" | "origin">): string => `${id}\n${origin}`

export interface Options extends When {
  readonly id?: string | undefined
  readonly deduplicate?: { readonly window: Duration.Input } | undefined
  readonly throttle?: { readonly key: string; readonly window: Duration.Input } | undefined
  readonly debounce?: { readonly key: string; readonly delay: Duration.Input } | undefined
}

export type Identity = Pick<NewMessage, "id" | "window" | "replace"> & { readonly delayMillis?: number }

const keyProblem = (what: string, key: unknown, most: number): string | undefined => {
  const problem = Given.textProblem(key, most)
  return problem === undefined ? undefined : `${what} ${problem}`
}

/** The ordering key of a message: the option, else what the channel makes. `undefined`: it has none. */
export const orderingKeyOf = (
  given: string | null | undefined,
  make: (() => string | null) | undefined
): Result.Result<string | undefined, Given.Problem> => {
  if (given === null || (given === undefined && make === undefined)) return Result.succeed(undefined)
  return given === undefined
    ? Given.made(
      "the orderingKey",
      make!,
      (made) => made === null ? Result.succeed(undefined) : Given.key("the orderingKey", made, 512)
    )
    : Given.key("orderingKey", given, 512)
}

const shapes = {
  deduplicate: new Set(["window"]),
  throttle: new Set(["key", "window"]),
  debounce: new Set(["key", "delay"])
} as const

/** Refuses `throttle: "key"`, or a Promise of it, which is no object with a key and a window. */
const shapeProblem = (options: Options): string | undefined => {
  for (const name of ["deduplicate", "throttle", "debounce"] as const) {
    const found = Given.known<object | undefined>(name, options[name], shapes[name], `${name}.`)
    if (found._tag === "Failure") return found.failure.message
  }
  return undefined
}

const spanProblem = (what: string, span: Duration.Input, mostMillis: number): string | undefined => {
  const millis = Given.millisOf(span)
  calm(span)
  return millis >= 1 && millis <= mostMillis
    ? undefined
    : `${what} must be a duration from 1 ms to ${mostMillis} ms, it is ${
      shown(span)
    } (the option maxWindow is the limit)`
}

/**
 * Without any of these options a message has an id of its own and no window: nothing is looked up for it. `keyOf` is the `idempotencyKey` of the
 * channel, if it has one.
 */
export const identify = (
  options: Options,
  keyOf: (() => unknown) | undefined,
  nextId: () => string,
  mostMillis: number
): Identity | string => {
  const { deduplicate, debounce, throttle } = options
  if (
    options.id === undefined && keyOf === undefined && deduplicate === undefined && debounce === undefined &&
    throttle === undefined
  ) {
    return { id: nextId(), window: undefined }
  }
  const shape = shapeProblem(options)
  if (shape !== undefined) return shape
  let { id } = options
  if (id !== undefined) {
    const problem = keyProblem("the id", id, 512)
    if (problem !== undefined) return problem
  } else if (keyOf !== undefined && debounce === undefined) {
    const made = Given.made("the idempotencyKey", keyOf, (key) => Given.name("the idempotencyKey", key, 512))
    if (made._tag === "Failure") return made.failure.message
    id = made.success
  }
  if (id?.startsWith(debounced) === true) {
    return `ids that begin with "${debounced}" are made by the option debounce`
  }
  if ([deduplicate, debounce, throttle].filter((option) => option !== undefined).length > 1) {
    return "give one of deduplicate, throttle and debounce"
  }
  if (throttle !== undefined) {
    const wrong = keyProblem("throttle.key", throttle.key, 512) ??
      spanProblem("throttle.window", throttle.window, mostMillis)
    if (wrong !== undefined) return wrong
    return {
      id: id ?? nextId(),
      window: { key: `t${throttle.key}`, millis: Math.ceil(Given.millisOf(throttle.window)) }
    }
  }
  if (debounce !== undefined) {
    if (options.id !== undefined || options.delay !== undefined || options.at !== undefined) {
      return "debounce takes no id, delay or time (at): its key is the id, and its delay begins anew"
    }
    const wrong = keyProblem("debounce.key", debounce.key, 500) ??
      spanProblem("debounce.delay", debounce.delay, mostMillis)
    if (wrong !== undefined) return wrong
    return {
      id: `${debounced}${debounce.key}`,
      window: undefined,
      replace: true,
      delayMillis: Math.ceil(Given.millisOf(debounce.delay))
    }
  }
  if (deduplicate !== undefined) {
    if (id === undefined) return "deduplicate needs an id, or a channel with an idempotencyKey"
    const wrong = spanProblem("deduplicate.window", deduplicate.window, mostMillis)
    if (wrong !== undefined) return wrong
    return { id, window: windowOf(id, Math.ceil(Given.millisOf(deduplicate.window))) }
  }
  return { id: id!, window: windowOf(id!) }
}
