/** Middleware, on every backend: its order, what it may change, and how its errors end. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Data, Deferred, Effect, Layer, Queue, Schema, type Scope, Semaphore } from "effect"
import type { Rotif } from "rotif"
import { Channel, Message, Middleware, Publisher, Retry, Subscription } from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })

class Refused extends Data.TaggedError("Refused")<{ readonly why: string }> {}
class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}
class CurrentUser extends Context.Service<CurrentUser, { readonly name: string }>()("test/CurrentUser") {}
class Journal extends Context.Service<Journal, Array<string>>()("test/Journal") {}

/** Records the entry and the exit of each call, whatever its outcome. */
const tracer = (log: Array<string>, name: string) =>
  Middleware.both(
    Middleware.publish((next) => (request) => {
      log.push(`${name}>`)
      return Effect.onExit(next(request), () => Effect.sync(() => log.push(`<${name}`)))
    }),
    Middleware.process((next) => (message) => {
      log.push(`${name}>`)
      return Effect.onExit(next(message), () => Effect.sync(() => log.push(`<${name}`)))
    })
  )

/** Declares a test with middleware of the program. */
export const withProgram = (backend: Backend) =>
(
  name: string,
  middleware: Layer.Layer<never>,
  body: Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope>
) =>
  it[backend.clock](name, () =>
    body.pipe(
      Effect.scoped,
      Effect.provide(backend.layer({ drainTimeout: "5 seconds" }).pipe(Layer.provide(middleware)))
    ))

const refuseBad = (why: string) =>
  Middleware.publish((next) => (request) =>
    request.payload === "bad" ? Effect.fail(new Refused({ why })) : next(request)
  )

export const middlewareSuite = (backend: Backend): void => {
  const test = promises(backend)
  const testProgram = withProgram(backend)
  const { soon } = backend

  describe("Middleware: order", () => {
    const log: Array<string> = []
    testProgram(
      "runs the first one outermost; those of the program around those of the channel and the subscription",
      Middleware.layer(tracer(log, "a"), tracer(log, "b")).pipe(
        Layer.provide(Middleware.layer(tracer(log, "outer")))
      ),
      Effect.gen(function*() {
        const Traced = Middleware.forChannel(Text, tracer(log, "c"), tracer(log, "d"))
        yield* Publisher.publish(Traced, "x")
        assert.deepStrictEqual(log.splice(0), [
          "outer>",
          "a>",
          "b>",
          "c>",
          "d>",
          "<d",
          "<c",
          "<b",
          "<a",
          "<outer"
        ])
        const handled = yield* Deferred.make<void>()
        const subscription = yield* Subscription.make(Traced, {
          middleware: [tracer(log, "e"), tracer(log, "f")],
          handler: () => Effect.andThen(Effect.sync(() => log.push("handler")), Deferred.succeed(handled, undefined))
        })
        yield* soon(Deferred.await(handled))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(log, [
          "outer>",
          "a>",
          "b>",
          "e>",
          "f>",
          "handler",
          "<f",
          "<e",
          "<b",
          "<a",
          "<outer"
        ])
      })
    )

    test(
      "gives a channel that has middleware more around it",
      Effect.gen(function*() {
        const log: Array<string> = []
        const Twice = Middleware.forChannel(Middleware.forChannel(Text, tracer(log, "inner")), tracer(log, "outer"))
        yield* Publisher.publish(Twice, "x")
        yield* Publisher.publish(Text, "y")
        assert.deepStrictEqual(log, ["outer>", "inner>", "<inner", "<outer"])
      })
    )

    const services: Array<string> = []
    testProgram(
      "finds the services of its layer around a publish and a handler that do not have them",
      Middleware.layer(Middleware.both(
        Middleware.publish((next) => (request) =>
          Effect.andThen(Journal.useSync((journal) => journal.push("publish")), next(request))
        ),
        Middleware.process((next) => (message) =>
          Effect.andThen(Journal.useSync((journal) => journal.push("process")), next(message))
        )
      )).pipe(
        Layer.provide(Layer.succeed(Journal, services))
      ),
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        assert.deepStrictEqual(services, ["publish", "process"])
      })
    )
  })

  describe("Middleware.publish", () => {
    test(
      "changes payload, headers, params and id of the stored message",
      Effect.gen(function*() {
        const Changed = Middleware.forChannel(
          Notice,
          Middleware.publish((next) => (request) =>
            next(Middleware.withHeaders({
              ...request,
              payload: `${String(request.payload)}!`,
              options: { ...request.options, id: "chosen", params: { userId: "43" } }
            }, { region: "eu" }))
          )
        )
        const { seen } = yield* listen(Notice)
        const receipt = yield* Publisher.publish(Changed, "hi", { params: { userId: "42" }, headers: { kept: "1" } })
        const message = yield* soon(Queue.take(seen))
        assert.strictEqual(receipt.id, "chosen")
        assert.deepInclude({ id: message.id, payload: message.payload }, { id: "chosen", payload: "hi!" })
        assert.deepStrictEqual({ ...message.headers }, { kept: "1", region: "eu" })
        assert.deepStrictEqual({ ...message.params }, { userId: "43" })
      })
    )

    test(
      "answers in place of the publish",
      Effect.gen(function*() {
        const receipt: Publisher.Receipt = { _tag: "Duplicate", id: "known", channel: "texts", position: "0-1" }
        const Known = Middleware.forChannel(Text, Middleware.publish(() => () => Effect.succeed(receipt)))
        const { seen } = yield* listen(Text)
        assert.strictEqual(yield* Publisher.publish(Known, "never stored"), receipt)
        yield* Publisher.publish(Text, "last")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "last")
      })
    )

    test(
      "fails the publish with the error of the channel's middleware, and stores nothing",
      Effect.gen(function*() {
        const Guarded = Middleware.forChannel(Text, refuseBad("quota"))
        const error = yield* Effect.flip(Publisher.publish(Guarded, "bad"))
        assert(error._tag === "Refused")
        assert.strictEqual(error.why, "quota")
        const { seen } = yield* listen(Text)
        yield* Publisher.publish(Guarded, "good")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "good")
      })
    )

    testProgram(
      "fails the publish with PublishRefused for an error of the program's middleware, and with no other error changed",
      Middleware.layer(refuseBad("program")),
      Effect.gen(function*() {
        const refused = yield* Effect.flip(Publisher.publish(Text, "bad"))
        assert(refused._tag === "PublishRefused")
        assert.deepInclude(refused.error, { _tag: "Refused", why: "program" })
        const Own = Middleware.forChannel(
          Text,
          Middleware.publish(() => () => Effect.fail(new Refused({ why: "own" })))
        )
        const own = yield* Effect.flip(Publisher.publish(Own, "good"))
        assert(own._tag === "Refused")
        assert.strictEqual(own.why, "own")
        // @ts-expect-error a payload that the schema does not allow
        assert.strictEqual((yield* Effect.flip(Publisher.publish(Text, 1)))._tag, "InvalidPayload")
        assert.strictEqual(
          (yield* Effect.flip(Publisher.publish(Text, "good", { id: "" })))._tag,
          "InvalidPublishOptions"
        )
      })
    )

    test(
      "keeps the id when it calls the rest again",
      Effect.gen(function*() {
        const ids: Array<string> = []
        const Again = Middleware.forChannel(
          Text,
          Middleware.publish((next) => (request) => Effect.andThen(next(request), next(request))),
          Middleware.publish((next) => (request) => {
            ids.push(request.id)
            return next(request)
          })
        )
        const { seen } = yield* listen(Text)
        const { id } = yield* Publisher.publish(Again, "x")
        assert.deepStrictEqual(ids, [id, id])
        assert.strictEqual((yield* soon(Queue.take(seen))).id, id)
      })
    )
  })

  describe("Middleware.publish: publishAll", () => {
    test(
      "takes every message through the chain and keeps their order",
      Effect.gen(function*() {
        const Numbered = Middleware.forChannel(
          Text,
          Middleware.publish((next) => (request) => next({ ...request, payload: `${String(request.payload)}!` }))
        )
        const { seen } = yield* listen(Text)
        const texts = Array.from({ length: 50 }, (_, i) => `n${i}`)
        const receipts = yield* Publisher.publishAll(Numbered, texts, (_, i) => ({ headers: { n: String(i) } }))
        const messages = yield* soon(Queue.takeN(seen, 50))
        assert.deepStrictEqual(messages.map(({ payload }) => payload), texts.map((text) => `${text}!`))
        assert.deepStrictEqual(messages.map(({ id }) => id), receipts.map(({ id }) => id))
        assert.deepStrictEqual(messages.map(({ headers }) => headers["n"]), texts.map((_, i) => String(i)))
      })
    )

    test(
      "sends nothing when one is refused",
      Effect.gen(function*() {
        const Guarded = Middleware.forChannel(Text, refuseBad("quota"))
        const error = yield* Effect.flip(Publisher.publishAll(Guarded, ["a", "b", "bad", "c"]))
        assert.strictEqual(error._tag, "Refused")
        const { seen } = yield* listen(Text)
        yield* Publisher.publishAll(Guarded, ["last"])
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "last")
      })
    )

    test(
      "tells what became of each when the chain had to send some before another was refused",
      Effect.gen(function*() {
        const Slow = Middleware.forChannel(
          Text,
          Middleware.publish((next) => (request) => Effect.andThen(Effect.yieldNow, next(request))),
          refuseBad("quota")
        )
        const error = yield* Effect.flip(Publisher.publishAll(Slow, ["a", "b", "bad", "c"]))
        assert(error._tag === "PublishIncomplete")
        assert.deepStrictEqual(error.outcomes.map(({ _tag }) => _tag as string), [
          "Published",
          "Published",
          "Refused",
          "Published"
        ])
        const { seen } = yield* listen(Text)
        const messages = yield* soon(Queue.takeN(seen, 3))
        assert.deepStrictEqual(messages.map(({ payload }) => payload), ["a", "b", "c"])
      })
    )

    test(
      "does not wait for itself when the chain lets one message through at a time",
      Effect.gen(function*() {
        const gate = yield* Semaphore.make(1)
        const OneByOne = Middleware.forChannel(
          Text,
          Middleware.publish((next) => (request) => gate.withPermits(1)(next(request)))
        )
        const { seen } = yield* listen(Text)
        yield* soon(Publisher.publishAll(OneByOne, ["a", "b", "c"]))
        const messages = yield* soon(Queue.takeN(seen, 3))
        assert.deepStrictEqual(messages.map(({ payload }) => payload), ["a", "b", "c"])
      })
    )

    test(
      "publishes nothing for no payloads",
      Effect.gen(function*() {
        const log: Array<string> = []
        assert.deepStrictEqual(yield* Publisher.publishAll(Middleware.forChannel(Text, tracer(log, "a")), []), [])
        assert.deepStrictEqual(log, [])
      })
    )
  })

  describe("Middleware.process", () => {
    test(
      "acknowledges what it answers in place of the handler",
      Effect.gen(function*() {
        const handled: Array<string> = []
        const skipped = yield* Deferred.make<void>()
        const subscription = yield* Subscription.make(Text, {
          middleware: [
            Middleware.process((next) => (message) =>
              message.payload === "skip" ? Deferred.succeed(skipped, undefined) : next(message)
            )
          ],
          handler: (message) => Effect.sync(() => handled.push(message.payload))
        })
        yield* Publisher.publishAll(Text, ["a", "skip"])
        yield* soon(Deferred.await(skipped))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(handled, ["a"])
        assert.strictEqual((yield* subscription.stats).processed, 2)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "passes on a message with another payload and other headers, which settles the same delivery",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          ackMode: "manual",
          middleware: [
            Middleware.process((next) => (message) =>
              next(Message.replace(message, { payload: `${String(message.payload)}!`, headers: { by: "middleware" } }))
            )
          ],
          handler: (message) => message.ack
        })
        const { id } = yield* Publisher.publish(Text, "hi", { headers: { kept: "1" } })
        const message = yield* soon(Queue.take(seen))
        assert.deepStrictEqual([message.id, message.payload, message.channel], [id, "hi!", "texts"])
        assert.deepStrictEqual({ ...message.headers }, { by: "middleware" })
        yield* soon(message.ack)
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "provides services to the handler",
      Effect.gen(function*() {
        const name = yield* Deferred.make<string>()
        yield* Subscription.make(Text, {
          middleware: [
            Middleware.providing<CurrentUser>()((next) => (message) =>
              Effect.provideService(next(message), CurrentUser, { name: message.headers["user"] ?? "" })
            )
          ],
          handler: () => Effect.flatMap(CurrentUser, (user) => Deferred.succeed(name, user.name))
        })
        yield* Publisher.publish(Text, "x", { headers: { user: "ada" } })
        assert.strictEqual(yield* soon(Deferred.await(name)), "ada")
      })
    )

    test(
      "leaves its error to the retry policy of the subscription",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          middleware: [
            Middleware.process((next) => (message) =>
              message.payload === "bad" ? Effect.fail(new Refused({ why: "bad" })) : next(message)
            )
          ],
          retry: Retry.make({ Refused: Retry.term })
        })
        yield* Publisher.publishAll(Text, ["bad", "good"])
        yield* soon(Queue.take(seen))
        yield* soon(subscription.drain)
        const [letter] = yield* letters
        assert.deepInclude(letter?.failure, { reason: "term", errorTag: "Refused" })
      })
    )

    const asked: Array<string> = []
    testProgram(
      "leaves the errors of the handler to its policy, and those of the program's middleware to the default one",
      Middleware.layer(Middleware.process((next) => (message) =>
        message.payload === "refused" && message.attempt === 1
          ? Effect.fail(new Refused({ why: "program" }))
          : next(message)
      )),
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          retryDelay: 0,
          handler: (message) =>
            message.payload === "declined" && message.attempt === 1
              ? Effect.fail(new Declined({ message: "card" }))
              : Effect.void,
          retry: (_attempt, _message, error) => {
            asked.push(error._tag)
            return 0
          }
        })
        yield* Publisher.publishAll(Text, ["refused", "declined"])
        const payloads = (yield* soon(Queue.takeN(seen, 3))).map(({ attempt, payload }) => `${payload} ${attempt}`)
        yield* soon(subscription.drain)
        assert.deepStrictEqual(payloads.toSorted(), ["declined 1", "declined 2", "refused 2"])
        assert.deepStrictEqual(asked, ["Declined"])
        assert.deepStrictEqual(yield* letters, [])
      })
    )
  })
}
