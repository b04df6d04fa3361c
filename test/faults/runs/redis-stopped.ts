/**
 * Redis is frozen with SIGSTOP for longer than any timeout, and continued. Publishers are told in time, with a type, that it is away or that
 * nothing is known; they repeat it, and nothing is stored twice, whatever was still in the sockets.
 */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as Mix from "../Mix.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, until } from "../Run.ts"

export default {
  number: 4,
  title: "SIGSTOP of Redis for 30 seconds, and SIGCONT",
  recoveryWithin: 2_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const after = yield* Random.nextIntBetween(100, 600)
    const frozenMillis = isShort ? 3_000 : 30_000
    const commandTimeout = isShort ? 500 : 5_000
    const server = yield* RedisServer.make()
    const recorder = new Recorder()
    const rotif = { url: server.url, prefix: "stopped", graceMillis: 600_000, commandTimeout, connectTimeout: 1_000 }
    const violations: Array<string> = []
    return yield* Effect.gen(function*() {
      const mix = yield* Mix.start({ rotif, recorder })
      yield* Effect.sleep(after)
      const before = mix.refusals.length
      yield* server.stop
      // Also when the machine is busy: this is how long it is frozen at least.
      yield* Effect.sleep(frozenMillis)
      yield* until("publishers were told", Effect.sync(() => mix.refusals.length > before))
      yield* server.cont
      const recoveries = [yield* mix.recovered(Date.now())]
      // A publish waits for the answer, and then for a connection to ask what became of it.
      const slow = mix.refusals.filter(({ millis }) => millis > 2 * commandTimeout + 1_000)
      if (slow.length > 0) {
        violations.push(`publishers were told after ${Math.max(...slow.map(({ millis }) => millis))} ms`)
      }
      for (const error of new Set(mix.refusals.map(({ error }) => error))) {
        if (error !== "Unavailable" && error !== "PublishUncertain") violations.push(`publishers were told ${error}`)
      }
      violations.push(...(yield* mix.end()))
      const account = recorder.account({ groups: Mix.groups })
      return {
        ...account,
        faults: 1,
        recoveries,
        violations: [
          ...account.violations,
          ...violations,
          ...(yield* Mix.effectsOf(recorder.toldBetween(0))),
          ...(yield* Mix.storedOnce(server, "{stopped:0}:log:work", recorder))
        ]
      }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
