/**
 * Shared by the feature suites: the backends, and how a test observes a subscription.
 */
import { it } from "@effect/vitest"
import { Duration, Effect, Layer, Queue, Schema, SchemaTransformation, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Message, Middleware, Rotif } from "rotif"
import { Broker, Channel, Subscription } from "rotif"

/** The options of every backend. `graceMillis`, how long a message is kept after every group has acknowledged it, concerns Redis only. */
export interface Options extends Rotif.Options {
  readonly graceMillis?: number | undefined
}

/** A backend, and how a test lets time pass on it. */
export interface Backend {
  readonly name: string
  readonly clock: "effect" | "live"
  /** Builds the services on a new namespace at each call. */
  readonly layer: (options?: Options) => Layer.Layer<Rotif.Services, unknown>
  /** Lets this span pass; everything that becomes due in it happens. */
  readonly advance: (span: Duration.Input) => Effect.Effect<void>
  /** Waits for an effect that needs time to pass. Fails after 10 seconds on Redis, 5 minutes of the clock in memory. */
  readonly soon: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** The memory backend. Its clock moves in steps of 5 ms while a test waits, so that nothing is early and nothing is missed. */
export const memoryBackend = (layer: Backend["layer"]): Backend => ({
  name: "memory",
  clock: "effect",
  layer,
  advance: TestClock.adjust,
  soon: (effect) =>
    Effect.raceFirst(
      effect,
      Effect.andThen(
        Effect.repeat(Effect.andThen(TestClock.adjust("5 millis"), Effect.yieldNow), { times: 60_000 }),
        Effect.die(new Error("nothing happened within 5 minutes of the clock"))
      )
    )
})

export const liveBackend = (name: string, layer: Backend["layer"]): Backend => ({
  name,
  clock: "live",
  layer,
  advance: Effect.sleep,
  soon: (effect) =>
    Effect.timeoutOrElse(effect, {
      duration: "10 seconds",
      orElse: () => Effect.die(new Error("nothing happened within 10 seconds"))
    })
})

let prefixes = 0

/** Gives a namespace that no other test of this run uses. */
export const freshPrefix = (): string => `t${process.pid.toString(36)}-${(prefixes++).toString(36)}`

export type Body = Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope>

/**
 * Declares tests on a backend. The subscriptions of a test end before its layer. `drainTimeout` is short, so that a test that fails
 * does not wait long for running handlers.
 */
export const promises = (backend: Backend) => (name: string, body: Body, options?: Options) =>
  it[backend.clock](
    name,
    () => body.pipe(Effect.scoped, Effect.provide(backend.layer({ drainTimeout: "5 seconds", ...options })))
  )

/**
 * Subscribes, and gives every message to the test before `handler` runs.
 */
export const listen = Effect.fnUntraced(function*<
  S extends Channel.Source,
  E = never,
  R = never,
  const Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false
>(
  source: S,
  options?: Partial<Subscription.Options<S, E, R, Ms, Transactional>>
) {
  const seen = yield* Queue.unbounded<Message.Message<S>>()
  const { handler = () => Effect.void, ...rest } = options ?? {}
  const subscription = yield* Subscription.make(source, {
    ...rest,
    handler: (message: Message.Message<S>) => Effect.andThen(Queue.offer(seen, message), handler(message))
  })
  return { subscription, seen }
})

/** A text whose decoding never ends if it is "hangs". */
export const hanging = Schema.String.pipe(Schema.decodeTo(
  Schema.String,
  SchemaTransformation.transformEffect({
    decode: (text: string) => text === "hangs" ? Effect.never : Effect.succeed(text),
    encode: (text: string) => Effect.succeed(text)
  })
))

/** Waits until the condition holds. */
export const until = <E, R>(backend: Backend, isSo: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  backend.soon(
    Effect.gen(function*() {
      while (!(yield* isSo)) yield* backend.clock === "live" ? Effect.sleep(5) : Effect.yieldNow
    })
  )

/** Counts the unfinished messages of all channels of the source, over all its groups. */
export const leftover = Effect.fnUntraced(function*(source: Channel.Source) {
  const broker = yield* Broker.Broker
  const info = yield* broker.info(Channel.selector(source))
  const groups = info.channels.flatMap((channel) => channel.groups)
  const sum = (count: (group: Broker.GroupStats) => number) => groups.reduce((total, group) => total + count(group), 0)
  return {
    unread: sum((group) => group.lag ?? Number.NaN),
    pending: sum((group) => group.pending),
    ready: sum((group) => group.ready),
    waiting: info.waiting
  }
})

export const nothingLeft = { unread: 0, pending: 0, ready: 0, waiting: 0 }

/** Lists the dead letters of all shards. */
export const letters = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  const shards = Array.from({ length: broker.shards }, (_, shard) => shard)
  return (yield* Effect.forEach(shards, (shard) => broker.letters.list(shard, { order: "oldest", limit: 1000 }))).flat()
})
