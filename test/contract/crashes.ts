/**
 * Crashes: what counts as one, and for which message. A lost process is a member that reads and never settles, or a subscription on a
 * broker that a handler stops.
 */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Exit, Queue, Schema, Scope } from "effect"
import { Broker, Channel, DeadLetters, Inspector, Publisher, Subscription } from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("others", { payload: Schema.String })
const leaseMillis = 400

const join = Effect.fnUntraced(function*(consumer: string, source: Channel.Source = Text, group = "g") {
  const broker = yield* Broker.Broker
  const selector = Channel.selector(source)
  return yield* broker.join({
    shard: broker.shardsOf(selector)[0]!,
    group,
    consumer,
    selector,
    start: { _tag: "Earliest" },
    leaseMillis
  })
})

const take = Effect.fnUntraced(function*(member: Broker.Member, count: number) {
  const out: Array<Broker.Delivery> = []
  while (out.length < count) out.push(...yield* member.read(count - out.length, 1_000))
  return out
})

const claim = Effect.fnUntraced(function*(member: Broker.Member, count: number) {
  const out: Array<Broker.Delivery> = []
  while (out.length < count) {
    const { deliveries, nextInMillis } = yield* member.claim(count - out.length)
    out.push(...deliveries)
    if (out.length < count) yield* Effect.sleep(nextInMillis ?? 1)
  }
  return out
})

/** Records in Redis that refer to no message. */
const orphans = Effect.map(
  Inspector.verify({ tolerance: 0, confirmAfter: 1 }),
  ({ findings }) => findings.map(({ key, kind }) => `${kind} ${key}`)
)

/** A broker that can die: from then on its members execute nothing and receive nothing. */
const mortal = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  const dead = yield* Deferred.make<void>()
  const isDead = () => Deferred.isDoneUnsafe(dead)
  const unless = <A, B, E, R>(effect: Effect.Effect<A, E, R>, otherwise: () => B) =>
    Effect.suspend((): Effect.Effect<A | B, E, R> => isDead() ? Effect.succeed(otherwise()) : effect)
  const member = (own: Broker.Member): Broker.Member => ({
    read: (count, millis) =>
      Effect.suspend(() =>
        // No wake-up reaches it.
        isDead() ? Effect.as(Effect.sleep(Math.min(millis, leaseMillis)), []) : own.read(count, millis)
      ),
    awaitReady: (millis) => unless(own.awaitReady(millis), () => true),
    wake: own.wake,
    takeNext: own.takeNext,
    awaitLease: own.awaitLease,
    awaitRemoval: own.awaitRemoval,
    awaitJoin: own.awaitJoin,
    awaitPauses: own.awaitPauses,
    keepPauses: own.keepPauses,
    shared: (channels) => unless(own.shared(channels), () => new Set<string>()),
    claim: (count) =>
      unless(own.claim(count), () => ({
        deliveries: [],
        nextInMillis: leaseMillis,
        vanished: 0,
        settings: []
      })),
    renew: (deliveries) => unless(own.renew(deliveries), () => []),
    begin: (items) => unless(own.begin(items), () => items.map(() => "mine" as const)),
    beginTrial: (deliveries) => unless(own.beginTrial(deliveries), () => []),
    endTrial: (deliveries) => unless(own.endTrial(deliveries), () => {}),
    ack: (deliveries) => unless(own.ack(deliveries), () => []),
    redeliver: (items) => unless(own.redeliver(items), () => []),
    bury: (items) => unless(own.bury(items), () => []),
    drop: (deliveries) => unless(own.drop(deliveries), () => []),
    commit: (commits) => unless(own.commit(commits), () => commits.map(() => "done" as const))
  })
  return {
    broker: Broker.Broker.of({ ...broker, join: (membership) => Effect.map(broker.join(membership), member) }),
    die: Deferred.succeed(dead, undefined),
    died: Deferred.await(dead),
    isDead
  }
})

export const crashesSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Member.beginTrial", () => {
    test(
      "a lost consumer counts as a crash of what it had begun again, and of nothing else",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["begun", "held"])
        yield* soon(take(yield* join("first"), 2))
        const second = yield* join("second")
        const suspects = yield* soon(claim(second, 2))
        assert.deepStrictEqual(suspects.map(({ crashes, isSuspect }) => [crashes, isSuspect]), [[0, true], [0, true]])
        const begun = suspects.filter(({ payload }) => payload === "\"begun\"")
        assert.deepStrictEqual(yield* second.beginTrial(begun), [])
        assert.deepStrictEqual(yield* second.beginTrial(begun), [])
        const third = yield* join("third")
        const again = yield* soon(claim(third, 2))
        assert.deepStrictEqual(
          Object.fromEntries(again.map(({ attempt, crashes, deliveryCount, payload }) => [payload, [
            attempt,
            crashes,
            deliveryCount
          ]])),
          { "\"begun\"": [1, 1, 3], "\"held\"": [1, 0, 3] }
        )
        // A delivery that belongs to another member is refused.
        assert.deepStrictEqual(yield* second.beginTrial(suspects), suspects)
        assert.deepStrictEqual(yield* third.beginTrial(again), [])
        assert.deepStrictEqual(yield* third.ack(again), [])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.deepStrictEqual(yield* orphans, [])
      })
    )

    test(
      "an acquitted delivery does not count",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "x")
        yield* soon(take(yield* join("first"), 1))
        const second = yield* join("second")
        const [one] = yield* soon(claim(second, 1))
        yield* second.beginTrial([one!])
        const third = yield* join("third")
        const [two] = yield* soon(claim(third, 1))
        assert.strictEqual(two!.crashes, 1)
        yield* third.beginTrial([two!])
        yield* third.endTrial([two!])
        // An acquittal of an earlier delivery changes nothing.
        yield* second.endTrial([one!])
        const fourth = yield* join("fourth")
        const [three] = yield* soon(claim(fourth, 1))
        assert.strictEqual(three!.crashes, 1)
        assert.deepStrictEqual(yield* fourth.ack([three!]), [])
        assert.deepStrictEqual(yield* orphans, [])
      })
    )

    test(
      "crashes are remembered over a retry; a suspicion over a release, but not over an attempt",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "x")
        yield* soon(take(yield* join("first"), 1))
        const second = yield* join("second")
        const again = Effect.fnUntraced(function*(delivery: Broker.Delivery, attempt: number) {
          assert.deepStrictEqual(yield* second.redeliver([{ delivery, delayMillis: 0, attempt }]), [])
          assert.deepStrictEqual(yield* orphans, [])
          const [next] = yield* soon(take(second, 1))
          return next!
        })
        const [claimed] = yield* soon(claim(second, 1))
        yield* second.beginTrial([claimed!])
        const released = yield* again(claimed!, 1)
        assert.deepInclude(released, { attempt: 1, crashes: 0, isSuspect: true, deliveryCount: 3 })
        const retried = yield* again(released, 2)
        assert.deepInclude(retried, { attempt: 2, crashes: 0, isSuspect: false, deliveryCount: 4 })
        const third = yield* join("third")
        const [once] = yield* soon(claim(third, 1))
        yield* third.beginTrial([once!])
        const [twice] = yield* soon(claim(second, 1))
        assert.deepInclude(yield* again(twice!, 3), { attempt: 3, crashes: 1, isSuspect: true, deliveryCount: 7 })
      })
    )

    test(
      "a dead letter whose message crashed is under suspicion when it is sent back",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "x")
        const member = yield* join("first")
        const [one] = yield* soon(take(member, 1))
        yield* member.bury([{ delivery: one!, failure: { reason: "crashed", message: "" } }])
        yield* DeadLetters.requeueAll({}, { limit: 1 })
        const [again] = yield* soon(take(member, 1))
        assert.deepInclude(again, { attempt: 1, crashes: 0, isSuspect: true })
      })
    )
  })

  describe("Subscription: a message that kills its process", () => {
    /** Publishes messages that are lost with two consumers; the second one had begun them again. */
    const crashed = Effect.fnUntraced(function*(
      source: Channel.Channel<string, typeof Schema.String>,
      texts: ReadonlyArray<string>
    ) {
      yield* Publisher.publishAll(source, texts)
      yield* soon(take(yield* join("first", source), texts.length))
      const second = yield* join("second", source)
      assert.deepStrictEqual(yield* second.beginTrial(yield* soon(claim(second, texts.length))), [])
    })

    const good = Array.from({ length: 100 }, (_, n) => `good-${n}`)

    for (
      const options of [
        { concurrency: 1, prefetch: 0 },
        { concurrency: 4, prefetch: 10 },
        { concurrency: 32 },
        { concurrency: 4, prefetch: 0, exactlyOnce: true },
        { concurrency: 32, exactlyOnce: true },
        { concurrency: 4, transactional: true },
        { concurrency: 4, maxCrashes: 0 }
      ] as const
    ) {
      test(
        `is the only dead letter of 101: ${JSON.stringify(options)}`,
        Effect.gen(function*() {
          const handled = new Set<string>()
          let deaths = 0
          let isOver = false
          /** One of two processes of the group. Each is started again when it has died. */
          const process = Effect.gen(function*() {
            const { broker, die, died, isDead } = yield* mortal
            yield* Subscription.make(Text, {
              group: "g",
              lease: leaseMillis,
              ...options as { readonly concurrency: number },
              handler: ({ payload }) =>
                Effect.gen(function*() {
                  if (payload === "poison") return yield* die
                  yield* Effect.sleep(5)
                  if (!isDead()) handled.add(payload)
                })
            }).pipe(Effect.provideService(Broker.Broker, broker))
            yield* died
            deaths++
          }).pipe(Effect.scoped, Effect.repeat({ while: () => !isOver }))
          const texts = good.toSpliced(30, 0, "poison")
          yield* Publisher.publishAll(Text, texts)
          yield* Effect.forkScoped(process)
          yield* Effect.forkScoped(process)
          yield* until(
            backend,
            Effect.map(
              Effect.all([letters, leftover(Text)]),
              ([dead, left]) => dead.length > 0 && JSON.stringify(left) === JSON.stringify(nothingLeft)
            )
          )
          isOver = true
          const dead = yield* letters
          assert.deepStrictEqual(dead.map(({ failure, payload }) => [payload, failure.reason]), [[
            "\"poison\"",
            "crashed"
          ]])
          const most = "maxCrashes" in options ? 2 : 3
          assert.strictEqual(dead[0]!.crashes, most)
          // One more: the first death is not recorded.
          assert.strictEqual(deaths, most + 1)
          assert.deepStrictEqual([...handled].toSorted(), good.toSorted())
          assert.deepStrictEqual(yield* orphans, [])
        })
      )
    }

    test(
      "is tried alone, one after the other in a program: in one subscription, and in two",
      Effect.gen(function*() {
        yield* crashed(Text, ["a", "b"])
        yield* crashed(Other, ["c", "d"])
        const running = new Set<string>()
        const fresh: Array<string> = []
        const order: Array<ReadonlyArray<string>> = []
        const gates = yield* Queue.unbounded<void>()
        const handler = ({ payload }: { readonly payload: string }) =>
          Effect.gen(function*() {
            if (payload.startsWith("fresh")) return fresh.push(payload)
            running.add(payload)
            order.push([...running])
            yield* Queue.take(gates)
            running.delete(payload)
          })
        const first = yield* listen(Text, { group: "g", lease: leaseMillis, concurrency: 4, handler })
        const second = yield* listen(Other, { group: "g", lease: leaseMillis, concurrency: 4, handler })
        // Both subscriptions hold their suspects before the first handler ends.
        const held = Effect.map(
          Effect.all([first.subscription.stats, second.subscription.stats]),
          ([one, other]) => one.held + other.held
        )
        yield* until(backend, Effect.map(held, (count) => count === 4))
        for (let n = 1; n <= 4; n++) {
          yield* until(backend, Effect.sync(() => order.length >= n))
          // Messages that have not crashed are handled meanwhile.
          yield* Publisher.publish(Text, `fresh-${n}`)
          yield* until(backend, Effect.sync(() => fresh.length === n))
          yield* Queue.offer(gates, undefined)
        }
        assert.deepStrictEqual(order.map((some) => some.length), [1, 1, 1, 1])
        assert.deepStrictEqual(order.flat().toSorted(), ["a", "b", "c", "d"])
        yield* soon(first.subscription.drain)
        yield* soon(second.subscription.drain)
        assert.deepStrictEqual(yield* letters, [])
        assert.deepStrictEqual(yield* orphans, [])
      })
    )

    test(
      "one that hangs does not keep the others waiting for ever, and is not taken for what they do",
      Effect.gen(function*() {
        yield* crashed(Text, ["hangs", "kills"])
        const { broker, die, died } = yield* mortal
        const begun: Array<string> = []
        const scope = yield* Scope.make()
        yield* Subscription.make(Text, {
          group: "g",
          lease: leaseMillis,
          concurrency: 4,
          drainTimeout: 0,
          handler: ({ payload }) =>
            Effect.andThen(
              Effect.sync(() => begun.push(payload)),
              payload === "kills" ? die : Effect.never
            )
        }).pipe(Effect.provideService(Broker.Broker, broker), Scope.provide(scope))
        yield* until(backend, Effect.sync(() => begun.length === 1))
        yield* backend.advance(4_000)
        assert.deepStrictEqual(begun, ["hangs"])
        yield* backend.advance(1_200)
        yield* soon(died)
        yield* soon(Scope.close(scope, Exit.void))
        const third = yield* join("third")
        const left = yield* soon(claim(third, 2))
        assert.deepStrictEqual(
          Object.fromEntries(left.map(({ crashes, payload }) => [payload, crashes])),
          { "\"hangs\"": 1, "\"kills\"": 2 }
        )
        yield* third.ack(left)
        assert.deepStrictEqual(yield* orphans, [])
      })
    )

    test(
      "a suspect that is given back at the end is no crash",
      Effect.gen(function*() {
        yield* crashed(Text, ["a", "b"])
        const { seen, subscription } = yield* listen(Text, {
          group: "g",
          lease: leaseMillis,
          concurrency: 4,
          drainTimeout: 0,
          handler: () => Effect.never
        })
        yield* soon(Queue.take(seen))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* orphans, [])
        const next = yield* join("next")
        const again = yield* soon(take(next, 2))
        for (const { attempt, crashes, isSuspect } of again) {
          assert.deepStrictEqual({ attempt, crashes, isSuspect }, { attempt: 1, crashes: 1, isSuspect: true })
        }
        assert.deepStrictEqual(yield* next.ack(again), [])
        assert.deepStrictEqual(yield* orphans, [])
      })
    )
  })
}
