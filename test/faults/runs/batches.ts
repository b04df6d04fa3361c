/**
 * Batches under load: their consumers are killed with SIGKILL while they collect and while they handle, their connections are cut, and Redis
 * is killed and started again with all that it had stored. One message is bad: every batch with it fails. In the end each group has handled
 * everything but it, and it is the only dead letter of each group. One group handles batches in transactions, one through the Promise API.
 */
import { Effect, Random } from "effect"
import { Publisher, Rotif, Transaction } from "rotif"
import { letters } from "../../contract/kit.ts"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as TcpProxy from "../../fixtures/TcpProxy.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, sound, until } from "../Run.ts"
import { effectOf, type Job, Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const lease = 1_000
const bad = "bad-0"
const groups = ["plain", "whole", "promise"] as const

export default {
  number: 25,
  title: "Batches with one bad message: SIGKILL, cuts, restarts of Redis",
  recoveryWithin: lease + 2_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const plan = yield* Effect.all(Array.from({ length: isShort ? 3 : 12 }, (_, i) =>
      Effect.all({
        kind: Effect.succeed((["kill", "cut", "restart"] as const)[i % 3]!),
        victim: Random.nextIntBetween(0, groups.length * 2, { halfOpen: true }),
        after: Random.nextIntBetween(50, 400)
      })))
    const size = yield* Random.nextIntBetween(5, 60)
    const within = yield* Random.nextIntBetween(5, 120)
    const handlerMillis = yield* Random.nextIntBetween(1, 60)
    const server = yield* RedisServer.make({ appendonly: "yes", appendfsync: "always" })
    const proxy = yield* TcpProxy.make(server)
    const recorder = new Recorder()
    const direct = { url: server.url, prefix: "batches" }
    let started = 0
    const begin = (role: number) => {
      const group = groups[role % groups.length]!
      const consumer = {
        name: `${group}${started++}`,
        group,
        lease,
        handlerMillis,
        concurrency: 2,
        tellsBegun: true,
        failsOf: bad,
        maxRetries: 4,
        transactional: group === "whole",
        batch: { size, within, byPromise: group === "promise" }
      }
      const job: Job = { rotif: { ...direct, url: proxy.url }, consumer }
      return Workers.start(job, recorder)
    }
    const recoveries: Array<number> = []
    return yield* Effect.gen(function*() {
      const workers = yield* Effect.forEach([0, 1, 2, 3, 4, 5], begin)
      yield* Effect.forEach(workers, ({ ready }) => ready, { concurrency: 6 })
      const publisher = yield* Workers.start({ rotif: direct, publisher: { name: "p", everyMillis: 3 } }, recorder)
      yield* publisher.ready
      yield* Publisher.publish(Work, bad)
      recorder.told(bad)
      for (const { after, kind, victim } of plan) {
        yield* Effect.sleep(after)
        const at = Date.now()
        if (kind === "kill") {
          const worker = workers[victim]!
          const { group, name } = worker.job.consumer!
          yield* worker.kill("SIGKILL")
          yield* worker.ended
          // Not the bad one: it may have become a dead letter, or wait for its next attempt.
          const held = recorder.heldBy(name).filter((text) => text !== bad)
          workers[victim] = yield* begin(victim)
          yield* until(
            `another consumer has begun with ${held.length} messages of ${name}`,
            Effect.sync(() => held.every((text) => recorder.begunAfter(at, group, text) !== undefined))
          )
          const back = held.map((text) => recorder.begunAfter(at, group, text)!)
          if (back.length > 0) recoveries.push(Math.max(...back) - at)
          yield* workers[victim].ready
        } else if (kind === "cut") {
          yield* proxy.cut
        } else {
          yield* server.kill
          yield* Effect.sleep(100)
          yield* server.restart
        }
      }
      yield* publisher.kill("SIGKILL")
      yield* publisher.ended
      const left = yield* settled(Work)
      for (const worker of workers) yield* worker.kill("SIGTERM")
      yield* Effect.forEach(workers, ({ ended }) => ended)
      const wrong = yield* sound()
      const dead = yield* letters
      const violations = groups.flatMap((group) => {
        const mine = dead.filter((letter) => letter.group === group)
        return mine.length === 1 && mine[0]!.payload === JSON.stringify(bad)
          ? []
          : [`the dead letters of ${group} are ${mine.map(({ payload }) => payload).join(", ")}, not ${bad} alone`]
      })
      // The effect of each message of a transactional batch happened once.
      for (const text of recorder.toldBetween(0)) {
        const effect = yield* Effect.flatMap(Transaction.keyFor(Work, effectOf(text)), Transaction.read)
        const expected = text === bad ? undefined : "1"
        if (effect !== expected) violations.push(`I2: the effect of ${text} is ${JSON.stringify(effect)}`)
      }
      const account = recorder.account({ groups: [...groups], isKept: (_, text) => text === bad })
      const failures = workers.flatMap((worker) => worker.failure() ?? [])
      return {
        ...account,
        faults: plan.length,
        recoveries,
        violations: [...account.violations, ...violations, ...left, ...wrong, ...failures].map((text) =>
          `${JSON.stringify({ size, within, handlerMillis })}: ${text}`
        )
      }
    }).pipe(Effect.provide(Rotif.layer(direct)))
  })
} satisfies Run
