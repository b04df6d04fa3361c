/**
 * The option `durability`: reads it into the form of the port.
 */
import type { Duration } from "effect"
import { Result } from "effect"
import type { Durability } from "../Broker.ts"
import * as Given from "./optionChecks.ts"
import * as Shape from "./optionShape.ts"

export interface Options {
  readonly replicas?: number | undefined
  readonly fsync?: boolean | undefined
  readonly timeout?: Duration.Input | undefined
}

/** At most this many replicas: no setup has more, and Redis would wait for the missing ones each time. */
const mostReplicas = 100

const shape = Shape.shape<Options>()({
  replicas: Shape.any,
  fsync: Shape.flag(false),
  timeout: Shape.span({ usual: 1_000, least: 1 })
})

/** Reads the option, or refuses it. */
export const durabilityOf = (option: string, value: unknown): Result.Result<Durability, Given.Problem> =>
  Result.gen(function*() {
    const options: Options = yield* Result.mapError(
      Given.record(option, value),
      () => Given.refuse(option, "an object such as { replicas: 1 }", value).failure
    )
    const { fsync, replicas, timeout } = yield* shape.optional(option, options, `${option}.`)
    const bounds = { usual: 1, least: fsync ? 0 : 1, most: mostReplicas }
    return {
      replicas: yield* Given.count(`${option}.replicas`, replicas, bounds),
      onDisk: fsync,
      timeoutMillis: timeout
    }
  })
