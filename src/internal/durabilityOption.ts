/**
 * The option `durability`: reads it into the form of the port.
 */
import type { Duration } from "effect"
import { Result } from "effect"
import type { Durability } from "../Broker.ts"
import * as Given from "./optionChecks.ts"

export interface Options {
  readonly replicas?: number | undefined
  readonly fsync?: boolean | undefined
  readonly timeout?: Duration.Input | undefined
}

const names: ReadonlySet<string> = new Set<keyof Options>(["replicas", "fsync", "timeout"])

const usualDurabilityMillis = 1_000
/** At most this many replicas: no setup has more, and Redis would wait for the missing ones each time. */
const mostReplicas = 100

/** Reads the option, or refuses it. */
export const durabilityOf = (options: Options): Result.Result<Durability, Given.Problem> =>
  Result.gen(function*() {
    if (Result.isFailure(Given.record("durability", options))) {
      return yield* Given.refuse("durability", "an object such as { replicas: 1 }", options)
    }
    yield* Given.known("durability", options, names, "durability.")
    const { fsync = false, replicas, timeout } = options
    if (typeof fsync !== "boolean") {
      return yield* Given.refuse("durability.fsync", "true or false", fsync)
    }
    return {
      replicas: yield* Given.count("durability.replicas", replicas, {
        usual: 1,
        least: fsync ? 0 : 1,
        most: mostReplicas
      }),
      onDisk: fsync,
      timeoutMillis: yield* Given.span("durability.timeout", timeout, { usual: usualDurabilityMillis, least: 1 })
    }
  })
