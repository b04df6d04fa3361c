/**
 * Effect's own `Redis` service (`effect/persistence/Redis`) on the connections of Rotif, for the modules of Effect that store data in Redis:
 * `RateLimiter`, `PersistedQueue`, `Persistence`, `CircuitBreaker`.
 *
 * @since 0.1.0
 */
import { Effect, Exit, Layer, Scope } from "effect"
import * as Persistence from "effect/persistence/Redis"
import type { BlockingConnection, Command, Connection, RedisError, Script } from "./Redis.ts"
import { Redis } from "./Redis.ts"

/** The longest wait of a timer of Node, 24 days: the command itself says how long it blocks. */
const foreverMillis = 2 ** 31 - 1

const foreign = <A, R>(effect: Effect.Effect<A, RedisError, R>): Effect.Effect<A, Persistence.RedisError, R> =>
  Effect.mapError(effect, (cause) => new Persistence.RedisError({ cause }))

/** Replies have the type that the caller states: Effect's service is typed so. */
const reply = <A>(effect: Effect.Effect<unknown, RedisError>): Effect.Effect<A, Persistence.RedisError> =>
  foreign(effect) as Effect.Effect<A, Persistence.RedisError>

/**
 * Makes Effect's `Redis` service from that of Rotif.
 *
 * **Details**: on a Cluster a command or script goes to the node of its first key, and one without keys to any node. Redis refuses a script
 * whose keys are in several slots, so give the module a prefix with a hash tag, such as `"{limits}:"`. A command whose reply was lost is not
 * sent again. `reserve` gives at most 10 connections of their own, for commands that block.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const redis = yield* Redis
  // The client knows the keys of a command by its name in lower case.
  const commandOf = (name: string, args: ReadonlyArray<string>): Command => [name.toLowerCase(), ...args]
  const connectionFor = (command: Command): Connection => redis.connection(redis.keyOf(command) ?? "")

  const scripts = new WeakMap<object, Script>()
  const scriptOf = (script: { readonly lua: string }): Script => {
    let known = scripts.get(script)
    if (known === undefined) scripts.set(script, known = { name: "eval", lua: script.lua })
    return known
  }

  const made = yield* Persistence.make({
    send: (name, ...args) => {
      const command = commandOf(name, args)
      return reply(connectionFor(command).send(command, { idempotent: false }))
    },
    subscribe: (channel, onMessage) =>
      foreign(redis.listen([channel], {
        onMessage: (_, message) => onMessage({ channel, message }),
        // Effect's service has no way to tell: messages may be missing, as its documentation says.
        onGap: () => {}
      })).pipe(Effect.as(Effect.never)),
    connect: Effect.gen(function*() {
      const scope = yield* Scope.make()
      /** One connection to each node of a key; on one server there is one. */
      const sockets = new Map<Connection, BlockingConnection>()
      return {
        send: <A = unknown>(name: string, ...args: ReadonlyArray<string>) => {
          const command = commandOf(name, args)
          const shared = connectionFor(command)
          return reply<A>(Effect.gen(function*() {
            let socket = sockets.get(shared)
            if (socket === undefined) {
              socket = yield* redis.blocking(redis.keyOf(command) ?? "").pipe(Scope.provide(scope))
              sockets.set(shared, socket)
            }
            return yield* socket.send(command, foreverMillis)
          }))
        },
        close: Scope.close(scope, Exit.void)
      }
    })
  })

  return Persistence.Redis.of({
    ...made,
    reserve: Effect.map(made.reserve, ({ send }) => ({
      send,
      // Whole, because nobody knows which node this connection leads to.
      eval: (script) => (...params) =>
        send("EVAL", script.lua, String(script.numberOfKeys(...params)), ...script.params(...params).map(String))
    })),
    // Sent by its hash, and whole to a node that does not know it: SCRIPT LOAD would reach only one node of a Cluster.
    eval: (script) => (...params) => {
      const args = script.params(...params).map(String)
      const keys = args.slice(0, script.numberOfKeys(...params))
      return reply(
        redis.connection(keys[0] ?? "").evaluate(scriptOf(script), keys, args.slice(keys.length))
      )
    }
  })
})

/**
 * Provides Effect's `Redis` service on the connections of `Redis`. Each call makes a layer of its own: two of them are two services, wherever
 * they are provided.
 *
 * **Example** (A rate limit that all processes share)
 *
 * ```ts
 * import { Layer } from "effect"
 * import * as RateLimiter from "effect/persistence/RateLimiter"
 * import { EffectRedis, Redis } from "rotif"
 *
 * const Limits = RateLimiter.layer.pipe(
 *   Layer.provide(RateLimiter.layerStoreRedis({ prefix: "{limits}:" })),
 *   Layer.provide(EffectRedis.layer()),
 *   Layer.provide(Redis.layer({ url: "redis://localhost:6379" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (): Layer.Layer<Persistence.Redis, never, Redis> => Layer.effect(Persistence.Redis, make)
