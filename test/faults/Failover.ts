/**
 * Shared by the failover runs: a master under load is cut off from its replica and killed, and the replica takes over. Messages that were
 * acknowledged in between are lost with the master, unless publishers wait for the replica.
 */
import type { Scope } from "effect"
import { Effect, Random, Schedule } from "effect"
import { Rotif } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisSentinel from "../fixtures/RedisSentinel.ts"
import type { RedisServer, RedisServerError } from "../fixtures/RedisServer.ts"
import { Recorder } from "./Recorder.ts"
import { type Run, settled, until } from "./Run.ts"
import { Work } from "./worker.ts"
import * as Workers from "./Workers.ts"

/** Servers, among them the master of the channel and its replica. */
export interface Site {
  readonly rotif: Rotif.RedisOptions
  /** The master of the channel now, and the replica that will take over. */
  readonly pair: Effect.Effect<{ readonly master: RedisServer; readonly replica: RedisServer }, RedisServerError>
  /** Whether all that decide about roles know the new master. Until then they may make the old one the master again. */
  readonly isAgreed: (master: RedisServer) => Effect.Effect<boolean, RedisServerError>
  /** Their view, for an error. */
  readonly said: Effect.Effect<string, RedisServerError>
}

/** A Sentinel that changes the role of a server closes all connections to it, also those of this run. */
const ask = (server: RedisServer, name: string, ...args: ReadonlyArray<string>) =>
  Effect.retry(server.command(name, ...args), { times: 10, schedule: Schedule.spaced(20) })

const replication = (server: RedisServer) => Effect.map(ask(server, "info", "replication"), String)

/** Cuts a replica off: it cannot log in to its master, receives nothing more, and can still take over. */
const cutOff = (replica: RedisServer) =>
  Effect.andThen(
    ask(replica, "config", "set", "masterauth", "none"),
    ask(replica, "client", "kill", "type", "master")
  )

/** A Sentinel makes the servers save their configuration, so that it must be restored there too. */
const heal = (replica: RedisServer) =>
  Effect.andThen(ask(replica, "config", "set", "masterauth", ""), ask(replica, "config", "rewrite"))

/** Scheduled messages are due this many milliseconds later: after the master is killed. */
const delayMillis = 1_500

export const failover = (options: {
  readonly number: number
  readonly title: string
  /** Whether publishes wait for the replica, and nothing is lost. If not, a run without losses had no fault. */
  readonly isDurable: boolean
  readonly faults: { readonly short: number; readonly long: number }
  readonly site: Effect.Effect<Site, RedisServerError, Scope.Scope>
}): Run => ({
  number: options.number,
  title: options.title,
  recoveryWithin: 3_000,
  mayLose: !options.isDurable,
  body: Effect.fnUntraced(function*({ isShort }) {
    const plan = yield* Effect.all(
      Array.from(
        { length: isShort ? options.faults.short : options.faults.long },
        () => Effect.all({ before: Random.nextIntBetween(100, 600), cut: Random.nextIntBetween(100, 500) })
      )
    )
    const site = yield* options.site
    const rotif: Rotif.RedisOptions = {
      ...site.rotif,
      ...(options.isDurable ? { durability: { replicas: 1, timeout: 500 } } : {})
    }
    const recorder = new Recorder()
    const recoveries: Array<number> = []
    const violations: Array<string> = []
    return yield* Effect.gen(function*() {
      const consumers = yield* Effect.forEach(
        ["a", "b"],
        (group) => Workers.start({ rotif, consumer: { group, name: `of ${group}` } }, recorder)
      )
      yield* Effect.forEach(consumers, ({ ready }) => ready, { concurrency: 2 })
      const publishers = yield* Effect.forEach(
        [{ name: "now" }, { name: "later", delayMillis }],
        (publisher) => Workers.start({ rotif, publisher }, recorder)
      )
      for (const { before, cut } of plan) {
        const start = recorder.messages
        yield* until("messages are published", Effect.sync(() => recorder.messages >= start + 20))
        yield* Effect.sleep(before)
        const { master, replica } = yield* site.pair
        yield* cutOff(replica)
        const whole = recorder.messages
        yield* Effect.sleep(cut)
        if (!options.isDurable) {
          yield* until("what the replica misses is acknowledged", Effect.sync(() => recorder.messages >= whole + 20))
        }
        yield* master.kill
        yield* until(
          "the replica took over",
          Effect.map(ask(replica, "role"), (role) => String(role).startsWith("master"))
        )
        const at = Date.now()
        yield* until(
          "a message is handled again",
          Effect.sync(() => {
            // One that the new master has stored: others may have been held by their consumers all the time.
            const first = recorder.deliveries.find((one) => one.at >= at && (one.publishedAt ?? 0) >= at)
            if (first !== undefined) recoveries.push(first.at - at)
            return first !== undefined
          })
        )
        yield* heal(replica)
        yield* until("all agree on the new master", site.isAgreed(replica))
        yield* master.restart
        yield* until(
          "the old master follows the new one",
          Effect.map(
            replication(master),
            (info) => info.includes("role:slave") && info.includes("master_link_status:up")
          )
        ).pipe(Effect.catchDefect((defect) =>
          Effect.flatMap(
            Effect.all([replication(master), replication(replica), site.said]),
            (texts) => Effect.die(new Error([String(defect), ...texts].join("\n")))
          )
        ))
      }
      for (const worker of publishers) yield* worker.kill("SIGKILL")
      yield* Effect.forEach(publishers, ({ ended }) => ended)
      violations.push(...yield* settled(Work))
      for (const worker of consumers) yield* worker.kill("SIGTERM")
      yield* Effect.forEach(consumers, ({ ended }) => ended)
      const account = recorder.account({ groups: ["a", "b"] })
      if (!options.isDurable && account.lost === 0) {
        violations.push("nothing was lost: the fault was none, and says nothing about durability")
      }
      return {
        ...account,
        faults: plan.length,
        recoveries,
        // Lost messages are those that were acknowledged and not replicated.
        violations: [
          ...account.violations.filter((violation) => options.isDurable || !violation.startsWith("I1")),
          ...violations
        ]
      }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
})

const isMaster = (server: RedisServer): Effect.Effect<boolean, RedisServerError> =>
  Effect.map(replication(server), (info) => info.includes("role:master"))

/** A master and a replica, watched by three Sentinels. */
export const withSentinels: Effect.Effect<Site, RedisServerError, Scope.Scope> = Effect.map(
  RedisSentinel.make(),
  ({ master: first, name, options, replicas: [second], sentinels }) => ({
    rotif: { ...options, prefix: "failover" },
    isAgreed: ({ port }) =>
      Effect.map(
        Effect.forEach(sentinels, (sentinel) => ask(sentinel, "sentinel", "get-master-addr-by-name", name)),
        (all) => all.every((address) => (address as ReadonlyArray<string>)[1] === String(port))
      ),
    said: Effect.map(
      Effect.forEach(
        sentinels,
        (sentinel) => Effect.all([ask(sentinel, "info", "sentinel"), ask(sentinel, "sentinel", "replicas", name)])
      ),
      (all) => all.map(([info, replicas]) => `${String(info)}${String(replicas)}`).join("\n")
    ),
    pair: Effect.map(
      isMaster(first),
      (isFirst) => isFirst ? { master: first, replica: second! } : { master: second!, replica: first }
    )
  })
)

/** Three masters with a replica each; the channel is in one of them. */
export const inCluster: Effect.Effect<Site, RedisServerError, Scope.Scope> = Effect.gen(function*() {
  const cluster = yield* RedisCluster.make({ replicas: 1, config: { "cluster-node-timeout": "1000" } })
  const prefix = "failover"
  const shards = 8
  const slot = yield* cluster.node(0).command(
    "cluster",
    "keyslot",
    Keys.make(prefix, Keys.shardOf(Work.name, shards)).meta
  )
  const owner = cluster.nodes.slice(0, 3).findIndex((_, i) => Number(slot) < Math.floor(16_384 * (i + 1) / 3))
  const [first, second] = [cluster.node(owner), cluster.node(owner + 3)]
  return {
    rotif: { cluster: cluster.nodes.map(({ host, port }) => ({ host, port })), prefix, shards },
    // A master that comes back finds out that a newer one has its slots.
    isAgreed: () => Effect.succeed(true),
    said: Effect.map(ask(second, "cluster", "nodes"), String),
    pair: Effect.map(
      isMaster(first),
      (isFirst) => isFirst ? { master: first, replica: second } : { master: second, replica: first }
    )
  }
})
