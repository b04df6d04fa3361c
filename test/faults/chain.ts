/**
 * Kills the consumers of a chain of transactions with SIGKILL and cuts their connections, at random moments while there is work,
 * and accounts for every message: `npm run faults:chain` (MESSAGES, KILLS, CUTS and SEED in the environment; the seed is printed).
 */
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { Broker, Channel, Publisher, Rotif } from "rotif"
import { A, B, C, counters, effectOf } from "../fixtures/chain.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"

export interface Plan {
  readonly messages: number
  readonly kills: number
  readonly cuts: number
  readonly seed: number
}

export interface Account {
  /** Distinct effects at the end of the chain; effects that happened more than once. */
  readonly effects: number
  readonly repeated: number
  /** What the transactions counted, in the order of the steps. */
  readonly counted: ReadonlyArray<number>
  readonly dead: number
  readonly left: number
  readonly kills: number
  readonly cuts: number
}

const processes = 4
const program = join(import.meta.dirname, "../fixtures/chain.ts")

/** The same numbers for the same seed. */
const random = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

interface Worker {
  readonly child: ChildProcess
  readonly isReady: () => boolean
}

const start = (redisUrl: string, prefix: string): Worker => {
  const child = spawn(process.execPath, ["--conditions=rotif-source", program], {
    env: { ...process.env, REDIS_URL: redisUrl, PREFIX: prefix },
    stdio: ["ignore", "pipe", "inherit"]
  })
  let isReady = false
  child.stdout!.once("data", () => {
    isReady = true
  })
  return { child, isReady: () => isReady && child.exitCode === null && child.signalCode === null }
}

export const run = Effect.fnUntraced(function*({ cuts, kills, messages, seed }: Plan) {
  const server = yield* RedisServer.make()
  const proxy = yield* TcpProxy.make(server)
  const prefix = "chain"
  const next = random(seed)
  const workers: Array<Worker> = []
  yield* Effect.addFinalizer(() => Effect.sync(() => workers.forEach(({ child }) => child.kill("SIGKILL"))))
  for (let i = 0; i < processes; i++) workers.push(start(proxy.url, prefix))

  const body = Effect.gen(function*() {
    const broker = yield* Broker.Broker
    const own = (name: string) => broker.own.read(broker.own.keyFor(A.name, name))
    const counts = Effect.forEach(counters, (name) => Effect.map(own(name), (value) => Number(value ?? 0)))
    const publishing = yield* Effect.forkScoped(
      Effect.gen(function*() {
        for (let n = 0; n < messages; n += 200) {
          const some = Array.from({ length: Math.min(200, messages - n) }, (_, i) => n + i)
          yield* Publisher.publishAll(A, some)
        }
      })
    )
    // Each blow falls when so many steps have been taken: while there is work, on whatever is under way.
    const moments = (many: number) =>
      Array.from({ length: many }, () => next() * messages * counters.length).sort((a, b) => a - b)
    const killAt = moments(kills)
    const cutAt = moments(cuts)
    let killed = 0
    let cut = 0
    let last = -1
    let lastChange = performance.now()
    while (true) {
      const now = yield* counts
      const taken = now.reduce((sum, count) => sum + count, 0)
      if (taken !== last) {
        last = taken
        lastChange = performance.now()
      }
      // A process whose connection was cut while it started has ended by itself; whoever runs such a service starts it again.
      for (const [i, { child }] of workers.entries()) if (child.exitCode !== null) workers[i] = start(proxy.url, prefix)
      if (cut < cuts && cutAt[cut]! <= taken) {
        cut++
        yield* proxy.cut
      }
      const ready = workers.filter((worker) => worker.isReady())
      if (killed < kills && killAt[killed]! <= taken && ready.length > 0) {
        killed++
        const victim = ready[Math.floor(next() * ready.length)]!
        victim.child.kill("SIGKILL")
        workers[workers.indexOf(victim)] = start(proxy.url, prefix)
      }
      if (killed === kills && cut === cuts && now[2]! >= messages && publishing.pollUnsafe() !== undefined) break
      // Nothing for a minute, with nothing to wait for: the account will tell what is missing.
      if (performance.now() - lastChange > 60_000) break
      yield* Effect.sleep(5)
    }
    // What is twice would be done a second time within a few leases.
    const source = Channel.union([A, B, C])
    let left = -1
    for (let i = 0; i < 200 && left !== 0; i++) {
      yield* Effect.sleep(50)
      const info = yield* broker.info(Channel.selector(source))
      const groups = info.channels.flatMap((channel) => channel.groups)
      left = info.waiting + groups.reduce((sum, group) => sum + (group.lag ?? 1) + group.pending + group.ready, 0)
    }
    yield* Effect.sleep("2 seconds")
    const numbers = Array.from({ length: messages }, (_, n) => n)
    const done = yield* Effect.forEach(numbers, (n) => own(effectOf(n)), { concurrency: 200 })
    const { dead } = yield* broker.info(Channel.selector(source))
    return {
      effects: done.filter((value) => value !== undefined).length,
      repeated: done.filter((value) => value !== undefined && value !== "1").length,
      counted: yield* counts,
      dead,
      left,
      kills: killed,
      cuts: cut
    } satisfies Account
  })
  // The account itself is not disturbed.
  return yield* body.pipe(Effect.provide(Rotif.layer({ url: server.url, prefix })))
}, Effect.scoped)

if (import.meta.main) {
  const number = (name: string, fallback: number) => Number(process.env[name] ?? fallback)
  const plan: Plan = {
    messages: number("MESSAGES", 20_000),
    kills: number("KILLS", 50),
    cuts: number("CUTS", 30),
    seed: number("SEED", Math.floor(Math.random() * 2 ** 31))
  }
  console.log(`chain of ${counters.length} transactions, ${processes} processes: ${JSON.stringify(plan)}`)
  const started = performance.now()
  const account = await Effect.runPromise(run(plan))
  console.log(`${JSON.stringify(account)} after ${Math.round((performance.now() - started) / 1000)} s`)
  const { counted, dead, effects, left, repeated } = account
  const isRight = effects === plan.messages && repeated === 0 && dead === 0 && left === 0 &&
    counted.every((count) => count === plan.messages)
  if (!isRight) process.exitCode = 1
}
