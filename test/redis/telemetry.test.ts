/** Telemetry as others receive it: over OTLP from several processes, and as a Prometheus page. */
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Layer, Metric, Queue, References, Schema, Tracer } from "effect"
import { FetchHttpClient, HttpRouter, HttpServer } from "effect/http"
import { Otlp, PrometheusMetrics } from "effect/observability"
import { execFile } from "node:child_process"
import { createServer } from "node:http"
import { join } from "node:path"
import { Channel, Middleware, Publisher, Rotif, Subscription, Telemetry } from "rotif"
import { inject } from "vitest"
import * as OtlpCollector from "../fixtures/OtlpCollector.ts"
import { freshPrefix } from "../contract/kit.ts"

const Order = Channel.make("orders.placed", { payload: Schema.String })

class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}

/** Publishes one message; its first attempt fails, its second succeeds. */
const oneOrder = Effect.gen(function*() {
  const attempts = yield* Queue.unbounded<number>()
  const subscription = yield* Subscription.make(Order, {
    group: "billing",
    retryDelay: 0,
    handler: ({ attempt }) =>
      Effect.andThen(
        Queue.offer(attempts, attempt),
        attempt === 1 ? Effect.fail(new Declined({ message: "card" })) : Effect.log("charged")
      )
  })
  yield* Publisher.publish(Order, "o-1")
  yield* Queue.takeN(attempts, 2)
  yield* subscription.drain
}).pipe(Effect.scoped)

/** A registry of its own, for what is counted and for who reads it. */
const registry = Layer.sync(Metric.MetricRegistry, () => new Map())

describe("Telemetry.toHeaders and fromHeaders", () => {
  const traceId = "0af7651916cd43dd8448eb211c80319c"
  const spanId = "b7ad6b7169203331"

  it("carry a span as W3C says, with its sampling and the tracestate", () => {
    const span = Tracer.externalSpan({ traceId, spanId, sampled: false })
    assert.deepStrictEqual(Telemetry.toHeaders(span, "a=1"), {
      traceparent: `00-${traceId}-${spanId}-00`,
      tracestate: "a=1"
    })
    assert.deepStrictEqual(Telemetry.toHeaders(Tracer.externalSpan({ traceId: "1f", spanId })), {
      traceparent: `00-${"1f".padStart(32, "0")}-${spanId}-01`
    })
    for (const sampled of [true, false]) {
      assert.deepInclude(Telemetry.fromHeaders(Telemetry.toHeaders({ ...span, sampled })), { traceId, spanId, sampled })
    }
  })

  it("read a later version, and refuse what is not valid", () => {
    const read = (traceparent: string) => Telemetry.fromHeaders({ traceparent })?.spanId
    assert.strictEqual(read(`01-${traceId}-${spanId}-03-more`), spanId)
    assert.strictEqual(Telemetry.fromHeaders({ traceparent: `00-${traceId}-${spanId}-03` })?.sampled, true)
    const invalid = [
      "",
      "00",
      `00-${traceId}-${spanId}`,
      `00-${traceId}-${spanId}-01-more`,
      `01-${traceId}-${spanId}-01more`,
      `ff-${traceId}-${spanId}-01`,
      `00-${"0".repeat(32)}-${spanId}-01`,
      `00-${traceId}-${"0".repeat(16)}-01`,
      `00-${traceId.toUpperCase()}-${spanId}-01`,
      `00-${traceId}-${spanId.slice(1)}g-01`
    ]
    assert.deepStrictEqual(invalid.map(read), invalid.map(() => undefined))
    assert.isUndefined(Telemetry.fromHeaders({}))
  })
})

describe("OTLP", () => {
  it.live("a collector receives spans, metrics and log lines of a program", () =>
    Effect.gen(function*() {
      const collector = yield* OtlpCollector.make
      const otlp = Otlp.layerJson({
        baseUrl: collector.url,
        resource: { serviceName: "shop" },
        loggerExportInterval: "50 millis",
        metricsExportInterval: "50 millis",
        tracerExportInterval: "50 millis",
        loggerMergeWithExisting: false
      }).pipe(Layer.provide(FetchHttpClient.layer))
      const rotif = Rotif.layerMemory.pipe(
        Layer.provide(Middleware.layer(Middleware.tracing(), Middleware.metrics(), Middleware.logging()))
      )
      yield* oneOrder.pipe(
        Effect.andThen(
          collector.until(() =>
            collector.spans.length >= 3 && collector.metrics.size >= 6 &&
            collector.lines.some(({ body }) => body === "charged")
          )
        ),
        Effect.provide(rotif.pipe(Layer.provideMerge(otlp), Layer.provideMerge(registry)))
      )
      const [publish, first, second] = ["publish orders.placed", "process orders.placed"].flatMap((name) =>
        collector.spans.filter((span) => span.name === name)
      )
      assert(publish !== undefined && first !== undefined && second !== undefined)
      // Producer and consumer, as OTLP numbers them.
      assert.deepStrictEqual([publish.kind, first.kind], [4, 5])
      assert.deepInclude(first.attributes, {
        "messaging.system": "redis",
        "messaging.destination.name": "orders.placed",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "billing",
        "error.type": "Declined",
        "rotif.attempt": 1
      })
      assert.deepInclude(second.attributes, { "rotif.attempt": 2, "rotif.delivery_count": 2 })
      for (const process of [first, second]) {
        assert.deepStrictEqual(process.links.map(({ spanId, traceId }) => [traceId, spanId]), [
          [publish.traceId, publish.spanId]
        ])
      }
      // The rest is of `Stats.layerMetrics`, and of handlers that run for too long.
      const others = Object.values(Telemetry.MetricName).filter((name) =>
        name.startsWith("rotif.group.") || name === Telemetry.MetricName.SlowHandlers
      )
      assert.sameMembers([...collector.metrics, ...others], Object.values(Telemetry.MetricName))
      const line = collector.lines.find(({ body }) => body === "charged")
      assert.deepInclude(line?.attributes, {
        "messaging.destination.name": "orders.placed",
        "messaging.consumer.group.name": "billing",
        "rotif.attempt": 2
      })
    }).pipe(Effect.scoped))

  it.live("a trace goes from the process that publishes to the one that handles", () =>
    Effect.gen(function*() {
      const collector = yield* OtlpCollector.make
      const prefix = freshPrefix()
      const run = (side: string) =>
        Effect.callback<void>((resume) => {
          const child = execFile(
            process.execPath,
            ["--conditions=rotif-source", join(import.meta.dirname, "../fixtures/traced.ts"), side],
            {
              env: {
                ...process.env,
                OTLP_URL: collector.url,
                PREFIX: prefix,
                REDIS_URL: `redis://127.0.0.1:${inject("redisPort")}`
              },
              timeout: 30_000
            },
            (error, stdout, stderr) =>
              resume(error === null ? Effect.void : Effect.die(new Error(`${error.message}\n${stdout}${stderr}`)))
          )
          return Effect.sync(() => void child.kill("SIGKILL"))
        })
      yield* run("publish")
      yield* run("process")
      yield* collector.until(() => collector.spans.length >= 4)
      const span = (service: string, name: string) => {
        const found = collector.spans.filter((span) => span.service === service && span.name === name)
        assert.lengthOf(found, 1, `${service}: ${name}`)
        return found[0]!
      }
      const checkout = span("publish", "checkout")
      const publish = span("publish", "publish orders.placed")
      const process_ = span("process", "process orders.placed")
      const charge = span("process", "charge")
      assert.deepStrictEqual([publish.traceId, publish.parentSpanId], [checkout.traceId, checkout.spanId])
      assert.deepStrictEqual([charge.traceId, charge.parentSpanId], [process_.traceId, process_.spanId])
      assert.deepStrictEqual(process_.links.map(({ spanId, traceId }) => [traceId, spanId]), [
        [publish.traceId, publish.spanId]
      ])
      assert.notStrictEqual(process_.traceId, publish.traceId)
      assert.isUndefined(process_.parentSpanId)
      assert.strictEqual(process_.attributes["messaging.message.id"], publish.attributes["messaging.message.id"])
    }).pipe(Effect.scoped), 60_000)
})

describe("Prometheus", () => {
  const server = HttpRouter.serve(PrometheusMetrics.layerHttp(), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
  )

  it.live("a page has the counts and times, as a scraper reads them", () =>
    Effect.gen(function*() {
      yield* oneOrder
      const { address } = yield* HttpServer.HttpServer
      assert(address._tag === "InetAddressV4")
      const response = yield* Effect.promise(() => fetch(`http://127.0.0.1:${address.port}/metrics`))
      const page = yield* Effect.promise(() => response.text())
      assert.strictEqual(response.status, 200)
      assert.include(response.headers.get("content-type"), "text/plain; version=0.0.4")
      const sample = (name: string, ...labels: ReadonlyArray<string>) =>
        page.split("\n").filter((line) => line.startsWith(`${name}{`) && labels.every((label) => line.includes(label)))
          .map((line) => Number(line.split(" ").at(-1)))
      const order = `messaging_destination_name="orders.placed"`
      const billing = `messaging_consumer_group_name="billing"`
      assert.include(page, "# TYPE messaging_client_sent_messages counter")
      assert.include(page, "# TYPE messaging_process_duration histogram")
      assert.deepStrictEqual(sample("messaging_client_sent_messages", order, `messaging_system="redis"`), [1])
      assert.deepStrictEqual(sample("messaging_client_consumed_messages", order, billing), [1, 1])
      assert.deepStrictEqual(sample("messaging_client_consumed_messages", billing, `error_type="Declined"`), [1])
      assert.deepStrictEqual(sample("messaging_process_duration_count", billing, `error_type="Declined"`), [1])
      assert.deepStrictEqual(sample("rotif_message_age_count", billing), [2])
      assert.deepStrictEqual(sample("rotif_process_active", billing), [0])
    }).pipe(
      Effect.provide(
        Layer.mergeAll(server, Rotif.layerMemory.pipe(Layer.provide(Middleware.layer(Middleware.metrics())))).pipe(
          Layer.provideMerge(registry)
        )
      ),
      Effect.provideService(References.MinimumLogLevel, "Error"),
      Effect.scoped
    ))
})
