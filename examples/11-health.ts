/**
 * 11. Health and statistics: is the program live, is it ready, how far are its groups, and do the totals add up?
 *
 *     node --conditions=rotif-source examples/11-health.ts
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { createServer } from "node:http"
import { Channel, Health, Publisher, Stats, Subscription } from "rotif"
import { backend } from "./backend.ts"

const OrderPlaced = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })

// Every handler waits for this supplier: until it answers they are stuck.
const supplier = Effect.runSync(Deferred.make<void>())

const Packing = Subscription.layer(OrderPlaced, {
  group: "packing",
  prefetch: 0,
  handler: (message) => message.payload.id === "o-2" ? message.term("nobody packs o-2") : Deferred.await(supplier)
})

const Server = HttpRouter.serve(Health.layerRoutes(), { disableLogger: true, disableListenLog: true }).pipe(
  Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)

const ask = Effect.fnUntraced(function*(question: string) {
  const { address } = yield* HttpServer.HttpServer
  const port = address._tag === "UnixPathAddress" ? 0 : address.port
  const response = yield* Effect.promise(() => fetch(`http://127.0.0.1:${port}/health/${question}`))
  const { reasons } = yield* Effect.promise(() => response.json() as Promise<Health.Report>)
  yield* Console.log(`${question}: ${response.status}${reasons.map(({ kind }) => ` ${kind}`).join("")}`)
})

const packing = Effect.map(Stats.channels(OrderPlaced), (channels) => Stats.ofGroup(channels, "packing")!)

const until = (isSo: (group: Stats.GroupSum) => boolean) =>
  Effect.repeat(Effect.delay(packing, "20 millis"), { until: isSo })

const tell = Effect.map(
  packing,
  ({ dead, lag, pending, published, totals }) =>
    `${published} published = ${totals.acked} done + ${pending} being packed + ${dead} dead + ${lag} to come`
)

const program = Effect.gen(function*() {
  yield* ask("live")
  yield* ask("ready")
  yield* Publisher.publishAll(OrderPlaced, ["o-1", "o-2", "o-3"].map((id) => ({ id })))
  yield* until(({ oldestMillis, pending }) => pending === 1 && oldestMillis! > 400)
  yield* Console.log(yield* tell)
  yield* ask("ready")
  yield* ask("live")
  yield* Deferred.succeed(supplier, undefined)
  yield* until(({ lag, pending }) => pending === 0 && lag === 0)
  yield* Console.log(yield* tell)
  yield* ask("ready")
})

program.pipe(
  Effect.provide(Layer.mergeAll(Packing, Server)),
  Effect.provide(backend({ health: { slowHandler: "300 millis" } })),
  NodeRuntime.runMain
)
