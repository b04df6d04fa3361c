/** The middleware that comes with Rotif, on every backend. */
import { assert, describe } from "@effect/vitest"
import {
  Clock,
  Context,
  Data,
  Deferred,
  Duration,
  Effect,
  Exit,
  Layer,
  Logger,
  Metric,
  Option,
  Queue,
  Ref,
  References,
  Schedule,
  Schema,
  Scope,
  Tracer
} from "effect"
import { CircuitBreaker, RateLimiter } from "effect/persistence"
import {
  Broadcast,
  Channel,
  DeadLetters,
  Middleware,
  Publisher,
  Retry,
  type Rotif,
  Subscription,
  Telemetry
} from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"
import { withProgram } from "./middleware.ts"

const Text = Channel.make("texts", { payload: Schema.String })

class Refused extends Data.TaggedError("Refused")<{ readonly why: string }> {}
class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}

const limiter = RateLimiter.layer.pipe(Layer.provide(RateLimiter.layerStoreMemory))

const breaker = (openDuration: Duration.Input) =>
  CircuitBreaker.layer({ tripPolicy: CircuitBreaker.consecutive(2), openDuration }).pipe(
    Layer.provide(CircuitBreaker.layerStoreMemory())
  )

/** Keeps the lines of the log with their annotations. */
const logInto = (lines: Array<Record<string, unknown>>) =>
  Layer.mergeAll(
    Logger.layer([Logger.make(({ fiber, logLevel, message }) => {
      lines.push({ level: logLevel, message: [message].flat()[0], ...fiber.getRef(References.CurrentLogAnnotations) })
    })]),
    Layer.succeed(References.MinimumLogLevel, "Debug")
  )

const traceInto = (spans: Array<Tracer.NativeSpan>) =>
  Layer.succeed(
    Tracer.Tracer,
    Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
  )

/** Repeats a request, with a pause, until its answer is the expected one. */
const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, until: (answer: A) => boolean) =>
  Effect.repeat(effect, { until, schedule: Schedule.spaced("5 millis") })

const now = Clock.currentTimeMillis

export const shippedMiddlewareSuite = (backend: Backend): void => {
  const test = promises(backend)
  const testProgram = withProgram(backend)
  const { soon } = backend

  describe("Middleware.hooks", () => {
    test(
      "runs around a publish, before and after, whether they return an effect or nothing",
      Effect.gen(function*() {
        const log: Array<string> = []
        const Hooked = Middleware.forChannel(
          Text,
          Middleware.hooks({
            beforePublish: (request) => {
              log.push(`before ${String(request.payload)}`)
            },
            afterPublish: (receipt, request) =>
              Effect.sync(() => log.push(`after ${receipt._tag} ${String(request.payload)}`)),
            onError: () => {
              log.push("error")
            }
          })
        )
        yield* Publisher.publish(Hooked, "x")
        assert.deepStrictEqual(log, ["before x", "after Published x"])
      })
    )

    test(
      "messages that a hook of one Rotif publishes through another pass the hooks of that one, and through its own none",
      Effect.gen(function*() {
        const seen: Array<string> = []
        const [first, second] = yield* Effect.all(
          [0, 1].map(() =>
            Effect.map(Layer.build(backend.layer()), (context) => Context.get(context, Publisher.Publisher))
          )
        )
        const Inner = Middleware.forChannel(
          Channel.make("inner", { payload: Schema.String }),
          Middleware.hooks({
            beforePublish: (request) => {
              seen.push(`inner ${String(request.payload)}`)
            }
          })
        )
        const Outer = Middleware.forChannel(
          Text,
          Middleware.hooks({
            afterPublish: (_, request) => {
              seen.push(`outer ${String(request.payload)}`)
              return second!.publish(Inner, "audit")
            }
          })
        )
        yield* first!.publish(Outer, "x")
        assert.deepStrictEqual(seen, ["outer x", "inner audit"])
        // With the same channel it would never end.
        const Same = Middleware.forChannel(
          Text,
          Middleware.hooks({
            beforePublish: () => {
              seen.push("same")
              return Effect.orDie(first!.publish(Inner, "same"))
            }
          })
        )
        yield* first!.publish(Same, "x")
        assert.deepStrictEqual(seen, ["outer x", "inner audit", "same"])
      })
    )

    test(
      "a subscription made by a hook is inside of no hook: publishes of its handler pass the hooks",
      Effect.gen(function*() {
        const Other = Channel.make("others", { payload: Schema.String })
        const scope = yield* Effect.scope
        const context = yield* Effect.context<Rotif.Services>()
        const seen: Array<unknown> = []
        let publish: (text: string) => Effect.Effect<unknown, unknown, Publisher.Publisher> = () => Effect.void
        const subscribe = Effect.all([
          Subscription.make(Other, {
            maxRetries: 0,
            handler: () => Effect.andThen(publish("of a handler"), Effect.fail("now a dead letter"))
          }),
          DeadLetters.subscribe({ handler: () => publish("of a dead letter's handler") }),
          Broadcast.listen(Other, { handler: () => publish("of a listener's handler") })
        ]).pipe(Scope.provide(scope), Effect.provide(context), Effect.orDie)
        const Hooked = Middleware.forChannel(
          Text,
          Middleware.hooks({
            beforePublish: ({ payload }) => Effect.when(subscribe, Effect.sync(() => seen.push(payload) === 1))
          })
        )
        publish = (text) => Publisher.publish(Hooked, text)
        yield* publish("first")
        yield* Publisher.publish(Other, "x")
        yield* Broadcast.publish(Other, "x")
        yield* until(backend, Effect.sync(() => seen.length === 4))
        assert.sameMembers(seen, ["first", "of a handler", "of a dead letter's handler", "of a listener's handler"])
      })
    )

    test(
      "refuses the publish with the error of beforePublish, and tells onError",
      Effect.gen(function*() {
        const failures: Array<string> = []
        const Hooked = Middleware.forChannel(
          Text,
          Middleware.hooks({
            beforePublish: ({ payload }) => payload === "bad" ? Effect.fail(new Refused({ why: "hook" })) : undefined,
            afterPublish: () => Effect.sync(() => failures.push("never after a failure")),
            onError: (failure) => {
              failures.push(failure.operation)
            }
          })
        )
        const { seen } = yield* listen(Text)
        assert.strictEqual((yield* Effect.flip(Publisher.publish(Hooked, "bad")))._tag, "Refused")
        assert.deepStrictEqual(failures, ["publish"])
        yield* Publisher.publish(Text, "last")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "last")
      })
    )

    test(
      "counts a failing beforeProcess as a failure of the handler, which does not run",
      Effect.gen(function*() {
        const log: Array<string> = []
        const { seen, subscription } = yield* listen(Text, {
          retryDelay: 0,
          middleware: [Middleware.hooks({
            beforeProcess: ({ attempt }) => attempt === 1 ? Effect.fail(new Refused({ why: "early" })) : undefined,
            afterProcess: ({ attempt }) => {
              log.push(`after ${attempt}`)
            },
            onError: (failure) => {
              log.push(`error in ${failure.operation}`)
            }
          })]
        })
        yield* Publisher.publish(Text, "x")
        assert.strictEqual((yield* soon(Queue.take(seen))).attempt, 2)
        yield* soon(subscription.drain)
        assert.deepStrictEqual(log, ["error in process", "after 2"])
        const { failed, processed, retried } = yield* subscription.stats
        assert.deepStrictEqual({ failed, processed, retried }, { failed: 1, processed: 1, retried: 1 })
      })
    )

    test(
      "reports a failing after hook or onError and changes nothing else",
      Effect.gen(function*() {
        const Hooked = Middleware.forChannel(
          Text,
          Middleware.hooks({ afterPublish: () => Effect.fail("after"), onError: () => Effect.die("never") })
        )
        const { seen, subscription } = yield* listen(Text, {
          retryDelay: 0,
          middleware: [Middleware.hooks({
            afterProcess: () => Effect.die("after"),
            onError: () => {
              throw new Error("thrown")
            }
          })],
          handler: ({ attempt }) => attempt === 1 ? Effect.fail(new Declined({ message: "" })) : Effect.void
        })
        const receipt = yield* Publisher.publish(Hooked, "x")
        assert.strictEqual(receipt._tag, "Published")
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        const { failed, processed } = yield* subscription.stats
        assert.deepStrictEqual({ failed, processed }, { failed: 1, processed: 1 })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })

  describe("Middleware.validation", () => {
    test(
      "refuses what does not satisfy the predicate, on its channel only",
      Effect.gen(function*() {
        const Other = Channel.make("others", { payload: Schema.String })
        const short = Middleware.validation(Text, (text) => text.length < 5 || "it is too long")
        const Checked = Middleware.forChannel(Text, short)
        const error = yield* Effect.flip(Publisher.publish(Checked, "too long"))
        assert(error._tag === "ValidationError")
        assert.strictEqual(error.message, `publish on "texts": it is too long`)
        yield* Publisher.publish(Checked, "ok")
        const { seen, subscription } = yield* listen(Channel.union([Text, Other]), {
          middleware: [short],
          retry: Retry.make({ ValidationError: Retry.term })
        })
        yield* Publisher.publish(Text, "too long")
        yield* Publisher.publish(Other, "long enough")
        const payloads = (yield* soon(Queue.takeN(seen, 2))).map(({ payload }) => payload)
        yield* soon(eventually(subscription.stats, ({ dead }) => dead === 1))
        assert.deepStrictEqual(payloads.toSorted(), ["long enough", "ok"])
        const [letter] = yield* letters
        assert.deepInclude(letter?.failure, { reason: "term", errorTag: "ValidationError" })
      })
    )
  })

  describe("Middleware.timeout", () => {
    test(
      "interrupts a handler that takes longer, and counts it as a failure",
      Effect.gen(function*() {
        const interrupted = yield* Ref.make(0)
        const { seen, subscription } = yield* listen(Text, {
          middleware: [Middleware.timeout("50 millis")],
          retry: Retry.make({ TimeoutError: Retry.term }),
          handler: ({ payload }) =>
            payload === "slow"
              ? Effect.onInterrupt(Effect.never, () => Ref.update(interrupted, (n) => n + 1))
              : Effect.void
        })
        yield* Publisher.publishAll(Text, ["slow", "quick"])
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        assert.strictEqual(yield* Ref.get(interrupted), 1)
        assert.strictEqual((yield* subscription.stats).failed, 1)
      })
    )
  })

  describe("Middleware.rateLimit", () => {
    test(
      "lets messages wait until there is room, and loses none",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          concurrency: 4,
          middleware: [Middleware.rateLimit({ limit: 1, window: "100 millis" })]
        })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        const start = yield* now
        yield* soon(Queue.takeN(seen, 3))
        // The first goes at once, the others each one window later than the one before.
        assert.isAtLeast((yield* now) - start, 150)
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      }).pipe(Effect.provide(limiter))
    )

    test(
      "refuses a publish too many, each channel by itself",
      Effect.gen(function*() {
        const limit = Middleware.rateLimit({
          limit: 2,
          window: "1 hour",
          algorithm: "fixed-window",
          onExceeded: "fail"
        })
        const Limited = Middleware.forChannel(Text, limit)
        const Other = Middleware.forChannel(Channel.make("others", { payload: Schema.String }), limit)
        yield* Publisher.publishAll(Limited, ["a", "b"])
        const error = yield* Effect.flip(Publisher.publish(Limited, "c"))
        assert(error._tag === "RateLimiterError")
        assert.strictEqual(error.reason._tag, "RateLimitExceeded")
        yield* Publisher.publish(Other, "a")
      }).pipe(Effect.provide(limiter))
    )

    test(
      "counts by the key that is given",
      Effect.gen(function*() {
        const keys: Array<unknown> = []
        const limit = Middleware.rateLimit({
          limit: 1,
          window: "1 hour",
          onExceeded: "fail",
          key: (limited) => {
            keys.push(limited)
            return "one for all"
          }
        })
        const { subscription } = yield* listen(Text, {
          group: "g",
          middleware: [limit],
          retry: Retry.make({ RateLimiterError: Retry.term })
        })
        yield* Publisher.publish(Middleware.forChannel(Text, limit), "a")
        yield* soon(eventually(subscription.stats, ({ dead }) => dead === 1))
        assert.deepStrictEqual(keys, [
          { operation: "publish", channel: "texts" },
          { operation: "process", channel: "texts", group: "g" }
        ])
      }).pipe(Effect.provide(limiter))
    )
  })

  describe("Middleware.circuitBreaker", () => {
    test(
      "lets messages wait while the circuit is open, and counts no attempt",
      Effect.gen(function*() {
        const isDown = yield* Ref.make(true)
        const failed = yield* Queue.unbounded<string>()
        const { seen, subscription } = yield* listen(Text, {
          retryDelay: 0,
          // Two of them are the ones that fail, not one of them twice.
          prefetch: 1,
          middleware: [Middleware.circuitBreaker({ probeInterval: "20 millis" })],
          handler: ({ payload }) =>
            Effect.gen(function*() {
              if (!(yield* Ref.get(isDown))) return
              yield* Queue.offer(failed, payload)
              return yield* new Declined({ message: "down" })
            })
        })
        yield* Publisher.publishAll(Text, ["a", "b", "c", "d"])
        // Two failures open it; then it refuses all calls until it lets one through.
        yield* soon(Queue.takeN(failed, 2))
        const start = yield* now
        yield* Ref.set(isDown, false)
        const messages = yield* soon(Queue.takeN(seen, 6))
        assert.isAtLeast((yield* now) - start, 100)
        yield* soon(subscription.drain)
        assert.strictEqual(yield* Queue.size(failed), 0)
        assert.strictEqual(messages.reduce((sum, { attempt }) => sum + attempt - 1, 0), 2)
        assert.strictEqual((yield* subscription.stats).failed, 2)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      }).pipe(Effect.provide(breaker("200 millis")))
    )

    test(
      "refuses publishes while the circuit is open",
      Effect.gen(function*() {
        const down = Middleware.publish(() => () => Effect.fail(new Declined({ message: "down" })))
        const Guarded = Middleware.forChannel(Text, Middleware.circuitBreaker(), down)
        const tags = yield* Effect.forEach(
          [1, 2, 3],
          (n) => Effect.map(Effect.flip(Publisher.publish(Guarded, String(n))), (error) => error._tag)
        )
        assert.deepStrictEqual(tags, ["Declined", "Declined", "CircuitBreakerError"])
      }).pipe(Effect.provide(breaker("1 hour")))
    )

    test(
      "fails messages where that is wanted, and does not count what it is told to ignore",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, {
          concurrency: 1,
          middleware: [Middleware.circuitBreaker({
            whenOpen: "fail",
            classify: (exit) => Exit.isSuccess(exit) ? CircuitBreaker.ignored : CircuitBreaker.failure()
          })],
          retry: Retry.make({ Declined: Retry.term, CircuitBreakerError: Retry.term }),
          handler: ({ payload }) => payload === "ok" ? Effect.void : Effect.fail(new Declined({ message: "" }))
        })
        yield* Publisher.publishAll(Text, ["a", "ok", "b", "c"])
        yield* soon(eventually(subscription.stats, ({ dead }) => dead === 3))
        const tags = (yield* letters).map(({ failure }) => failure.errorTag)
        assert.sameMembers(tags, ["CircuitBreakerError", "Declined", "Declined"])
      }).pipe(Effect.provide(breaker("1 hour")))
    )
  })

  describe("Middleware.logging", () => {
    const lines: Array<Record<string, unknown>> = []
    testProgram(
      "annotates every line with channel, group, message id and attempt",
      Middleware.layer(Middleware.logging({ failure: "Error" })),
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          group: "billing",
          retryDelay: 0,
          handler: ({ attempt }) =>
            Effect.andThen(
              Effect.log("in the handler"),
              attempt === 1 ? Effect.fail(new Declined({ message: "" })) : Effect.void
            )
        })
        const { id } = yield* Publisher.publish(Text, "secret")
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        const about = { "messaging.destination.name": "texts", "messaging.message.id": id }
        const handled = (attempt: number) => ({
          ...about,
          "messaging.consumer.group.name": "billing",
          "rotif.attempt": attempt
        })
        assert.deepStrictEqual(
          lines.filter((line) => "messaging.message.id" in line).toSorted((a, b) =>
            Number(a["rotif.attempt"] ?? 0) - Number(b["rotif.attempt"] ?? 0)
          ),
          [
            { level: "Debug", message: "publish: Published", ...about },
            { level: "Info", message: "in the handler", ...handled(1) },
            { level: "Error", message: "process failed", ...handled(1) },
            { level: "Info", message: "in the handler", ...handled(2) },
            { level: "Debug", message: "process: done", ...handled(2) }
          ]
        )
        assert.notInclude(JSON.stringify(lines), "secret")
      }).pipe(Effect.provide(logInto(lines)))
    )
  })

  describe("Middleware.metrics", () => {
    testProgram(
      "counts and times publishes and attempts, by channel, group and error",
      Middleware.layer(Middleware.metrics()),
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          group: "billing",
          retryDelay: 0,
          handler: ({ attempt }) => attempt === 1 ? Effect.fail(new Declined({ message: "" })) : Effect.void
        })
        yield* Publisher.publish(Text, "x")
        // @ts-expect-error a payload that the schema does not allow
        yield* Effect.flip(Publisher.publish(Text, 1))
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        const snapshot = yield* Metric.snapshot
        const found = (name: string) =>
          snapshot.filter(({ id }) => id === name).map(({ attributes, state }) => [
            attributes?.["error.type"],
            attributes?.["messaging.consumer.group.name"],
            "count" in state ? Number(state.count) : "value" in state ? Number(state.value) : undefined
          ])
        const { Active, Age, Consumed, OperationDuration, ProcessDuration, Sent } = Telemetry.MetricName
        assert.sameDeepMembers(found(Sent), [[undefined, undefined, 1], ["InvalidPayload", undefined, 1]])
        assert.sameDeepMembers(found(OperationDuration), [[undefined, undefined, 1], ["InvalidPayload", undefined, 1]])
        assert.sameDeepMembers(found(Consumed), [[undefined, "billing", 1], ["Declined", "billing", 1]])
        assert.sameDeepMembers(found(ProcessDuration), [[undefined, "billing", 1], ["Declined", "billing", 1]])
        assert.sameDeepMembers(found(Age), [[undefined, "billing", 2]])
        assert.sameDeepMembers(found(Active), [[undefined, "billing", 0]])
        const attributes = snapshot.find(({ id }) => id === Sent)?.attributes
        assert.deepInclude(attributes, {
          "messaging.system": "redis",
          "messaging.destination.name": "texts",
          "messaging.operation.name": "publish",
          "messaging.operation.type": "send"
        })
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
    )
  })

  describe("Middleware.metrics of any number of channels", () => {
    testProgram(
      "has a metric for each of the first 1,000, and one for all others",
      Middleware.layer(Middleware.metrics()),
      Effect.gen(function*() {
        for (let i = 0; i < 1_005; i++) {
          yield* Publisher.publish(Channel.make(`c${i}`, { payload: Schema.String }), "x")
        }
        const sent = (yield* Metric.snapshot).filter(({ id }) => id === Telemetry.MetricName.Sent)
        assert.strictEqual(sent.length, 1_001)
        const others = sent.find(({ attributes }) => attributes?.[Telemetry.Attribute.Destination] === "(other)")
        assert.deepInclude(others?.state, { count: 5 })
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
    )
  })

  describe("Middleware.tracing", () => {
    const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })

    const traced = Effect.fnUntraced(function*(spans: Array<Tracer.NativeSpan>, headers?: Record<string, string>) {
      const inside = yield* Deferred.make<{ readonly span: Tracer.AnySpan; readonly state: string | undefined }>()
      const { seen, subscription } = yield* listen(Notice, {
        group: "mail",
        handler: () =>
          Effect.gen(function*() {
            const span = yield* Effect.currentParentSpan
            yield* Deferred.succeed(inside, { span, state: yield* Telemetry.TraceState })
          })
      })
      const { id } = yield* Publisher.publish(Notice, "hi", { params: { userId: "42" }, headers })
      const message = yield* soon(Queue.take(seen))
      yield* soon(subscription.drain)
      const [publish, process] = spans
      assert(publish !== undefined && process !== undefined)
      assert.strictEqual(spans.length, 2)
      return { publish, process, message, id, inside: yield* Deferred.await(inside) }
    })

    const linked: Array<Tracer.NativeSpan> = []
    testProgram(
      "carries the trace in the headers, and links the span of handling to the one of the publish",
      Middleware.layer(Middleware.tracing()),
      Effect.gen(function*() {
        const { id, inside, message, process, publish } = yield* traced(linked)
        assert.deepStrictEqual([publish.name, publish.kind], ["publish users.:userId.notices", "producer"])
        assert.deepStrictEqual([process.name, process.kind], ["process users.:userId.notices", "consumer"])
        assert.strictEqual(message.headers["traceparent"], `00-${publish.traceId}-${publish.spanId}-01`)
        assert.deepStrictEqual(process.links.map(({ span }) => [span.traceId, span.spanId]), [
          [publish.traceId, publish.spanId]
        ])
        assert.isTrue(Option.isNone(process.parent))
        assert.notStrictEqual(process.traceId, publish.traceId)
        assert.strictEqual(inside.span, process)
        assert.deepStrictEqual(Object.fromEntries(publish.attributes), {
          "messaging.system": "redis",
          "messaging.destination.name": "users.:userId.notices",
          "messaging.destination.template": "users.:userId.notices",
          "messaging.operation.name": "publish",
          "messaging.operation.type": "send",
          "messaging.message.id": id,
          "rotif.receipt": "Published"
        })
        assert.deepStrictEqual(Object.fromEntries(process.attributes), {
          "messaging.system": "redis",
          "messaging.destination.name": "users.:userId.notices",
          "messaging.destination.template": "users.:userId.notices",
          "messaging.operation.name": "process",
          "messaging.operation.type": "process",
          "messaging.message.id": id,
          "messaging.consumer.group.name": "mail",
          "rotif.attempt": 1,
          "rotif.delivery_count": 1
        })
        assert.deepStrictEqual([publish.status._tag, process.status._tag], ["Ended", "Ended"])
      }).pipe(Effect.provide(traceInto(linked)))
    )

    const together: Array<Tracer.NativeSpan> = []
    testProgram(
      "makes one span for a batch of a subscription, with a link to the publish of each message",
      Middleware.layer(Middleware.tracing(), Middleware.metrics()),
      Effect.gen(function*() {
        const inside = yield* Deferred.make<Tracer.AnySpan>()
        const subscription = yield* Subscription.batch(Text, {
          group: "mail",
          size: 3,
          handler: () =>
            Effect.flatMap(Effect.orDie(Effect.currentParentSpan), (span) => Deferred.succeed(inside, span))
              .pipe(Effect.asVoid)
        })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        const span = yield* soon(Deferred.await(inside))
        yield* soon(subscription.drain)
        const published = together.filter(({ kind }) => kind === "producer")
        const [process, ...others] = together.filter(({ kind }) => kind === "consumer")
        assert(process !== undefined)
        assert.lengthOf(others, 0)
        assert.strictEqual(span, process)
        assert.strictEqual(process.name, `process ${Text.name}`)
        assert.deepStrictEqual(
          process.links.map(({ span }) => span.spanId),
          published.map(({ spanId }) => spanId)
        )
        assert.strictEqual(process.attributes.get("messaging.batch.message_count"), 3)
        assert.strictEqual(process.attributes.get("messaging.consumer.group.name"), "mail")
        assert.strictEqual(process.status._tag, "Ended")
      }).pipe(Effect.provide(traceInto(together)))
    )

    const batch: Array<Tracer.NativeSpan> = []
    testProgram(
      "makes a span for each message of a batch, also where one of them refuses the batch, and so do metrics",
      Middleware.layer(Middleware.metrics(), Middleware.tracing()),
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const receipts = yield* Publisher.publishAll(Text, ["a", "b"], { headers: { kept: "1" } })
        const messages = yield* soon(Queue.takeN(seen, 2))
        const published = batch.filter(({ kind }) => kind === "producer")
        assert.deepStrictEqual(published.map(({ attributes }) => attributes.get("messaging.message.id")), [
          receipts[0]!.id,
          receipts[1]!.id
        ])
        assert.sameDeepMembers(
          messages.map(({ headers }) => ({ ...headers })),
          published.map(({ spanId, traceId }) => ({ kept: "1", traceparent: `00-${traceId}-${spanId}-01` }))
        )
        assert.deepStrictEqual(
          published.map(({ attributes, status }) => [attributes.get("rotif.receipt"), status._tag]),
          [
            ["Published", "Ended"],
            ["Published", "Ended"]
          ]
        )

        // @ts-expect-error a payload that the schema does not allow
        const error = yield* Effect.flip(Publisher.publishAll(Text, ["c", 1, "d"]))
        assert.strictEqual(error._tag, "InvalidPayload")
        const refused = batch.filter(({ kind }) => kind === "producer").slice(2)
        assert.deepStrictEqual(
          refused.map(({ attributes, status }) => [
            status._tag === "Ended" && Exit.isFailure(status.exit) && Exit.hasInterrupts(status.exit),
            attributes.get("error.type")
          ]),
          [[true, undefined], [false, "InvalidPayload"]]
        )
        const sent = (yield* Metric.snapshot).filter(({ id }) => id === Telemetry.MetricName.Sent)
        assert.sameDeepMembers(
          sent.map(({ attributes, state }) => [attributes?.["error.type"], "count" in state && Number(state.count)]),
          [[undefined, 2], ["interrupted", 1], ["InvalidPayload", 1]]
        )
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()), Effect.provide(traceInto(batch)))
    )

    const child: Array<Tracer.NativeSpan> = []
    testProgram(
      "goes on with the trace in the handler when told so, with the tracestate",
      Middleware.layer(Middleware.tracing({ relation: "parent" })),
      Effect.gen(function*() {
        const { inside, message, process, publish } = yield* traced(child, {
          traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
          tracestate: "vendor=1",
          kept: "2"
        })
        assert.strictEqual(publish.traceId, "0af7651916cd43dd8448eb211c80319c")
        assert.strictEqual(Option.getOrUndefined(publish.parent)?.spanId, "b7ad6b7169203331")
        assert.strictEqual(process.traceId, publish.traceId)
        assert.strictEqual(Option.getOrUndefined(process.parent)?.spanId, publish.spanId)
        assert.deepStrictEqual(process.links, [])
        assert.deepInclude({ ...message.headers }, { tracestate: "vendor=1", kept: "2" })
        assert.strictEqual(inside.state, "vendor=1")
      }).pipe(Effect.provide(traceInto(child)))
    )

    testProgram(
      "does nothing where there is no tracer",
      Middleware.layer(Middleware.tracing()),
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Publisher.publish(Text, "x")
        assert.deepStrictEqual({ ...(yield* soon(Queue.take(seen))).headers }, {})
      })
    )

    const failing: Array<Tracer.NativeSpan> = []
    testProgram(
      "records the error of a span, and makes one for each attempt",
      Middleware.layer(Middleware.tracing()),
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          retryDelay: 0,
          handler: ({ attempt }) => attempt === 1 ? Effect.fail(new Declined({ message: "" })) : Effect.void
        })
        // @ts-expect-error a payload that the schema does not allow
        yield* Effect.flip(Publisher.publish(Text, 1))
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(
          failing.map(({ attributes, name }) => [name, attributes.get("error.type"), attributes.get("rotif.attempt")]),
          [
            ["publish texts", "InvalidPayload", undefined],
            ["publish texts", undefined, undefined],
            ["process texts", "Declined", 1],
            ["process texts", undefined, 2]
          ]
        )
      }).pipe(Effect.provide(traceInto(failing)))
    )
  })
}
