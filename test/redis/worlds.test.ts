/** Several Rotifs in one program: whichever way they are put together, each has services of its own, which act on its own keys only. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, LayerMap, Schema, Scope } from "effect"
import * as rotif from "rotif"
import {
  Broadcast,
  Broker,
  Channel,
  DeadLetters,
  Deduplication,
  Health,
  Inspector,
  MemoryBroker,
  Publisher,
  Redis,
  RedisBroker,
  Rotif,
  Scheduler,
  Stats,
  Subscription
} from "rotif"
import * as Testing from "rotif/testing"
import { Redis as Client } from "ioredis"
import { inject } from "vitest"
import * as Keyspace from "../fixtures/Keyspace.ts"
import { freshPrefix } from "../contract/kit.ts"

const Texts = Channel.make("texts", { payload: Schema.String })

/** Every service that a program may ask for. */
const services = {
  Broadcast: Broadcast.Broadcast,
  Broker: Broker.Broker,
  DeadLetters: DeadLetters.DeadLetters,
  Deduplication: Deduplication.Deduplication,
  Health: Health.Health,
  Inspector: Inspector.Inspector,
  Publisher: Publisher.Publisher,
  Redis: Redis.Redis,
  Scheduler: Scheduler.Scheduler,
  Stats: Stats.Stats,
  Subscriptions: Subscription.Subscriptions
}

type World = Readonly<Record<string, unknown>>

/** The services that are there, by name. */
const world: Effect.Effect<World> = Effect.contextWith((context: Context.Context<never>) =>
  Effect.succeed(
    Object.fromEntries(
      Object.entries(services).flatMap(([name, service]) => {
        const found = Context.getOption(context, service as Context.Key<unknown, unknown>)
        return found._tag === "Some" ? [[name, found.value]] : []
      })
    )
  )
)

const shared = (one: World, other: World) => Object.keys(one).filter((name) => one[name] === other[name])

type AnyLayer = Layer.Layer<Publisher.Publisher, unknown>

/** A part of a program that remembers which services it was built with. */
const part = (seen: Array<World>) => Layer.effectDiscard(Effect.map(world, (found) => seen.push(found)))

/** The ways in which a program comes to two Rotifs; each gives their services. */
const ways: Readonly<
  Record<string, (a: AnyLayer, b: AnyLayer) => Effect.Effect<ReadonlyArray<World>, unknown, Scope.Scope>>
> = {
  "one in the other": (a, b) =>
    Effect.gen(function*() {
      const outer = yield* world
      const inner = yield* Effect.provide(world, b)
      return [outer, inner]
    }).pipe(Effect.provide(a)),
  "side by side": (a, b) =>
    Effect.gen(function*() {
      const seen: Array<World> = []
      yield* Layer.build(Layer.mergeAll(Layer.provide(part(seen), a), Layer.provide(part(seen), b)))
      return seen
    }),
  "one layer provided with the other": (a, b) =>
    Effect.gen(function*() {
      const seen: Array<World> = []
      const inner = Layer.provideMerge(part(seen), b)
      yield* Layer.build(Layer.provideMerge(part(seen), a).pipe(Layer.provide(inner)))
      return seen
    }),
  "by LayerMap": (a, b) =>
    Effect.gen(function*() {
      const tenants = yield* LayerMap.make((tenant: "a" | "b") => (tenant === "a" ? a : b))
      return [yield* Effect.provide(world, tenants.get("a")), yield* Effect.provide(world, tenants.get("b"))]
    })
}

/** Rotif put together out of its modules, as somebody does who has a broker of his own. */
const byHand = (broker: Layer.Layer<Broker.Broker, unknown>) => {
  const registry = Subscription.layerRegistry()
  return Layer.mergeAll(Scheduler.layer(), Stats.layer(), Inspector.layer(), DeadLetters.layer(), Broadcast.layer())
    .pipe(
      Layer.provideMerge(Layer.mergeAll(Publisher.layer(), registry)),
      Layer.provideMerge(broker)
    )
}

const onRedis = () => ({ url: `redis://127.0.0.1:${inject("redisPort")}`, prefix: freshPrefix() })

const makers: Readonly<Record<string, () => AnyLayer>> = {
  "Rotif.layerMemoryWith": () => Rotif.layerMemoryWith(),
  "Testing.layerMemoryWith": () => Testing.layerMemoryWith(),
  "Rotif.layer": () => Rotif.layer(onRedis()),
  "modules on a MemoryBroker": () => byHand(MemoryBroker.layer()),
  "modules on a RedisBroker": () => {
    const { prefix, url } = onRedis()
    return byHand(Layer.provide(RedisBroker.layer({ prefix }), Redis.layer({ url })))
  }
}

describe("Several Rotifs in one program", () => {
  for (const [way, build] of Object.entries(ways)) {
    for (const [name, make] of Object.entries(makers)) {
      it.live(`share no service, ${way} (${name})`, () =>
        Effect.scoped(Effect.gen(function*() {
          const [one, other] = yield* build(make(), make())
          assert.isAbove(Object.keys(one!).length, 6)
          assert.deepStrictEqual(Object.keys(one!), Object.keys(other!))
          assert.deepStrictEqual(shared(one!, other!), [])
        })))
    }
    it.live(`share no service, ${way} (memory and Redis)`, () =>
      Effect.scoped(Effect.gen(function*() {
        const [one, other] = yield* build(Rotif.layerMemoryWith(), Rotif.layer(onRedis()))
        // The connections are the one service that only one of the two brings along.
        assert.deepStrictEqual(shared(one!, other!).filter((name) => name !== "Redis"), [])
      })))
  }

  it.effect("are one where the same layer is provided twice, as everywhere in Effect", () =>
    Effect.gen(function*() {
      const live = Rotif.layerMemoryWith()
      const seen: Array<World> = []
      yield* Layer.build(Layer.mergeAll(Layer.provide(part(seen), live), Layer.provide(part(seen), live)))
      assert.deepStrictEqual(shared(seen[0]!, seen[1]!), Object.keys(seen[0]!))
    }).pipe(Effect.scoped))

  it("have no constant layer that could be shared by mistake", () => {
    const constant = Object.entries(rotif).flatMap(([module, exports]) =>
      Object.entries(exports).flatMap(([name, value]) => Layer.isLayer(value) ? [`${module}.${name}`] : [])
    )
    // The one that stands for a whole Rotif: one value, one Rotif.
    assert.deepStrictEqual(constant, ["Rotif.layerMemory"])
    assert.deepStrictEqual(
      Object.entries(Testing).flatMap(([name, value]) => Layer.isLayer(value) ? [name] : []),
      ["layerMemory"]
    )
  })

  it.live("act each on its own keys only, as the tenants of a LayerMap", () =>
    Effect.gen(function*() {
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new Client({ host: "127.0.0.1", port: inject("redisPort"), protocol: 2 })),
        (client) => Effect.sync(() => client.disconnect())
      )
      const prefixes = { a: freshPrefix(), b: freshPrefix() }
      const options = { url: `redis://127.0.0.1:${inject("redisPort")}` }
      const tenants = yield* LayerMap.make((tenant: "a" | "b") => Rotif.layer({ ...options, prefix: prefixes[tenant] }))
      const keysOf = (tenant: "a" | "b") =>
        Effect.promise(() => Keyspace.open(client, `{${prefixes[tenant]}:0}:`).dump()).pipe(
          Effect.map((found) => Object.keys(found).filter((key) => key !== "janitor" && key !== "retention"))
        )
      // Both are there before either does anything.
      yield* Effect.provide(Effect.void, tenants.get("a"))
      yield* Effect.scoped(Effect.gen(function*() {
        const a = yield* tenants.contextEffect("a")
        const b = yield* tenants.contextEffect("b")
        const inA = Effect.provide(a) as <A, E>(effect: Effect.Effect<A, E, Rotif.Services>) => Effect.Effect<A, E>
        const inB = Effect.provide(b) as typeof inA
        const before = yield* keysOf("a")
        const one = yield* inB(Publisher.publish(Texts, "later", { delay: "1 hour" }))
        yield* inB(Scheduler.recurring("tick", { every: "1 hour" }, Texts, "tick"))
        yield* inB(Publisher.publish(Texts, "now"))
        yield* inB(Deduplication.once("key", "1 minute", Effect.void))
        assert.deepStrictEqual(yield* keysOf("a"), before)
        const stored = yield* keysOf("b")
        assert.includeMembers(stored, ["log:texts", "waiting", "bodies::texts", "recurring", "ticks"])

        assert.strictEqual(yield* inA(Scheduler.count()), 0)
        assert.isFalse(yield* inA(Scheduler.cancel(Texts, one.id)))
        assert.deepStrictEqual(yield* inA(Scheduler.listRecurring), [])
        assert.deepStrictEqual((yield* inA(Inspector.repair())).repaired, [])
        assert.deepStrictEqual((yield* inA(Stats.channels())).map(({ channel }) => channel), [])
        assert.strictEqual(yield* inB(Scheduler.count()), 1)
        assert.isTrue(yield* inB(Scheduler.cancel(Texts, one.id)))
      }))
    }).pipe(Effect.scoped))
})
