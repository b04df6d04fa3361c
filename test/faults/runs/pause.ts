/**
 * A group is paused and resumed under load, while its consumers are killed, frozen beyond their lease, or cut off, Redis is killed, and its
 * scripts are flushed. While it is paused nothing of it is begun, later than the stated bound after the pause; another group goes on; at the
 * end nothing is lost.
 */
import { Effect, Random } from "effect"
import { Groups, Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as TcpProxy from "../../fixtures/TcpProxy.ts"
import { type Handled, Recorder } from "../Recorder.ts"
import { type Run, settled, sound, until } from "../Run.ts"
import { type Job, Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const lease = 1_000

/** One that is cut off or frozen begins nothing later than this after the pause. */
const bound = lease

/** A pause in which nothing fails is known to all consumers after this long; the rest is for a busy machine. */
const knownWithin = 500

const faults = ["nothing", "kill", "freeze", "cut", "restart", "flush"] as const

export default {
  number: 23,
  title: "a group is paused while consumers are killed, frozen and cut off, and Redis is killed",
  recoveryWithin: lease + 2_000,
  body: Effect.fnUntraced(function*({ isShort, patience }) {
    const plan = yield* Effect.all(Array.from({ length: isShort ? 6 : 18 }, (_, i) =>
      Effect.all({
        fault: Effect.succeed(faults[i % faults.length]!),
        isBefore: Random.nextBoolean,
        victim: Random.nextIntBetween(0, 2, { halfOpen: true }),
        after: Random.nextIntBetween(100, 400),
        longer: Random.nextIntBetween(200, 800)
      })))
    const server = yield* RedisServer.make({ appendonly: "yes", appendfsync: "always" })
    const proxy = yield* TcpProxy.make(server)
    const recorder = new Recorder()
    const direct = { url: server.url, prefix: "pause", graceMillis: 600_000 }
    const begun: Array<Handled> = []
    const violations: Array<string> = []
    const recoveries: Array<number> = []
    let started = 0
    const start = (job: Job) =>
      Workers.start(job, recorder, { onEvent: (event) => void (event.event === "begun" && begun.push(event)) })
    const consumer = (group: string, rotif: Job["rotif"]) =>
      start({
        rotif,
        consumer: {
          group,
          name: `${group}${started++}`,
          lease,
          concurrency: 4,
          prefetch: 8,
          handlerMillis: 20,
          tellsBegun: true
        }
      })
    // The second consumer of the group reaches Redis through the proxy.
    const placeOf = (victim: number): Job["rotif"] => victim === 0 ? direct : { ...direct, url: proxy.url }
    return yield* Effect.gen(function*() {
      const workers = yield* Effect.forEach([0, 1], (victim) => consumer("a", placeOf(victim)))
      const other = yield* consumer("other", direct)
      yield* Effect.forEach([...workers, other], ({ ready }) => ready, { concurrency: 3 })
      const publisher = yield* start({ rotif: direct, publisher: { name: "p", everyMillis: 6, delayMillis: 300 } })
      yield* publisher.ready
      for (const [round, { after, fault, isBefore, longer, victim }] of plan.entries()) {
        // What the last fault left handed out has been taken over by now.
        yield* Effect.sleep(lease + lease + after)
        let thaw = Effect.void
        const strike = Effect.gen(function*() {
          if (fault === "kill") {
            yield* workers[victim]!.kill("SIGKILL")
            yield* workers[victim]!.ended
            workers[victim] = yield* consumer("a", placeOf(victim))
            yield* workers[victim]!.ready
          } else if (fault === "freeze") {
            yield* workers[victim]!.kill("SIGSTOP")
            thaw = workers[victim]!.kill("SIGCONT")
          } else if (fault === "cut") {
            yield* proxy.refuse
            yield* proxy.cut
            thaw = proxy.accept
          } else if (fault === "restart") {
            yield* server.kill
            yield* server.restart
          } else if (fault === "flush") yield* server.command("script", "flush")
        })
        if (isBefore) yield* strike
        yield* Groups.pause("a", { reason: `round ${round}` }).pipe(
          Effect.retry({ times: 100, while: ({ _tag }) => _tag === "BrokerError" })
        )
        const pausedAt = Date.now()
        if (!isBefore) yield* strike
        yield* Effect.sleep(lease + longer)
        yield* thaw
        // What was frozen or cut off is back, and finds that the group is paused.
        yield* Effect.sleep(lease)
        const wasQuiet = yield* Groups.isQuiet("a")
        const quietAt = Date.now()
        yield* Effect.sleep(100)
        const late = begun.filter(({ at, group }) => group === "a" && at > pausedAt)
        const allowed = fault === "nothing" || fault === "flush" ? Math.min(bound, knownWithin * patience) : bound
        const wrong = late.filter(({ at }) => at > pausedAt + allowed || (wasQuiet && at > quietAt))
        if (wrong.length > 0) {
          violations.push(
            `round ${round} (${fault}): ${wrong.length} begun while the group was paused, the last one ${
              Math.max(...wrong.map(({ at }) => at)) - pausedAt
            } ms after the pause`
          )
        }
        // A consumer that was killed, or whose settlements went down with Redis, leaves messages that are handed out.
        if (!wasQuiet && (fault === "nothing" || fault === "flush")) violations.push(`round ${round}: it was not quiet`)
        if (!recorder.deliveries.some(({ at, group }) => group === "other" && at > pausedAt + allowed)) {
          violations.push(`round ${round} (${fault}): the other group has stopped`)
        }
        const resumedAt = Date.now()
        yield* Groups.resume("a")
        yield* until(
          `the group goes on in round ${round} (${fault})`,
          Effect.sync(() => recorder.firstAfter(resumedAt, "a") !== undefined)
        )
        recoveries.push(recorder.firstAfter(resumedAt, "a")!.at - resumedAt)
      }
      yield* publisher.kill("SIGKILL")
      violations.push(...(yield* settled(Work)))
      for (const worker of [...workers, other]) yield* worker.kill("SIGTERM")
      yield* Effect.forEach([...workers, other, publisher], ({ ended }) => ended)
      const failures = [...workers, other].flatMap((worker) => worker.failure() ?? [])
      const account = recorder.account({ groups: ["a", "other"] })
      return {
        ...account,
        faults: plan.length,
        recoveries,
        violations: [...account.violations, ...violations, ...failures, ...(yield* sound())]
      }
    }).pipe(Effect.provide(Rotif.layer(direct)))
  })
} satisfies Run
