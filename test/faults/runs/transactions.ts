/**
 * A chain of transactions whose processes are killed and whose connections are cut: on one server, and on a Cluster, where what a
 * transaction publishes waits in an outbox for whoever relays it to the shard of its channel.
 */
import { Effect, Fiber, Layer, Random, Struct } from "effect"
import type { Rotif } from "rotif"
import { Broker, Channel, Inspector, Publisher, Redis, RedisBroker } from "rotif"
import * as RedisCluster from "../../fixtures/RedisCluster.ts"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as TcpProxy from "../../fixtures/TcpProxy.ts"
import { A, B, C, countOf, effectOf } from "../chain.ts"
import { happens, type Outcome, type Run, settled, sound, until } from "../Run.ts"
import * as Workers from "../Workers.ts"

const lease = 1_000
const processes = 3
const shards = 8
const prefix = "chain"
const steps = [A, B, C]

interface Blow {
  /** When so many steps of all have been taken. */
  readonly at: number
  readonly kind: "kill" | "cut" | "relayers"
  readonly victim: number
}

interface Place {
  /** At least so many, and as many as it takes for the chain to have work under each blow. */
  readonly least: number
  readonly blows: ReadonlyArray<Blow>
  /** As the processes reach it, through proxies, and directly. */
  readonly through: Rotif.RedisOptions
  readonly direct: Rotif.RedisOptions
  readonly cut: Effect.Effect<unknown>
  /**
   * Holds up relaying until something waits for it; what it gives lets it go on, to be done when all relayers are gone, and tells how
   * many messages waited then.
   */
  readonly hold?: (
    publish: Effect.Effect<unknown, unknown, Publisher.Publisher>
  ) => Effect.Effect<Effect.Effect<number, unknown>, unknown, Publisher.Publisher>
}

/** How far ahead of the chain its messages are published, and how many at a time. */
const ahead = 300
const batch = 100

/** A publisher and the way to look, without any of the duties of the processes that are killed. */
const layer = (options: Rotif.RedisOptions) =>
  Layer.mergeAll(Publisher.layer(), Inspector.layer()).pipe(
    Layer.provideMerge(RedisBroker.layer(Struct.pick(options, ["prefix", "shards", "graceMillis"]))),
    Layer.provideMerge(
      Redis.layer(Struct.omit(options, ["prefix", "shards", "graceMillis", "trimInterval"]) as Redis.Options)
    )
  )

const chain = Effect.fnUntraced(function*({ blows, cut, direct, hold, least, through }: Place) {
  const begin = Workers.spawnProgram("chain.ts", through, () => {})
  const body = Effect.gen(function*() {
    const broker = yield* Broker.Broker
    const counts = Effect.forEach(
      steps,
      (channel) =>
        Effect.map(broker.own.read(broker.own.keyFor(channel.name, countOf(channel))), (value) => Number(value ?? 0))
    )
    const taken = Effect.map(counts, (each) => each.reduce((a, b) => a + b))
    const workers = yield* Effect.replicateEffect(begin, processes)
    const allReady = Effect.suspend(() =>
      Effect.forEach(workers, ({ ready }) => ready, { concurrency: processes, discard: true })
    )
    yield* allReady
    let published = 0
    const publish = (many: number) =>
      Effect.suspend(() => {
        const from = published
        published += many
        return Publisher.publishAll(A, Array.from({ length: many }, (_, i) => from + i))
      })
    let isOver = false
    const publishing = yield* Effect.forkScoped(Effect.gen(function*() {
      while (!isOver || published < least) {
        yield* until("the chain catches up", Effect.map(counts, ([first]) => published - first! < ahead))
        yield* publish(batch)
      }
    }))
    // A process whose connections are cut while it starts ends by itself; whoever runs such a service starts it again.
    const startAgain = Effect.gen(function*() {
      for (const [i, worker] of workers.entries()) if (!worker.isRunning()) workers[i] = yield* begin
    })
    const recoveries: Array<number> = []
    const violations: Array<string> = []
    for (const { at, kind, victim } of blows) {
      yield* until(`${at} steps are taken`, Effect.andThen(startAgain, Effect.map(taken, (count) => count >= at)))
      if (kind === "cut") yield* cut
      else if (kind === "kill") yield* workers[victim]!.kill("SIGKILL")
      else if (hold !== undefined) {
        yield* allReady
        const goOn = yield* hold(publish(batch))
        yield* Effect.forEach(workers, (worker) => worker.kill("SIGKILL"))
        yield* Effect.forEach(workers, (worker) => worker.ended)
        if ((yield* goOn) === 0) violations.push("the relayers were killed, and no message waited for them")
        yield* startAgain
        yield* allReady
      }
      const ended = performance.now()
      const before = yield* taken
      yield* until("the chain goes on", Effect.andThen(startAgain, Effect.map(taken, (count) => count > before)))
      recoveries.push(performance.now() - ended)
    }
    isOver = true
    yield* until(
      "all is published",
      Effect.andThen(startAgain, Effect.sync(() => publishing.pollUnsafe() !== undefined))
    )
    yield* Fiber.join(publishing)
    const messages = published
    // If it does not happen, the account tells what is missing.
    yield* happens(
      Effect.andThen(startAgain, Effect.map(taken, (count) => count >= messages * steps.length)),
      60_000
    )
    const left = yield* settled(Channel.union(steps), { within: 10_000 })
    const wrong = yield* sound()
    for (const worker of workers) yield* worker.kill("SIGKILL")
    const effects = yield* Effect.forEach(
      Array.from({ length: messages }, (_, n) => n),
      (n) => broker.own.read(broker.own.keyFor(C.name, effectOf(n))),
      { concurrency: 100 }
    )
    const lost = effects.filter((value) => value === undefined).length
    const repeated = effects.filter((value) => value !== undefined && value !== "1").length
    const counted = yield* counts
    // What is relayed twice would be stored twice, though it would be handled once.
    const stored = (yield* broker.stats.read(Channel.selector(Channel.union(steps)))).map((one) => one.published)
    const { dead } = yield* broker.info(Channel.selector(Channel.union(steps)))
    return {
      messages,
      faults: blows.length,
      lost,
      repeated,
      recoveries,
      violations: [
        ...violations,
        ...left,
        ...wrong,
        ...(lost > 0 ? [`I1: ${lost} of ${messages} did not come to the end of the chain`] : []),
        ...(repeated > 0 ? [`I2: ${repeated} effects happened more than once`] : []),
        ...(counted.every((count) => count === messages) ? [] : [`I2: the steps counted ${counted.join(", ")}`]),
        ...(stored.every((count) => count === messages)
          ? []
          : [`I2: the channels have had ${stored.join(", ")} messages`]),
        ...(dead > 0 ? [`I1: ${dead} dead letters`] : [])
      ]
    } satisfies Outcome
  })
  return yield* Effect.scoped(body).pipe(Effect.provide(layer(direct)))
})

/** The master of B is stopped: what the first step publishes to it waits in the outbox of A's shard, on another master. */
const holdOf = Effect.fnUntraced(function*(cluster: RedisCluster.RedisCluster) {
  const broker = yield* Broker.Broker
  const placeOf = Effect.fnUntraced(function*({ name }: Channel.Any) {
    const [shard] = broker.shardsOf({ _tag: "Channels", names: [name] })
    const outbox = `{${prefix}:${shard}}:outbox`
    const slot = Number(yield* cluster.node(0).command("cluster", "keyslot", outbox))
    return { outbox, node: cluster.node(Math.floor(slot * cluster.nodes.length / 16_384)) }
  })
  const [source, target] = [yield* placeOf(A), yield* placeOf(B)]
  if (source.node === target.node) return yield* Effect.die(new Error("A and B are on one master: rename one"))
  const waiting = Effect.map(source.node.command("xlen", source.outbox), Number)
  return Effect.fnUntraced(function*(publish: Effect.Effect<unknown, unknown, Publisher.Publisher>) {
    yield* target.node.stop
    yield* publish
    yield* until("a message waits in the outbox", Effect.map(waiting, (count) => count > 0))
    return Effect.tap(waiting, () => target.node.cont)
  })
})

export default {
  number: 1,
  title: "SIGKILL and cuts in a chain of transactions, on one server and relayed over a Cluster",
  recoveryWithin: lease + 1_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const least = isShort ? 400 : 1_500
    const plan = Effect.fnUntraced(function*(kinds: ReadonlyArray<Blow["kind"]>) {
      const blows = yield* Effect.forEach(kinds, (kind) =>
        Effect.gen(function*() {
          return {
            kind,
            at: yield* Random.nextIntBetween(1, least * 2),
            victim: yield* Random.nextIntBetween(0, processes, { halfOpen: true })
          }
        }))
      return blows.sort((a, b) => a.at - b.at)
    })
    const many = (kind: Blow["kind"], short: number, long: number) =>
      Array.from({ length: isShort ? short : long }, () => kind)
    const onServer = yield* plan([...many("kill", 2, 6), ...many("cut", 2, 4)])
    const onCluster = yield* plan([...many("kill", 1, 3), ...many("cut", 1, 3), ...many("relayers", 1, 2)])

    const server = yield* RedisServer.make()
    const proxy = yield* TcpProxy.make(server)
    const options = { prefix, trimInterval: "2 seconds" } as const
    const first = yield* chain({
      least,
      blows: onServer,
      through: { ...options, url: proxy.url },
      direct: { ...options, url: server.url },
      cut: proxy.cut
    })

    // A master that is stopped is not to be given up by the others: that is another run.
    const cluster = yield* RedisCluster.make({ config: { "cluster-node-timeout": "60000" } })
    const { natMap, proxies } = yield* TcpProxy.makeCluster(cluster)
    const clusterOptions = { ...options, shards } as const
    const direct = { ...clusterOptions, cluster: cluster.nodes.map(({ host, port }) => ({ host, port })) }
    const second = yield* chain({
      least,
      blows: onCluster,
      through: { ...clusterOptions, cluster: proxies.map(({ port }) => ({ host: "127.0.0.1", port })), natMap },
      direct,
      cut: Effect.forEach(proxies, (one) => one.cut),
      hold: yield* holdOf(cluster).pipe(Effect.provide(layer(direct)))
    })
    return {
      messages: first.messages + second.messages,
      faults: first.faults + second.faults,
      lost: first.lost + second.lost,
      repeated: first.repeated + second.repeated,
      recoveries: [...first.recoveries, ...second.recoveries],
      violations: [
        ...first.violations.map((text) => `on a server: ${text}`),
        ...second.violations.map((text) => `on a Cluster: ${text}`)
      ]
    }
  })
} satisfies Run
