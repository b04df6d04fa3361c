/** Statistics on Redis: they add up to the message through lost answers, and leave out what a user may not read. */
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Exit, Layer, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Rotif, Stats } from "rotif"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"
import { listen, liveBackend } from "../contract/kit.ts"
import { account, quiet } from "./statsKit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const { soon } = liveBackend("Redis", () => Layer.empty as never)

const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  soon(Effect.repeat(Effect.delay(check, 20), { until: (done) => done }))

/** A test with a server of its own, behind a proxy. */
const faulty = (
  name: string,
  body: (
    server: RedisServer.RedisServer,
    proxy: TcpProxy.TcpProxy
  ) => Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope>
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const layer = Rotif.layer({ url: proxy.url, prefix: "s", commandTimeout: 500, connectTimeout: 300 })
      yield* body(server, proxy).pipe(Effect.scoped, Effect.provide(layer))
    }).pipe(quiet), 60_000)

describe("counting of acknowledgements", () => {
  for (const size of [3, 50]) {
    for (const [what, word] of [["the acknowledgement", "xack"], ["its answer", size < 8 ? "evalsha" : "exec"]]) {
      faulty(
        `is counted once when the answer to ${size} of them is lost (${what})`,
        (_, proxy) =>
          Effect.gen(function*() {
            const broker = yield* Broker.Broker
            const member = yield* broker.join({
              shard: 0,
              group: "g",
              consumer: "me",
              selector: Channel.selector(Text),
              start: { _tag: "Earliest" },
              leaseMillis: 60_000
            })
            yield* Publisher.publishAll(Text, Array.from({ length: size * 2 }, String))
            const read = Effect.gen(function*() {
              const out: Array<Broker.Delivery> = []
              while (out.length < size) out.push(...yield* member.read(size - out.length, 1_000))
              return out
            })
            const taken = yield* read
            yield* member.ack(taken)
            const rest = yield* read
            assert.lengthOf(rest, size)
            const dropped = yield* proxy.dropReplyOnce((request) =>
              request.includes(word!) || request.includes("evalsha")
            )
            const outcome = yield* Effect.result(member.ack(rest))
            yield* soon(dropped)
            assert.strictEqual(outcome._tag, "Failure")
            assert.deepStrictEqual(yield* Effect.retry(member.ack(rest), { times: 10 }), [])
            assert.strictEqual((yield* account(Text, "g")).totals.acked, size * 2)
          })
      )
    }
  }

  faulty("is counted by a server that is out of memory, few or many", (server) =>
    Effect.gen(function*() {
      const { seen, subscription } = yield* listen(Text, { group: "g", concurrency: 100, ackMode: "manual" })
      yield* Publisher.publishAll(Text, Array.from({ length: 60 }, String))
      const messages = yield* soon(Queue.takeN(seen, 60))
      yield* server.command("config", "set", "maxmemory", "1mb")
      yield* Effect.forEach(messages.slice(0, 50), (message) => message.ack, { concurrency: "unbounded" })
      yield* Effect.forEach(messages.slice(50), (message) => message.ack)
      assert.strictEqual((yield* account(Text, "g")).totals.acked, 60)
      yield* server.command("config", "set", "maxmemory", 0)
      yield* soon(subscription.drain)
    }))

  faulty("counts nothing for a group that was removed meanwhile", (server) =>
    Effect.gen(function*() {
      const { seen, subscription } = yield* listen(Text, { group: "g", concurrency: 100, ackMode: "manual" })
      yield* Publisher.publishAll(Text, Array.from({ length: 20 }, String))
      const messages = yield* soon(Queue.takeN(seen, 20))
      const broker = yield* Broker.Broker
      yield* broker.removeGroup("g", Channel.selector(Text))
      const late = yield* Effect.forEach(messages, (message) => Effect.exit(message.ack), { concurrency: "unbounded" })
      assert.isTrue(late.every(Exit.isFailure))
      assert.isNull(yield* server.command("hget", "{s:0}:counts", "a\ng\ntexts"))
      yield* soon(subscription.drain)
      // Who subscribes again has what the group had not settled when it was removed.
      const again = yield* listen(Text, { group: "g", concurrency: 100, ackMode: "manual" })
      const more = yield* soon(Queue.takeN(again.seen, 20))
      yield* Effect.forEach(more, (message) => message.ack, { concurrency: "unbounded" })
      assert.strictEqual((yield* account(Text, "g")).totals.acked, 20)
    }))
})

describe("statistics that are not available", () => {
  it.live("the size of a channel is left out where MEMORY is not permitted, and nothing is said", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      yield* server.command("acl", "setuser", "small", "on", ">x", "~*", "&*", "+@all", "-memory")
      const look = (url: string) =>
        Effect.gen(function*() {
          yield* Publisher.publish(Text, "a")
          const [channel] = yield* Stats.channels(Text)
          return channel!
        }).pipe(Effect.provide(Rotif.layer({ url, prefix: "s" })))
      const small = yield* look(server.url.replace("redis://", "redis://small:x@"))
      assert.deepInclude(small, { bytes: undefined, published: 1, length: 1 })
      const whole = yield* look(server.url)
      assert.isAbove(whole.bytes!, 0)
    }).pipe(quiet))

  faulty(
    "a group that began in the middle of a long log is not known until it has come to the end",
    () =>
      Effect.gen(function*() {
        const receipts = yield* Publisher.publishAll(Text, Array.from({ length: 250 }, String))
        const options = {
          group: "g",
          concurrency: 50,
          startFrom: { position: receipts[120]!.position! }
        }
        const { subscription } = yield* listen(Text, { ...options, handler: () => Effect.never })
        yield* subscription.pause
        const before = Stats.ofGroup(yield* Stats.channels(Text), "g")!
        assert.deepInclude(before, { skipped: undefined, lag: undefined, lost: undefined })
        yield* Effect.forkScoped(subscription.drain)
        const second = yield* listen(Text, { group: "g", concurrency: 50 })
        yield* until(Effect.map(Stats.channels(Text), (channels) => Stats.ofGroup(channels, "g")?.totals.acked === 129))
        assert.deepInclude(yield* account(Text, "g"), { skipped: 121, lag: 0, pending: 0 })
        yield* soon(second.subscription.drain)
      })
  )
})
