/** Dead letters on a Redis whose answers get lost, and by several processes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Queue, Schema } from "effect"
import { createHash } from "node:crypto"
import type { DeadLetter } from "rotif"
import { Broker, Channel, DeadLetters, Publisher, Rotif, Subscription } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import { concludeLetters } from "../../src/redisBroker/scripts/deadLetters/conclude.ts"
import { offerLetters } from "../../src/redisBroker/scripts/deadLetters/offer.ts"
import { removeLetters } from "../../src/redisBroker/scripts/deadLetters/remove.ts"
import { requeueLetters } from "../../src/redisBroker/scripts/deadLetters/requeue.ts"
import type { Script } from "../../src/Redis.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const { dead } = Keys.make("rotif", 0)

const runs = (script: Script) => {
  const hash = createHash("sha1").update(script.lua).digest("hex")
  return (request: Buffer) => request.includes(hash)
}

/** A server behind a proxy, that knows the scripts, with one dead letter of group "g". */
const broken = Effect.fnUntraced(function*() {
  const server = yield* RedisServer.make()
  const proxy = yield* TcpProxy.make(server)
  for (const { lua } of [concludeLetters, offerLetters, removeLetters, requeueLetters]) {
    yield* server.command("script", "load", lua)
  }
  const services = yield* Layer.build(Rotif.layer({ url: proxy.url, commandTimeout: 3_000 }))
  const direct = yield* Layer.build(Rotif.layer({ url: server.url }))
  yield* Effect.gen(function*() {
    const subscription = yield* Subscription.make(Text, { group: "g", maxRetries: 0, handler: () => Effect.fail("no") })
    yield* Publisher.publish(Text, "x")
    while ((yield* DeadLetters.count()) === 0) yield* Effect.yieldNow
    yield* subscription.drain
  }).pipe(Effect.scoped, Effect.provide(direct))
  const { letters } = yield* DeadLetters.list().pipe(Effect.provide(direct))
  return { server, proxy, services, direct, letterId: letters[0]!.letterId }
})

const offers = Effect.fnUntraced(function*(
  options: Partial<DeadLetters.SubscribeOptions<DeadLetter.Offered, unknown, never>>
) {
  const seen = yield* Queue.unbounded<DeadLetter.Offered>()
  const { handler = () => Effect.void, ...rest } = options
  yield* DeadLetters.subscribe({
    ...rest,
    handler: (letter) => Effect.andThen(Queue.offer(seen, letter), handler(letter))
  })
  return seen
})

describe("DeadLetters: an answer that is lost", () => {
  it.live("requeue says that it is uncertain; the message is moved once, and a second call says so", () =>
    Effect.gen(function*() {
      const { direct, letterId, proxy, services } = yield* broken()
      yield* Effect.gen(function*() {
        const dropped = yield* proxy.dropReplyOnce(runs(requeueLetters))
        const error = yield* Effect.flip(DeadLetters.requeue(letterId))
        yield* dropped
        assert.deepInclude(error, { _tag: "BrokerError", reason: "Uncertain" })
        assert.isFalse(yield* DeadLetters.requeue(letterId))
      }).pipe(Effect.provide(services))
      yield* Effect.gen(function*() {
        const seen = yield* Queue.unbounded<string>()
        const { drain } = yield* Subscription.make(Text, {
          group: "g",
          handler: ({ payload }) => Queue.offer(seen, payload)
        })
        assert.strictEqual(yield* Queue.take(seen), "x")
        yield* drain
        assert.strictEqual(yield* Queue.size(seen), 0)
      }).pipe(Effect.scoped, Effect.provide(direct))
    }))

  it.live("remove says that it is uncertain; the letter is gone", () =>
    Effect.gen(function*() {
      const { letterId, proxy, server, services } = yield* broken()
      yield* proxy.dropReplyOnce(runs(removeLetters))
      const error = yield* Effect.flip(DeadLetters.remove(letterId)).pipe(Effect.provide(services))
      assert.deepInclude(error, { _tag: "BrokerError", reason: "Uncertain" })
      assert.strictEqual(yield* server.command("xlen", dead), 0)
      assert.isFalse(yield* DeadLetters.remove(letterId).pipe(Effect.provide(services)))
    }))

  it.live("ack is sent again, and the refusal of the second one shows that the first one succeeded", () =>
    Effect.gen(function*() {
      const { proxy, server, services } = yield* broken()
      const dropped = yield* proxy.dropReplyOnce(runs(concludeLetters))
      const acked = yield* Queue.unbounded<void>()
      yield* offers({ handler: (letter) => Effect.andThen(letter.ack, Queue.offer(acked, undefined)) }).pipe(
        Effect.provide(services)
      )
      yield* Queue.take(acked)
      yield* dropped
      assert.strictEqual(yield* server.command("xlen", dead), 0)
    }))

  it.live("a letter whose offer never arrived is offered again after the lease", () =>
    Effect.gen(function*() {
      const { proxy, services } = yield* broken()
      const dropped = yield* proxy.dropReplyOnce(runs(offerLetters))
      const seen = yield* offers({ lease: 300 }).pipe(Effect.provide(services))
      yield* dropped
      assert.strictEqual((yield* Queue.take(seen)).offerCount, 2)
    }))

  it.live("a letter that arrived while the connection was down is found when it is back", () =>
    Effect.gen(function*() {
      const { proxy, server, services } = yield* broken()
      const seen = yield* offers({ checkInterval: "1 hour" }).pipe(Effect.provide(services))
      yield* Queue.take(seen)
      yield* proxy.refuse
      yield* proxy.cut
      yield* server.command("xadd", dead, "*", "written", "meanwhile")
      yield* proxy.accept
      assert.strictEqual((yield* Queue.take(seen)).raw, JSON.stringify(["written", "meanwhile"]))
    }))
})

describe("DeadLetters: several processes", () => {
  it.live("one of them ends the retention; when it does not come back, another one", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const process = Layer.build(Rotif.layer({ url: server.url, deadLetters: { interval: "1 hour" } }))
      const [one, other] = yield* Effect.all([process, process])
      const lead = Broker.Broker.use(({ letters }) => letters.lead(200))
      // Whichever of them led at its start still does.
      const leads = yield* Effect.all([Effect.provide(lead, one), Effect.provide(lead, other)])
      assert.strictEqual(leads.filter(Boolean).length, 1)
      yield* Effect.repeat(Effect.provide(lead, leads[0] ? other : one), { until: (leads) => leads })
      assert.isFalse(yield* Effect.provide(lead, leads[0] ? one : other))
    }))
})
