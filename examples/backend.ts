/**
 * What the examples run on: Redis when `REDIS_URL` is set, memory otherwise. Nothing else in them depends on it.
 *
 * On Redis every run has a namespace of its own and removes it at its end.
 */
import { Config, Effect, Layer, Option, References } from "effect"
import { Redis, Rotif } from "rotif"

const tidy = Effect.fnUntraced(
  function*(options: Redis.UrlOptions, prefix: string) {
    const redis = yield* Redis.make(options)
    const connection = redis.connection(prefix)
    let cursor = "0"
    do {
      const [next, keys] = (yield* connection.send(["scan", cursor, "match", `{${prefix}:*`, "count", 1_000], {
        idempotent: true
      })) as [string, Array<string>]
      if (keys.length > 0) yield* connection.send(["unlink", ...keys], { idempotent: true })
      cursor = next
    } while (cursor !== "0")
    // Warnings about the server were logged when the example began.
  },
  Effect.scoped,
  Effect.provideService(References.MinimumLogLevel, "Error")
)

/** Dead letters are intended here: no warnings between the lines of an example. */
const quiet = { reports: "None" } as const

/** A name that no other run has. */
export const runPrefix = `example-${process.pid.toString(36)}-${globalThis.crypto.randomUUID().slice(0, 8)}`

/** The Redis that `REDIS_URL` names, if it is set. */
export const redisUrl = Config.option(Config.Redacted("REDIS_URL"))

/** `Rotif.layer` or `Rotif.layerMemory`; each `name` has a namespace of its own. */
export const backend = (options?: Rotif.Options, name = "") =>
  Layer.unwrap(Effect.gen(function*() {
    const url = yield* redisUrl
    if (Option.isNone(url)) return Rotif.layerMemoryWith({ ...quiet, ...options })
    const place = { url: url.value }
    const prefix = `${runPrefix}${name}`
    return Rotif.layer({ ...place, prefix, ...quiet, ...options }).pipe(
      // Built before the rest, so that it closes after the rest.
      Layer.provideMerge(Layer.effectDiscard(Effect.addFinalizer(() => Effect.ignore(tidy(place, prefix)))))
    )
  }))
