/** The main path when connections, servers and data fail: private servers behind a proxy that cuts connections. */
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Cause, Deferred, Effect, Fiber, Layer, Logger, Queue, Ref, Schema } from "effect"
import { Broker, Channel, Publisher, Rotif, Stats } from "rotif"
import { createHash } from "node:crypto"
import { ack } from "../../src/redisBroker/scripts/member/ack.ts"
import { takeOver } from "../../src/redisBroker/scripts/member/takeOver.ts"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"
import { leftover, letters, listen, liveBackend, nothingLeft } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const log = "{f:0}:log:texts"
const commandTimeout = 500
const quick = { prefix: "f", commandTimeout, connectTimeout: 300, drainTimeout: "5 seconds" } as const

const { soon } = liveBackend("Redis", () => Layer.empty as never)

const has = (...words: ReadonlyArray<string>) => (request: Buffer) => words.every((word) => request.includes(word))

const hashOf = ({ lua }: { readonly lua: string }) => createHash("sha1").update(lua).digest("hex")

/** Repeats a check until it holds. */
const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  soon(Effect.repeat(Effect.delay(check, 5), { until: (done) => done }))

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.map(effect, (value) => [value, performance.now() - from] as const)
  })

/** A test with a server of its own, behind a proxy. */
const faulty = (
  name: string,
  body: (
    server: RedisServer.RedisServer,
    proxy: TcpProxy.TcpProxy
  ) => Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope>,
  options?: { readonly config?: RedisServer.Config; readonly rotif?: Omit<Rotif.RedisOptions, "url" | "client"> }
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make(options?.config)
      const proxy = yield* TcpProxy.make(server)
      const layer = Rotif.layer({ url: proxy.url, ...quick, ...options?.rotif })
      yield* body(server, proxy).pipe(Effect.scoped, Effect.provide(layer))
    }))

/** The reader waits at the server. */
const isBlocked = (server: RedisServer.RedisServer) =>
  until(Effect.map(server.command("info", "clients"), (text) => String(text).includes("blocked_clients:1")))

const entries = Effect.fnUntraced(function*(server: RedisServer.RedisServer) {
  return (yield* server.command("xrange", log, "-", "+")) as ReadonlyArray<readonly [string, ReadonlyArray<string>]>
})

const payloadsIn = (server: RedisServer.RedisServer) =>
  Effect.map(entries(server), (all) => all.map(([, fields]) => JSON.parse(fields.at(-1)!) as string))

const numbers = (count: number) => Array.from({ length: count }, (_, i) => `m${i}`)

/** Publishes until it is stored, as the errors say. */
const insist = (text: string, knownId?: string) =>
  Effect.gen(function*() {
    let id = knownId
    while (true) {
      const outcome = yield* Effect.result(Publisher.publish(Text, text, id === undefined ? {} : { id }))
      if (outcome._tag === "Success") return outcome.success
      const error = outcome.failure
      if (error._tag !== "Unavailable" && error._tag !== "PublishUncertain") return yield* Effect.fail(error)
      id = error.id
    }
  })

describe("the start", () => {
  it.live("goes on when an answer is lost", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      for (const command of ["hsetnx", "hget"]) {
        const dropped = yield* proxy.dropReplyOnce(has(command))
        const published = Publisher.publish(Text, command).pipe(
          Effect.provide(Rotif.layer({ url: proxy.url, ...quick }))
        )
        assert.strictEqual((yield* published)._tag, "Published")
        yield* dropped
      }
      assert.deepStrictEqual(yield* payloadsIn(server), ["hsetnx", "hget"])
    }))
})

describe("publish", () => {
  faulty("is stored once and told as published when its answer is lost", (server, proxy) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "first")
      const dropped = yield* proxy.dropReplyOnce(has("xadd"))
      const receipt = yield* Publisher.publish(Text, "x")
      yield* dropped
      assert.strictEqual(receipt._tag, "Published")
      assert.deepStrictEqual(yield* payloadsIn(server), ["first", "x"])
      assert.strictEqual((yield* entries(server))[1]![0], receipt.position)
    }))

  faulty(
    "with an id: is stored once and told as published, a second call as a duplicate",
    (server, proxy) =>
      Effect.gen(function*() {
        // The server knows the script from now on: what is lost is its answer, not a NOSCRIPT.
        yield* Publisher.publish(Text, "before", { id: "other" })
        const dropped = yield* proxy.dropReplyOnce(has("eval", "my-id"))
        const receipt = yield* Publisher.publish(Text, "x", { id: "my-id" })
        yield* dropped
        assert.strictEqual(receipt._tag, "Published")
        const again = yield* Publisher.publish(Text, "x", { id: "my-id" })
        assert.deepStrictEqual(again, { ...receipt, _tag: "Duplicate" })
        assert.strictEqual((yield* entries(server))[1]![0], receipt.position)
        assert.lengthOf(yield* entries(server), 2)
      })
  )

  for (const [where, word] of [["first", "m0"], ["middle", "m7"], ["last", "m19"]] as const) {
    faulty(
      `publishAll: each is stored once, in order, when the ${where} answer is lost`,
      (server, proxy) =>
        Effect.gen(function*() {
          yield* Publisher.publish(Text, "before")
          const dropped = yield* proxy.dropReplyOnce(has("xadd", `"${word}"`))
          const receipts = yield* Publisher.publishAll(Text, numbers(20))
          yield* dropped
          assert.deepStrictEqual(yield* payloadsIn(server), ["before", ...numbers(20)])
          assert.deepStrictEqual(
            receipts.map(({ position }) => position),
            (yield* entries(server)).slice(1).map(([id]) => id)
          )
          for (const { _tag } of receipts) assert.strictEqual(_tag, "Published")
        })
    )
  }

  faulty(
    "publishAll: is searched for where it can be, while others publish to the channel",
    (server, proxy) =>
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "before")
        const dropped = yield* proxy.dropReplyOnce(has("xadd", "\"m199\""))
        const others = yield* Effect.forkChild(
          Effect.forEach(numbers(20), () => Effect.forever(insist("other")), { concurrency: 20 }),
          { startImmediately: true }
        )
        yield* Publisher.publishAll(Text, numbers(200))
        yield* Fiber.interrupt(others)
        yield* dropped
        const payloads = yield* payloadsIn(server)
        assert.deepStrictEqual(payloads.filter((text) => text.startsWith("m")), numbers(200))
        assert.include(payloads, "other")
      })
  )

  faulty("publishAll with ids: each is stored once when an answer is lost", (server, proxy) =>
    Effect.gen(function*() {
      yield* Publisher.publish(Text, "before", { id: "other" })
      const dropped = yield* proxy.dropReplyOnce(has("eval", "id-m3"))

      const receipts = yield* Publisher.publishAll(Text, numbers(6), (text) => ({ id: `id-${text}` }))
      yield* dropped
      for (const { _tag } of receipts) assert.strictEqual(_tag, "Published")
      assert.deepStrictEqual(yield* payloadsIn(server), ["before", ...numbers(6)])
    }))

  faulty(
    "what cannot be decided in time is PublishUncertain; repeated with its id it is stored once",
    (server, proxy) =>
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "before")
        yield* proxy.dropReplyOnce(has("xadd"))
        yield* proxy.refuse
        const [error, millis] = yield* elapsed(Effect.flip(Publisher.publish(Text, "x")))
        assert.strictEqual(error._tag, "PublishUncertain")
        assert.isBelow(millis, 4 * commandTimeout)
        assert.lengthOf(yield* entries(server), 2)
        const { id } = error as Publisher.PublishUncertain
        // Still away: still uncertain, and not forgotten.
        assert.strictEqual((yield* Effect.flip(Publisher.publish(Text, "x", { id })))._tag, "PublishUncertain")
        yield* proxy.accept
        const receipt = yield* insist("x", id)
        assert.strictEqual(receipt.position, (yield* entries(server))[1]![0])
        assert.strictEqual((yield* Publisher.publish(Text, "x", { id }))._tag, "Duplicate")
        assert.lengthOf(yield* entries(server), 2)
      })
  )

  faulty(
    "with an id: PublishUncertain too, though it was repeated and could not be sent again",
    (server, proxy) =>
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "before", { id: "other" })
        yield* proxy.dropReplyOnce(has("eval", "my-id"))

        yield* proxy.refuse
        const error = yield* Effect.flip(Publisher.publish(Text, "x", { id: "my-id" }))
        assert.strictEqual(error._tag, "PublishUncertain")
        yield* proxy.accept
        // This was its own publish, not another.
        assert.strictEqual((yield* insist("x", "my-id"))._tag, "Published")
        assert.strictEqual((yield* Publisher.publish(Text, "x", { id: "my-id" }))._tag, "Duplicate")
        assert.lengthOf(yield* entries(server), 2)
      })
  )

  faulty(
    "publishAll: gives the outcome of each message, and uncertain ones can be repeated",
    (server, proxy) =>
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "before")
        yield* proxy.dropReplyOnce(has("xadd", "\"m3\""))
        yield* proxy.refuse
        const error = yield* Effect.flip(Publisher.publishAll(Text, numbers(5)))
        assert.instanceOf(error, Publisher.PublishIncomplete)
        yield* proxy.accept
        for (const [i, outcome] of error.outcomes.entries()) {
          assert.strictEqual(outcome._tag, "PublishUncertain")
          yield* insist(`m${i}`, (outcome as Publisher.PublishUncertain).id)
        }
        assert.deepStrictEqual(yield* payloadsIn(server), ["before", ...numbers(5)])
      })
  )

  for (
    const [what, channel] of [["a channel", Text], [
      "a new channel",
      Channel.make("new", { payload: Schema.String })
    ]] as const
  ) {
    faulty(
      `publishAll with ids to ${what}: waits once for a Redis that is away, and none overtakes another`,
      (_, proxy) =>
        Effect.gen(function*() {
          yield* Publisher.publish(Text, "before", { id: "before" })
          yield* proxy.refuse
          yield* proxy.cut
          yield* Effect.flip(Publisher.publish(Text, "notices"))
          const [error, millis] = yield* elapsed(
            Effect.flip(Publisher.publishAll(channel, numbers(20), (text) => ({ id: text })))
          )
          assert.isBelow(millis, 4 * commandTimeout)
          for (const outcome of (error as Publisher.PublishIncomplete).outcomes) {
            assert.strictEqual((outcome as Publisher.StoreError)._tag, "Unavailable")
          }
          yield* proxy.accept
        })
    )
  }

  faulty(
    "is Unavailable within the command timeout when Redis is away, and nothing is stored",
    (server, proxy) =>
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "before")
        yield* proxy.refuse
        yield* proxy.cut
        // What is sent before the client notices the cut is uncertain; from then on nothing is sent.
        yield* Effect.flip(Publisher.publish(Text, "x"))
        const attempts = yield* Effect.forEach(
          [{}, { id: "my-id" }],
          (options) => elapsed(Effect.flip(Publisher.publish(Text, "x", options))),
          { concurrency: 2 }
        )
        for (const [error, millis] of attempts) {
          assert.strictEqual(error._tag, "Unavailable")
          assert.isBelow(millis, 3 * commandTimeout)
        }
        const other = Channel.make("others", { payload: Schema.String })
        assert.strictEqual((yield* Effect.flip(Publisher.publish(other, "x")))._tag, "Unavailable")
        yield* proxy.accept
        yield* insist("after")
        assert.deepStrictEqual(yield* payloadsIn(server), ["before", "after"])
      })
  )

  for (
    const [what, options] of [["", {}], ["with an id: ", { id: "my-id" }], ["scheduled: ", { delay: 10 }]] as const
  ) {
    faulty(
      `${what}is Unavailable when the connection is lost while its channel is made known: nothing was sent`,
      (_, proxy) =>
        Effect.gen(function*() {
          yield* Publisher.publish(Text, "before")
          const other = Channel.make("others", { payload: Schema.String })
          yield* proxy.dropReplyOnce(has("eval", "others"))
          yield* proxy.refuse
          const error = yield* Effect.flip(Publisher.publish(other, "x", options))
          assert.strictEqual(error._tag, "Unavailable")
          yield* proxy.accept
        })
    )
  }

  it.live(
    "in a Cluster: is stored once and told as published when its answer is lost, on every node",
    () =>
      Effect.gen(function*() {
        const cluster = yield* RedisCluster.make()
        const { natMap, proxies } = yield* TcpProxy.makeCluster(cluster)
        const layer = Rotif.layer({
          ...quick,
          cluster: [{ host: "127.0.0.1", port: proxies[0]!.port }],
          natMap,
          shards: 8,
          commandTimeout: "3 seconds"
        })
        yield* Effect.gen(function*() {
          const channels = numbers(16).map((name) => Channel.make(name, { payload: Schema.String }))
          for (const channel of channels) yield* Publisher.publish(channel, "before")
          const drops = yield* Effect.forEach(proxies, (proxy) => proxy.dropReplyOnce(has("xadd")))
          for (const channel of channels) {
            assert.strictEqual((yield* Publisher.publish(channel, "x"))._tag, "Published")
          }
          yield* soon(Effect.all(drops))
          const more = yield* Effect.forEach(proxies, (proxy) => proxy.dropReplyOnce(has("xadd", "\"m4\"")))
          for (const channel of channels) yield* Publisher.publishAll(channel, numbers(10))
          yield* soon(Effect.all(more))
          const broker = yield* Broker.Broker
          const { channels: found } = yield* broker.info({ _tag: "Pattern", pattern: "**" })
          assert.deepStrictEqual(found.map(({ length }) => length), channels.map(() => 12))
        }).pipe(Effect.provide(layer))
      }),
    60_000
  )
})

describe("consumer", () => {
  faulty(
    "receives the messages of a lost answer again at once, without a crash",
    (server, proxy) =>
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { concurrency: 4, lease: "1 minute" })
        const dropped = yield* proxy.dropReplyOnce(has("xreadgroup"))
        // It blocks in the read before the one that is lost.
        yield* Publisher.publish(Text, "before")
        yield* soon(Queue.take(seen))
        yield* isBlocked(server)
        yield* Publisher.publish(Text, "lost")
        yield* soon(dropped)
        const message = yield* soon(Queue.take(seen))
        assert.strictEqual(message.payload, "lost")
        const { attempt, crashes, deliveryCount } = message
        assert.deepStrictEqual({ attempt, crashes, deliveryCount }, { attempt: 1, crashes: 0, deliveryCount: 1 })
        yield* soon(subscription.drain)
        assert.deepInclude(yield* subscription.stats, { processed: 2, crashed: 0, lostLeases: 0 })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
  )

  // Small batches are acknowledged by a script, large ones in a transaction. Only what is held can be in a batch, so that nothing is
  // fetched in advance where they are to be small.
  for (
    const [what, options, isAck] of [
      ["a small acknowledgement", { concurrency: 5, prefetch: 0 }, has(hashOf(ack))],
      ["a large acknowledgement", { concurrency: 20, prefetch: 20 }, has("xack")],
      ["the end of a large acknowledgement", { concurrency: 20, prefetch: 20 }, has("exec\r\n")]
    ] as const
  ) {
    faulty(
      `handles nothing twice and counts once when the answer of ${what} is lost`,
      (_, proxy) =>
        Effect.gen(function*() {
          // How many are acknowledged at a time is to be known.
          const { seen, subscription } = yield* listen(Text, options)
          // The server knows the script from now on.
          yield* Publisher.publish(Text, "first")
          yield* until(Effect.map(subscription.stats, ({ processed }) => processed === 1))
          let count = 1
          for (let round = 0; round < 5; round++) {
            const dropped = yield* proxy.dropReplyOnce(isAck)
            // On a busy machine few messages may be acknowledged at a time: then there are more.
            const lost = Effect.gen(function*() {
              yield* Publisher.publishAll(Text, numbers(20))
              count += 20
              yield* Effect.timeout(dropped, "1 second")
            })
            yield* soon(Effect.retry(lost, { while: Cause.isTimeoutError }))
          }
          yield* soon(Queue.takeN(seen, count))
          yield* soon(subscription.drain)
          assert.deepInclude(yield* subscription.stats, { processed: count, lostLeases: 0, crashed: 0 })
          assert.strictEqual(yield* Queue.size(seen), 0)
          assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
          const [group] = (yield* Stats.channels(Text))[0]!.groups
          assert.strictEqual(group!.totals.acked, count)
        })
    )
  }

  faulty(
    "retries once and buries once when the answer of the settlement is lost",
    (_, proxy) =>
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          maxRetries: 1,
          retryDelay: 20,
          handler: () => Effect.fail("no")
        })
        // Arguments, not the words of a script that is sent whole.
        const retried = yield* proxy.dropReplyOnce(has("\r\nwait+\r\n"))
        yield* Publisher.publish(Text, "x")
        yield* soon(retried)
        const buried = yield* proxy.dropReplyOnce(has("\r\ndead\r\n", "\"reason\":\"exhausted\""))
        yield* soon(buried)
        yield* until(Effect.map(subscription.stats, ({ held }) => held === 0))
        yield* soon(subscription.drain)
        assert.deepStrictEqual((yield* Queue.takeAll(seen)).map(({ attempt }) => attempt), [1, 2])
        assert.deepInclude(yield* subscription.stats, { failed: 2, retried: 1, dead: 1, lostLeases: 0 })
        assert.lengthOf(yield* letters, 1)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
  )

  faulty(
    "takes over everything of a lost member, also when the answer of a claim is lost half-way",
    (server, proxy) =>
      Effect.gen(function*() {
        const Both = Channel.union([Text, Channel.make("others", { payload: Schema.String })])
        const broker = yield* Broker.Broker
        for (const channel of Both.members) yield* Publisher.publish(channel, channel.name)
        const lease = 300
        const lost = yield* broker.join({
          shard: 0,
          group: "g",
          consumer: "lost",
          selector: Channel.selector(Both),
          start: { _tag: "Earliest" },
          leaseMillis: lease
        })
        assert.lengthOf(yield* lost.read(2, 1_000), 2)
        // The server knows the script from now on, so that the claim of each channel is one call by its hash.
        yield* server.command("script", "load", takeOver.lua)
        const { seen, subscription } = yield* listen(Both, { group: "g", lease, concurrency: 2 })
        // One of two claims, the first or the second.
        const first = yield* proxy.dropReplyOnce(has(hashOf(takeOver), ":log:others"))
        yield* soon(first)
        const messages = yield* soon(Queue.takeN(seen, 2))
        assert.sameMembers(messages.map(({ payload }) => payload), ["texts", "others"])
        for (const { attempt, deliveryCount } of messages) assert.deepStrictEqual([attempt, deliveryCount], [1, 2])
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Both), nothingLeft)
      })
  )

  for (const count of [1, 20]) {
    faulty(
      `an acknowledgement of ${count} that waited for a connection beyond its lease ends nothing that another one holds`,
      (server, proxy) =>
        Effect.gen(function*() {
          const join = (consumer: string) =>
            Effect.flatMap(Broker.Broker, (broker) =>
              broker.join({
                shard: 0,
                group: "g",
                consumer,
                selector: Channel.selector(Text),
                start: { _tag: "Earliest" },
                leaseMillis: 300
              }))
          yield* Publisher.publishAll(Text, numbers(count))
          const slow = yield* join("slow")
          const held: Array<Broker.Delivery> = []
          while (held.length < count) held.push(...yield* slow.read(count - held.length, 1_000))
          assert.lengthOf(held, count)
          yield* proxy.refuse
          yield* proxy.cut
          // The client has noticed by then, too: it is not sent into the void.
          yield* until(
            Effect.map(server.command("client", "list"), (list) => !String(list).includes("name=rotif:commands"))
          )
          const settling = yield* Effect.forkChild(Effect.result(slow.ack(held)), { startImmediately: true })
          yield* Effect.gen(function*() {
            const other = yield* join("other")
            let taken = 0
            yield* until(
              Effect.map(other.claim(count), ({ deliveries }) => (taken += deliveries.length) === count)
            )
            yield* proxy.accept
            // Not sent any more, or sent and refused; when it is repeated, as a consumer does, it is refused.
            const first = yield* soon(Fiber.join(settling))
            const refused = first._tag === "Success" ? first.success : yield* slow.ack(held)
            assert.lengthOf(refused, count)
            const [pending] = (yield* server.command("xpending", log, "g")) as [number]
            assert.strictEqual(pending, count)
          }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: server.url, ...quick })))
        }),
      { rotif: { commandTimeout: "10 seconds" } }
    )
  }

  faulty("replaces a half-open connection", (server, proxy) =>
    Effect.gen(function*() {
      const { seen } = yield* listen(Text, { blockInterval: 100 })
      yield* isBlocked(server)
      yield* proxy.stall
      yield* server.command("xadd", log, "*", "i", "id", "p", "\"x\"")
      // Nobody else would ever claim it: the watchdog, after block time and three seconds of grace.
      assert.deepInclude(yield* soon(Queue.take(seen)), { payload: "x", crashes: 0, attempt: 1 })
    }))

  faulty("a renewal that crosses a retry does not take its key again", (_, proxy) =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const member = yield* broker.join({
        shard: 0,
        group: "g",
        consumer: "c",
        selector: Channel.selector(Text),
        start: { _tag: "Earliest" },
        leaseMillis: 60_000,
        doneMillis: 60_000
      })
      const begin = Effect.gen(function*() {
        const [delivery] = yield* member.read(1, 1_000)
        const [begun] = yield* member.begin([{ delivery: delivery!, key: "key" }])
        return [delivery!, begun] as const
      })
      yield* Publisher.publish(Text, "x")
      const [delivery, first] = yield* begin
      assert.strictEqual(first, "mine")
      yield* proxy.delay(50)
      yield* Effect.all([
        member.renew([delivery]),
        member.redeliver([{ delivery, delayMillis: 0, attempt: 2 }])
      ], { concurrency: 2 })
      yield* proxy.delay(0)
      const [, again] = yield* begin
      assert.strictEqual(again, "mine")
    }))

  faulty("does not mind scripts that are forgotten all the time", (server) =>
    Effect.gen(function*() {
      const { seen, subscription } = yield* listen(Text, {
        concurrency: 10,
        retryDelay: 1,
        handler: ({ attempt }) => attempt === 1 ? Effect.fail("again") : Effect.void
      })
      const flushing = yield* Effect.forkChild(Effect.forever(Effect.delay(server.command("script", "flush"), 3)))
      yield* Effect.forEach(numbers(200), (id) => Publisher.publish(Text, id, { id }), { concurrency: 20 })
      yield* soon(Queue.takeN(seen, 400))
      yield* Fiber.interrupt(flushing)
      yield* soon(subscription.drain)
      assert.deepInclude(yield* subscription.stats, { processed: 200, retried: 200, dead: 0, lostLeases: 0 })
      assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
    }))

  faulty(
    "loses nothing that was told as published when the server is killed under load, and goes on when it is back",
    (server) =>
      Effect.gen(function*() {
        const handled = new Map<string, number>()
        const { subscription } = yield* listen(Text, {
          concurrency: 10,
          lease: "3 seconds",
          handler: ({ payload }) => Effect.sync(() => void handled.set(payload, (handled.get(payload) ?? 0) + 1))
        })
        const published = yield* Ref.make(0)
        const stop = yield* Deferred.make<void>()
        const publishing = yield* Effect.forkChild(Effect.forEach(
          numbers(4),
          (writer) =>
            Effect.gen(function*() {
              for (let i = 0; !(yield* Deferred.isDone(stop)); i++) {
                yield* insist(`${writer}-${i}`)
                yield* Ref.update(published, (count) => count + 1)
              }
            }),
          { concurrency: 4, discard: true }
        ))
        for (let kill = 0; kill < 3; kill++) {
          const before = handled.size
          yield* until(Effect.sync(() => handled.size > before + 100))
          yield* server.kill
          yield* server.restart
          const atRestart = handled.size
          const [, millis] = yield* elapsed(until(Effect.sync(() => handled.size > atRestart + 20)))
          assert.isBelow(millis, 2_000)
        }
        yield* Deferred.succeed(stop, undefined)
        yield* soon(Fiber.join(publishing))
        const count = yield* Ref.get(published)
        yield* until(Effect.map(leftover(Text), (left) => left.unread + left.pending + left.ready + left.waiting === 0))
        yield* soon(subscription.drain)
        assert.strictEqual(handled.size, count)
        assert.strictEqual(yield* server.command("xlen", log), count)
      }),
    { config: { appendonly: "yes", appendfsync: "always" } }
  )
})

describe("data that is gone", () => {
  faulty(
    "XGROUP DESTROY: goes on at the floor, and misses nothing that came meanwhile",
    (server) =>
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const { seen, subscription } = yield* listen(Text, { group: "g", concurrency: 10 })
        yield* Publisher.publishAll(Text, numbers(10))
        yield* soon(Queue.takeN(seen, 10))
        yield* until(Effect.map(subscription.stats, ({ held }) => held === 0))
        yield* broker.trim(0)

        yield* server.command("xgroup", "destroy", log, "g")
        yield* Publisher.publish(Text, "while it waits")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "while it waits")

        yield* until(Effect.map(subscription.stats, ({ held }) => held === 0))
        yield* broker.trim(0)
        yield* subscription.pause
        yield* server.command("xgroup", "destroy", log, "g")
        yield* Publisher.publishAll(Text, ["while", "it", "is", "away"])
        yield* subscription.resume
        assert.deepStrictEqual((yield* soon(Queue.takeN(seen, 4))).map(({ payload }) => payload), [
          "while",
          "it",
          "is",
          "away"
        ])
        yield* soon(subscription.drain)
        assert.strictEqual(yield* Queue.size(seen), 0)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
  )

  faulty(
    "XGROUP DESTROY: a group that began with the newest does not go back to the oldest",
    (server) =>
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, numbers(10))
        const { seen } = yield* listen(Text, { group: "g", startFrom: "latest" })
        yield* server.command("xgroup", "destroy", log, "g")
        yield* Publisher.publish(Text, "new")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "new")
      })
  )

  faulty(
    "messages handled while their group is lost are handled again, and settled",
    (server) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          group: "g",
          handler: ({ payload }) =>
            payload === "ack" ? Deferred.await(gate) : Effect.andThen(Deferred.await(gate), Effect.fail("no")),
          concurrency: 2,
          maxRetries: 0
        })
        yield* Publisher.publishAll(Text, ["ack", "bury"])
        yield* soon(Queue.takeN(seen, 2))
        yield* server.command("xgroup", "destroy", log, "g")
        yield* Publisher.publish(Text, "ack")
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Queue.takeN(seen, 3))
        yield* until(Effect.map(subscription.stats, ({ held }) => held === 0))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.deepStrictEqual((yield* letters).map(({ payload }) => payload), ["\"bury\""])
      })
  )

  for (const [what, command] of [["DEL of the log", ["del", log]], ["FLUSHALL", ["flushall"]]] as const) {
    faulty(
      `${what}: goes on with what is published then, also by who knew the channel`,
      (server) =>
        Effect.gen(function*() {
          const one = yield* listen(Text, { group: "one" })
          const all = yield* listen(Channel.pattern("*", { payload: Schema.String }), { group: "all" })
          for (const round of numbers(3)) {
            yield* Publisher.publish(Text, round)
            for (const { seen } of [one, all]) assert.strictEqual((yield* soon(Queue.take(seen))).payload, round)
            yield* server.command(...command as [string])
          }
          yield* Publisher.publishAll(Text, ["a", "b", "c"])
          for (const { seen } of [one, all]) yield* soon(Queue.takeN(seen, 3))
          // Both are registered again: nothing is removed behind their backs.
          assert.sameMembers((yield* server.command("hkeys", "{f:0}:groups")) as Array<string>, [
            "one\ntexts",
            "all\n*"
          ])
        })
    )
  }

  /** What the log says while a test runs. */
  const sayingTo = (lines: Array<string>) =>
    Effect.provide(Logger.layer([
      Logger.make(({ message }) => void lines.push([message].flat().map(String).join(" ")))
    ]))

  for (const [what, command] of [["DEL of the log", ["del", log]], ["FLUSHALL", ["flushall"]]] as const) {
    faulty(`${what}: what is gone is said, by its name`, (server) =>
      Effect.gen(function*() {
        const lines: Array<string> = []
        const { seen } = yield* listen(Text, { group: "g" }).pipe(sayingTo(lines))
        yield* Publisher.publish(Text, "before")
        yield* soon(Queue.take(seen))
        yield* server.command(...command as [string])
        yield* Publisher.publish(Text, "after").pipe(sayingTo(lines))
        yield* soon(Queue.take(seen))
        yield* until(Effect.sync(() => lines.some((line) => /group "g" found gone from Redis/.test(line))))
        const text = lines.filter((line) => line.includes("gone from Redis")).join("\n")
        // Another look, and whoever publishes, may have said a part of it.
        assert.match(text, /place in the log of "texts"|the channel "texts"|the log of channel "texts"/)
        assert.strictEqual(text.includes("its registration"), what === "FLUSHALL")
      }))
  }

  faulty(
    "a registry that is removed is made again within a lease, without anything being published",
    (server) =>
      Effect.gen(function*() {
        const lines: Array<string> = []
        const All = Channel.pattern("*", { payload: Schema.String })
        const broker = yield* Broker.Broker
        const { seen, subscription } = yield* listen(All, {
          group: "all",
          lease: 300,
          retryDelay: 20,
          handler: ({ attempt, payload }) => attempt === 1 && payload === "again" ? Effect.fail("once") : Effect.void
        }).pipe(sayingTo(lines))
        yield* Publisher.publish(Text, "again")
        yield* soon(Queue.takeN(seen, 2))
        for (
          const [key, isThere] of [
            ["channels", Effect.map(server.command("hexists", "{f:0}:channels", "texts"), (found) => found === 1)],
            ["groups", Effect.map(server.command("hexists", "{f:0}:groups", "all\n*"), (found) => found === 1)],
            [
              "retries:all",
              Effect.map(server.command("sismember", "{f:0}:retries:all", "texts"), (found) => found === 1)
            ]
          ] as const
        ) {
          yield* server.command("del", `{f:0}:${key}`)
          yield* until(isThere)
        }
        // A reader by a pattern, whose channel nobody names any more, has not lost it.
        yield* Publisher.publish(Text, "after")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "after")
        const text = lines.join("\n")
        for (const what of ["the channel \"texts\"", "its registration", "the list of its retry streams"]) {
          assert.include(text, what)
        }
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.lengthOf((yield* broker.info(Channel.selector(Text))).channels, 1)
      })
  )

  faulty(
    "a publisher makes the entries of its channels again, with their limits, at the next turn of the janitor",
    (server) =>
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const Limited = Channel.make("limited", { payload: Schema.String, limits: { maxLength: 1_000 } })
        yield* Publisher.publish(Text, "x")
        yield* Publisher.publish(Limited, "x")
        const entriesOfRegistry = server.command("hgetall", "{f:0}:channels")
        const before = yield* entriesOfRegistry
        yield* server.command("del", "{f:0}:channels")
        yield* broker.trim(0)
        assert.deepStrictEqual(yield* entriesOfRegistry, before)
        // A group that came first knows no limits.
        yield* server.command("hset", "{f:0}:channels", "limited", "")
        yield* broker.trim(0)
        assert.deepStrictEqual(yield* entriesOfRegistry, before)
        // What somebody else has set stays.
        yield* server.command("hset", "{f:0}:channels", "limited", "{\"maxLength\":5}")
        yield* broker.trim(0)
        assert.strictEqual(yield* server.command("hget", "{f:0}:channels", "limited"), "{\"maxLength\":5}")
      })
  )

  faulty(
    "FLUSHALL: the number of shards is recorded again with the next publish, and by the janitor",
    (server) =>
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const recorded = server.command("hget", "{f:0}:meta", "shards")
        yield* Publisher.publish(Text, "a")
        for (
          const again of [
            Publisher.publish(Text, "b"),
            Publisher.publishAll(Text, ["c", "d"]),
            Publisher.publish(Text, "e", { delay: "1 hour" }),
            broker.trim(0)
          ]
        ) {
          yield* server.command("flushall")
          yield* again
          assert.strictEqual(yield* recorded, "1")
        }
        yield* server.command("hset", "{f:0}:meta", "shards", "2")
        assert.include((yield* Effect.flip(broker.trim(0))).message, "has 2 shards and this client is set to 1")
      })
  )

  faulty("FLUSHALL: a pattern that had no channel yet hears of the first one", (server) =>
    Effect.gen(function*() {
      const { seen } = yield* listen(Channel.pattern("*", { payload: Schema.String }), { group: "all" })
      yield* server.command("flushall")
      yield* Publisher.publish(Text, "x")
      assert.strictEqual((yield* soon(Queue.take(seen))).payload, "x")
      assert.deepStrictEqual(yield* server.command("hkeys", "{f:0}:groups"), ["all\n*"])
    }))

  faulty(
    "no memory: a publish is Overloaded, settlements go through, retries come when they are due",
    (server) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          concurrency: 4,
          retryDelay: 10,
          handler: (message) =>
            Effect.gen(function*() {
              const { attempt, payload } = message
              if (attempt > 1) return
              yield* Deferred.await(gate)
              if (payload === "bury") yield* message.term("never")
              if (payload === "at once") yield* message.nack({ delay: 0 })
              if (payload === "later") return yield* Effect.fail("later")
            })
        })
        yield* Publisher.publishAll(Text, ["ack", "bury", "at once", "later"])
        yield* soon(Queue.takeN(seen, 4))
        yield* server.command("config", "set", "maxmemory", "1mb")
        const known = yield* Effect.flip(Publisher.publish(Text, "x"))
        const window = yield* Effect.flip(Publisher.publish(Text, "x", { id: "my-id" }))
        const all = yield* Effect.flip(Publisher.publishAll(Text, ["x", "y"]))
        for (const error of [known, window]) assert.deepInclude(error, { _tag: "BrokerError", reason: "Overloaded" })
        for (const error of (all as Publisher.PublishIncomplete).outcomes) {
          assert.deepInclude(error, { _tag: "BrokerError", reason: "Overloaded" })
        }

        yield* Deferred.succeed(gate, undefined)
        // What waits is only moved when it is due, and is freed when it is handled.
        const again = yield* soon(Queue.takeN(seen, 2))
        assert.sameDeepMembers(again.map(({ attempt, payload }) => [payload, attempt]), [["at once", 2], ["later", 2]])
        yield* until(Effect.map(subscription.stats, (stats) => stats.processed === 3 && stats.held === 0))
        assert.deepStrictEqual((yield* letters).map(({ failure }) => failure.message), ["never"])
        yield* server.command("config", "set", "maxmemory", 0)
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.lengthOf(yield* entries(server), 4)
      })
  )

  faulty(
    "no memory: a new consumer handles stored messages, retries and buries, and finished messages are removed",
    (server) =>
      Effect.gen(function*() {
        const consumer = yield* listen(Text, { group: "g" })
        yield* soon(consumer.subscription.drain)
        yield* Publisher.publishAll(Text, [...numbers(20), "retry", "bury"])
        yield* server.command("config", "set", "maxmemory", "1mb")
        yield* Effect.gen(function*() {
          const broker = yield* Broker.Broker
          const { seen, subscription } = yield* listen(Text, {
            group: "g",
            handler: (message) =>
              message.payload === "bury"
                ? message.term("never")
                : message.payload === "retry" && message.attempt === 1
                ? message.nack()
                : Effect.void
          })
          yield* soon(Queue.takeN(seen, 23))
          yield* until(Effect.map(subscription.stats, (stats) => stats.processed === 21 && stats.held === 0))
          yield* until(Effect.map(broker.trim(0), (removed) => removed > 0))
          assert.lengthOf(yield* entries(server), 0)
          yield* server.command("del", "{f:0}:retention")
          assert.isTrue(yield* broker.letters.lead(1_000))
          assert.lengthOf(yield* letters, 1)
        }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ ...quick, url: server.url, graceMillis: 0 })))
      }),
    // The longest of a namespace counts.
    { rotif: { graceMillis: 0 } }
  )

  faulty(
    "an entry of another program becomes a dead letter with its contents, and the loop goes on",
    (server) =>
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { group: "g" })
        const strange: ReadonlyArray<ReadonlyArray<string>> = [
          ["some", "thing"],
          ["i", "id"],
          ["p", "\"no id\""],
          ["i", "id", "h", "not JSON", "p", "\"x\""],
          ["i", "id", "r", "[]", "p", "\"x\""],
          ["b", "{}\n\"x\""],
          ["b", "{}"],
          ["i", "id", "b", "\"x\""],
          ["i", "id", "p", "not JSON"],
          ["i", "id", "p", "42"]
        ]
        for (const fields of strange) yield* server.command("xadd", log, "*", ...fields)
        yield* Publisher.publish(Text, "fine")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "fine")
        yield* until(Effect.map(subscription.stats, ({ dead }) => dead === strange.length))
        yield* soon(subscription.drain)
        const found = yield* letters
        for (const { failure } of found) assert.strictEqual(failure.reason, "decode")
        assert.deepStrictEqual(
          found.map(({ payload }) => payload),
          [...strange.slice(0, 8).map((fields) => JSON.stringify(fields)), "not JSON", "42"]
        )
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
  )
})
