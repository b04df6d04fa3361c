/**
 * A consumer that takes messages and then dies.
 *
 * On Redis it is a process that is killed with SIGKILL. In memory there is no process to kill: a member of the group takes messages
 * and never settles them. In neither case is the group told; its leases expire.
 */
import { Effect, Redacted } from "effect"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { Broker, Channel } from "rotif"
import { OrderPlaced } from "./orders.ts"

export interface Doomed {
  /** Completes when the consumer has joined its group. */
  readonly joined: Effect.Effect<void>
  /** Waits until it holds as many messages as it can, and ends it. What happened, in words. */
  readonly end: Effect.Effect<string>
}

export const held = 20
export const group = "shipping"
export const leaseMillis = 1_000

/** In memory: a member that reads, and neither settles nor renews. */
export const silentMember = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  const selector = Channel.selector(OrderPlaced)
  const member = yield* broker.join({
    shard: broker.shardsOf(selector)[0]!,
    group,
    consumer: "lost-consumer",
    selector,
    start: { _tag: "Earliest" },
    leaseMillis
  })
  const take = Effect.gen(function*() {
    let count = 0
    while (count < held) count += (yield* member.read(held - count, 5_000)).length
    return `a consumer of "${group}" took ${count} orders and was never heard of again`
  })
  return { joined: Effect.void, end: Effect.orDie(take) } satisfies Doomed
})

/** On Redis: a process that is killed. */
export const killedProcess = Effect.fnUntraced(function*(url: Redacted.Redacted<string>, prefix: string) {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [...process.execArgv, `${import.meta.dirname}/lost-consumer.ts`], {
        env: { ...process.env, REDIS_URL: Redacted.value(url), DEMO_PREFIX: prefix },
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    (child) => Effect.sync(() => void child.kill("SIGKILL"))
  )
  const lines = createInterface(child.stdout)
  const seen = new Set<string>()
  lines.on("line", (line) => seen.add(line))
  const says = (text: string) =>
    Effect.callback<void>((resume) => {
      const look = () => {
        if (seen.has(text)) resume(Effect.void)
      }
      const ended = () => resume(Effect.die(new Error(`the consumer ended before it said "${text}"`)))
      lines.on("line", look)
      child.once("exit", ended)
      look()
      return Effect.sync(() => {
        lines.off("line", look)
        child.off("exit", ended)
      })
    })
  const killed = Effect.callback<void>((resume) => {
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })
  return {
    joined: says("joined"),
    end: says(`holds ${held}`).pipe(
      Effect.andThen(killed),
      Effect.as(`process ${child.pid}, a consumer of "${group}", took ${held} orders and was killed with SIGKILL`)
    )
  } satisfies Doomed
})
