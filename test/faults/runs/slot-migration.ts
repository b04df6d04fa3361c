/**
 * The slot of a channel moves from node to node, key by key, while messages are published and handled; and the Cluster goes down with a
 * master that has no replica, until it is back.
 */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as Keys from "../../../src/redisBroker/keys.ts"
import * as RedisCluster from "../../fixtures/RedisCluster.ts"
import type { RedisServer } from "../../fixtures/RedisServer.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, until } from "../Run.ts"
import { Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const prefix = "migration"
const shards = 8
const groups = ["a", "b"]

/** Moves a slot as `redis-cli --cluster reshard` does, slowly: until the last key has moved, some are here and some are there. */
const migrate = Effect.fnUntraced(function*(
  slot: number,
  from: RedisServer,
  to: RedisServer,
  others: ReadonlyArray<RedisServer>,
  pauseMillis: number
) {
  const [fromId, toId] = yield* Effect.all([from.command("cluster", "myid"), to.command("cluster", "myid")])
  yield* to.command("cluster", "setslot", slot, "importing", String(fromId))
  yield* from.command("cluster", "setslot", slot, "migrating", String(toId))
  while (true) {
    const keys = (yield* from.command("cluster", "getkeysinslot", slot, 1)) as ReadonlyArray<string>
    if (keys.length === 0) break
    yield* from.command("migrate", to.host, to.port, "", 0, 5_000, "keys", ...keys)
    yield* Effect.sleep(pauseMillis)
  }
  for (const node of [to, from, ...others]) yield* node.command("cluster", "setslot", slot, "node", String(toId))
})

/** How often a server has answered with this error. */
const answered = (nodes: ReadonlyArray<RedisServer>, code: string) =>
  Effect.map(
    Effect.forEach(nodes, (node) => node.command("info", "errorstats")),
    (stats) =>
      stats.reduce<number>(
        (sum, text) => sum + Number(new RegExp(`errorstat_${code}:count=(\\d+)`).exec(String(text))?.[1] ?? 0),
        0
      )
  )

export default {
  number: 8,
  title: "Slots of a Cluster migrate (MOVED, ASK, TRYAGAIN); a master is down (CLUSTERDOWN)",
  recoveryWithin: 3_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const plan = yield* Effect.all(
      Array.from({ length: isShort ? 1 : 8 }, () =>
        Effect.all({
          before: Random.nextIntBetween(100, 400),
          pause: Random.nextIntBetween(20, 60),
          target: Random.nextIntBetween(1, 3, { halfOpen: true })
        }))
    )
    const cluster = yield* RedisCluster.make({
      config: { "cluster-node-timeout": "1000", appendonly: "yes", appendfsync: "always" }
    })
    const { nodes } = cluster
    const slot = Number(
      yield* cluster.node(0).command("cluster", "keyslot", Keys.make(prefix, Keys.shardOf(Work.name, shards)).meta)
    )
    let owner = nodes.findIndex((_, i) => slot < Math.floor(16_384 * (i + 1) / nodes.length))
    const rotif: Rotif.RedisOptions = { cluster: nodes.map(({ host, port }) => ({ host, port })), prefix, shards }
    const recorder = new Recorder()
    const recoveries: Array<number> = []
    const recovered = (at: number) =>
      until(
        "a message is handled again",
        Effect.sync(() => {
          const first = recorder.firstAfter(at)
          if (first !== undefined) recoveries.push(first.at - at)
          return first !== undefined
        })
      )
    return yield* Effect.gen(function*() {
      const consumers = yield* Effect.forEach(
        groups,
        (group) => Workers.start({ rotif, consumer: { group, name: `of ${group}` } }, recorder)
      )
      yield* Effect.forEach(consumers, ({ ready }) => ready, { concurrency: 2 })
      const publishers = yield* Effect.forEach(
        [{ name: "now" }, { name: "later", delayMillis: 300 }],
        (publisher) => Workers.start({ rotif, publisher }, recorder)
      )
      yield* until("messages are published", Effect.sync(() => recorder.messages >= 20))
      for (const { before, pause, target } of plan) {
        yield* Effect.sleep(before)
        const to = (owner + target) % nodes.length
        const others = nodes.filter((_, i) => i !== owner && i !== to)
        yield* migrate(slot, cluster.node(owner), cluster.node(to), others, pause)
        const at = Date.now()
        owner = to
        yield* recovered(at)
      }
      const [asks, again] = yield* Effect.all([answered(nodes, "ASK"), answered(nodes, "TRYAGAIN")])

      // Without its slots the whole Cluster serves nobody, and the owner of the channel says so.
      const victim = cluster.node((owner + 1) % nodes.length)
      const state = Effect.map(cluster.node(owner).command("cluster", "info"), String)
      yield* victim.kill
      yield* until("the Cluster is down", Effect.map(state, (text) => text.includes("cluster_state:fail")))
      yield* Effect.sleep(isShort ? 300 : 2_000)
      const downs = yield* answered([cluster.node(owner)], "CLUSTERDOWN")
      yield* victim.restart
      yield* until("the Cluster is back", Effect.map(state, (text) => text.includes("cluster_state:ok")))
      yield* recovered(Date.now())

      for (const worker of publishers) yield* worker.kill("SIGKILL")
      yield* Effect.forEach(publishers, ({ ended }) => ended)
      const left = yield* settled(Work)
      for (const worker of consumers) yield* worker.kill("SIGTERM")
      yield* Effect.forEach(consumers, ({ ended }) => ended)
      const account = recorder.account({ groups })
      return {
        ...account,
        faults: plan.length + 1,
        recoveries,
        violations: [
          ...account.violations,
          ...left,
          ...Object.entries({ ASK: asks, TRYAGAIN: again, CLUSTERDOWN: downs })
            .filter(([, count]) => count === 0)
            .map(([code]) => `nobody was answered ${code}: the fault was none`)
        ]
      }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
