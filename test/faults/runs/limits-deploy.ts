/**
 * A rolling deploy that raises a limit, or takes it away: processes with the old definition of a channel and with the new one publish to it
 * side by side, are killed and started again, while the group is away for most of the time. What one definition keeps is removed by none.
 */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, sound, until } from "../Run.ts"
import { type Role, Work } from "../worker.ts"
import * as Workers from "../Workers.ts"

const oldLength = 50

export default {
  number: 20,
  title: "Rolling deploys that raise a limit or take it away, with SIGKILL of old and new processes",
  recoveryWithin: 3_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const plan = yield* Effect.all(Array.from({ length: isShort ? 6 : 16 }, () =>
      Effect.all({
        kind: Effect.map(Random.nextIntBetween(0, 3, { halfOpen: true }), (i) =>
          (["old", "new", "consumer"] as const)[i]!),
        after: Random.nextIntBetween(50, 400)
      })))
    const isTakenAway = yield* Random.nextBoolean
    const server = yield* RedisServer.make()
    const recorder = new Recorder()
    // The janitor comes as often as it may: what it removes wrongly is gone before the group is back.
    const rotif = { url: server.url, prefix: "deploy", trimInterval: 100, graceMillis: 100 }
    const key = (name: string) => `{deploy:0}:${name}`
    const length = Effect.map(server.command("xlen", key("log:work")), Number)
    const version = Effect.map(server.command("hget", key("meta"), "v"), Number)
    let started = 0
    let told = 0
    const begin = (role: (name: string) => Role) =>
      Workers.start({ rotif, ...role(`p${started++}`) }, recorder, {
        onEvent: (event) => {
          if (event.event === "log" && event.text.includes("different limits")) told++
        }
      })
    const old = (name: string): Role => ({ publisher: { name, everyMillis: 4, maxLength: oldLength } })
    const fresh = (name: string): Role => ({
      publisher: { name, everyMillis: 4, maxLength: isTakenAway ? undefined : 1_000_000 }
    })
    const consumer = (name: string): Role => ({ consumer: { group: "g", name, concurrency: 20, handlerMillis: 1 } })

    const recoveries: Array<number> = []
    const violations: Array<string> = []
    /** The group is there until it has handled something, and some more. */
    const handleSome = Effect.fnUntraced(function*(millis: number) {
      const before = recorder.deliveries.length
      const worker = yield* begin(consumer)
      yield* worker.ready
      const at = Date.now()
      yield* until("the group handles messages", Effect.sync(() => recorder.deliveries.length > before))
      recoveries.push(Date.now() - at)
      yield* Effect.sleep(millis)
      return worker
    })

    return yield* Effect.gen(function*() {
      // The first definition that counts is the new one: what the old one removes alone is lost by its own will.
      const first = yield* begin(fresh)
      yield* until("the new process has published", Effect.sync(() => recorder.messages > 0))
      const running = { new: first, old: yield* begin(old) }
      yield* running.old.ready
      // The group is known from the beginning.
      yield* (yield* handleSome(0)).kill("SIGTERM")
      yield* Effect.sleep(1_000)
      const versionBefore = yield* version
      let longest = 0
      for (const { after, kind } of plan) {
        yield* Effect.sleep(after)
        longest = Math.max(longest, yield* length)
        if (kind === "consumer") {
          const worker = yield* handleSome(after)
          yield* worker.kill("SIGKILL")
          yield* worker.ended
        } else {
          yield* running[kind].kill("SIGKILL")
          yield* running[kind].ended
          running[kind] = yield* begin(kind === "new" ? fresh : old)
          yield* running[kind].ready
        }
      }
      longest = Math.max(longest, yield* length)
      // Each start of a consumer may raise it, and the first definition of each kind; publishes do not.
      const raised = (yield* version) - versionBefore
      for (const worker of Object.values(running)) yield* worker.kill("SIGKILL")
      for (const worker of Object.values(running)) yield* worker.ended
      const last = yield* handleSome(0)
      const left = yield* settled(Work)
      yield* last.kill("SIGTERM")
      yield* last.ended
      const wrong = yield* sound()
      if (longest < 4 * oldLength) violations.push(`the log never had more than ${longest} messages`)
      if (raised > plan.length) violations.push(`the version of the registry went up ${raised} times`)
      if (told === 0 || told > started) violations.push(`${told} processes of ${started} told that definitions differ`)
      const account = recorder.account({ groups: ["g"] })
      return {
        ...account,
        faults: plan.length,
        recoveries,
        violations: [...account.violations, ...left, ...wrong, ...violations]
      }
    }).pipe(Effect.provide(Rotif.layer({ url: server.url, prefix: "deploy" })))
  })
} satisfies Run
