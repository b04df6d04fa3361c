/**
 * Redis keeps nothing over a restart: groups, members, scripts, registries and leases are gone, and are made again by those who need them.
 * What was not handled is lost with it, and said. What is published from then on is handled by every group.
 */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as Mix from "../Mix.ts"
import { Recorder } from "../Recorder.ts"
import type { Run } from "../Run.ts"

/** The commands of so long are counted when nothing is to be done but to heal. */
const quietMillis = 1_500

/**
 * So many commands in that time are no busy loop, which makes ten thousand: three processes connect, look at five groups, and tell their
 * settings once in a lease of a second. Those inside of scripts count too, and are two thirds of the 560 to 630 that are measured.
 */
const mostCommands = 900

export default {
  number: 3,
  title: "Restart of Redis without persistence",
  recoveryWithin: 2_000,
  mayLose: true,
  body: Effect.fnUntraced(function*({ isShort }) {
    const plan = yield* Effect.all(
      Array.from(
        { length: isShort ? 2 : 8 },
        () => Effect.all({ after: Random.nextIntBetween(50, 400), down: Random.nextIntBetween(0, 300) })
      )
    )
    const server = yield* RedisServer.make()
    const recorder = new Recorder()
    const rotif = { url: server.url, prefix: "lost" }
    const recoveries: Array<number> = []
    const violations: Array<string> = []
    let restarts = 0
    let backAt = 0
    return yield* Effect.gen(function*() {
      const mix = yield* Mix.start({ rotif, recorder })
      const restart = Effect.fnUntraced(function*(down: number) {
        yield* server.kill
        yield* Effect.sleep(down)
        yield* server.restart
        restarts++
        backAt = Date.now()
      })
      const saidSince = (at: number, what: RegExp) => mix.logs.some((log) => log.at >= at && what.test(log.text))
      for (const { after, down } of plan) {
        yield* Effect.sleep(after)
        const from = Date.now()
        yield* restart(down)
        recoveries.push(yield* mix.recovered(backAt))
        yield* mix.handled(backAt, Date.now())
        for (const group of Mix.groups) {
          if (!saidSince(from, new RegExp(`group "${group}" .*gone`))) {
            violations.push(`it was not said that group "${group}" lost its messages`)
          }
        }
        if (!saidSince(from, /the log of channel "work" was gone|gone from Redis.* the channel "work"/)) {
          violations.push("it was not said that the log was lost")
        }
      }
      // Nobody publishes: everything there is to do is to be made again.
      yield* mix.silence
      yield* restart(100)
      yield* Effect.sleep(quietMillis)
      const commands = Number(
        /total_commands_processed:(\d+)/.exec(String(yield* server.command("info", "stats")))?.[1]
      )
      if (!(commands <= mostCommands)) violations.push(`${commands} commands in ${quietMillis} ms with nothing to do`)
      yield* mix.publishAgain
      recoveries.push(yield* mix.recovered(Date.now()))
      yield* mix.handled(backAt, Date.now())
      violations.push(...(yield* mix.end()))
      const lastBack = backAt
      const account = recorder.account({ groups: Mix.groups, mayBeLost: (from) => from < lastBack })
      return { ...account, faults: restarts, recoveries, violations: [...account.violations, ...violations] }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
