/**
 * 10. Telemetry: traces and metrics, to an OpenTelemetry collector and as a page for Prometheus.
 *
 *     node --conditions=rotif-source examples/10-telemetry.ts
 *
 * The collector is a small server in this program, so that you see what arrives. Yours listens at `http://localhost:4318`.
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Effect, Layer, Queue, Schema } from "effect"
import { FetchHttpClient, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Otlp, PrometheusMetrics } from "effect/observability"
import { createServer } from "node:http"
import { Channel, Middleware, Publisher, Subscription } from "rotif"
import { backend } from "./backend.ts"

const OrderPlaced = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })

/** The part of a collector's input that this example reads. */
const Traces = Schema.Struct({
  resourceSpans: Schema.Array(Schema.Struct({
    scopeSpans: Schema.Array(Schema.Struct({
      spans: Schema.Array(Schema.Struct({
        name: Schema.String,
        traceId: Schema.String,
        spanId: Schema.String,
        links: Schema.Array(Schema.Struct({ traceId: Schema.String, spanId: Schema.String }))
      }))
    }))
  }))
})

type Span = (typeof Traces.Type)["resourceSpans"][number]["scopeSpans"][number]["spans"][number]

const spans = Effect.runSync(Queue.unbounded<Span>())

// Two routes: one that Prometheus reads, and one that receives spans.
const Routes = Layer.mergeAll(
  PrometheusMetrics.layerHttp({ path: "/metrics" }),
  HttpRouter.use((router) =>
    router.add(
      "POST",
      "/v1/traces",
      Effect.gen(function*() {
        const { resourceSpans } = yield* HttpServerRequest.schemaBodyJson(Traces)
        yield* Queue.offerAll(
          spans,
          resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans))
        )
        return HttpServerResponse.jsonUnsafe({})
      })
    )
  ),
  HttpRouter.use((router) => router.add("POST", "/v1/:signal", HttpServerResponse.jsonUnsafe({})))
)
const Server = HttpRouter.serve(Routes, { disableLogger: true, disableListenLog: true }).pipe(
  Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)

const address = Effect.map(
  HttpServer.HttpServer,
  ({ address }) => `http://127.0.0.1:${address._tag === "InetAddressV4" ? address.port : 0}`
)

// Traces, metrics and log lines go to the collector: Effect's own exporter.
const Export = Layer.unwrap(
  Effect.map(
    address,
    (baseUrl) =>
      Otlp.layerJson({ baseUrl, resource: { serviceName: "shop" }, tracerExportInterval: "100 millis" }).pipe(
        Layer.provide(FetchHttpClient.layer)
      )
  )
)

// Rotif adds two middlewares. Spans travel in the headers of a message, from process to process.
const Measured = Middleware.layer(Middleware.tracing(), Middleware.metrics())

const program = Effect.gen(function*() {
  const charged = yield* Deferred.make<void>()
  const subscription = yield* Subscription.make(OrderPlaced, {
    group: "billing",
    handler: () => Effect.void.pipe(Effect.withSpan("charge"), Effect.andThen(Deferred.succeed(charged, undefined)))
  })
  yield* Publisher.publish(OrderPlaced, { id: "o-1" }).pipe(Effect.withSpan("checkout"))
  yield* Deferred.await(charged)
  yield* subscription.drain

  const all = yield* Queue.takeN(spans, 4)
  const named = (name: string) => all.find((span) => span.name === name)!
  for (const name of ["checkout", "publish orders.placed", "process orders.placed", "charge"]) {
    yield* Console.log(`span: ${named(name).name}`)
  }
  const [link] = named("process orders.placed").links
  yield* Console.log(
    `the span of handling ${
      link?.spanId === named("publish orders.placed").spanId ? "links" : "does not link"
    } to the one of the publish`
  )

  const url = yield* address
  const page = yield* Effect.promise(async () => (await fetch(`${url}/metrics`)).text())
  for (const name of ["messaging_client_sent_messages", "messaging_process_duration_count"]) {
    const line = page.split("\n").find((line) => line.startsWith(`${name}{`)) ?? ""
    yield* Console.log(`metric: ${name} ${line.split(" ").at(-1)}`)
  }
})

program.pipe(
  Effect.scoped,
  Effect.provide(backend().pipe(Layer.provide(Measured), Layer.provideMerge(Export), Layer.provideMerge(Server))),
  NodeRuntime.runMain
)
