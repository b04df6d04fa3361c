/**
 * What something costs: time, CPU of Redis and of this process, commands, memory, and how long the event loop was held up.
 */
import type { Redis } from "ioredis"
import { writeFileSync } from "node:fs"
import { Session } from "node:inspector/promises"
import { monitorEventLoopDelay } from "node:perf_hooks"

/** A number in the reply of INFO. */
const field = (info: string, name: string) => Number(new RegExp(`^${name}:(.*)$`, "m").exec(info)?.[1])

const look = async (servers: ReadonlyArray<Redis>) => {
  let redis = 0
  let commands = 0
  for (const server of servers) {
    const cpu = await server.info("cpu")
    redis += (field(cpu, "used_cpu_user") + field(cpu, "used_cpu_sys")) * 1e6
    // What scripts call counts too: it is work of the server all the same. Our own looking does not.
    for (const [, name, calls] of (await server.info("commandstats")).matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)) {
      if (name !== "info") commands += Number(calls)
    }
  }
  return { redis, commands }
}

export interface Cost {
  readonly seconds: number
  readonly redisMicros: number
  readonly nodeMicros: number
  readonly commands: number
  /** How much the process grew at most, in MiB. */
  readonly rssMiB: number
  /** The 99th percentile of how late the event loop was, in milliseconds. */
  readonly loopMillis: number
}

/** Runs a body; with `PROFILE` it is sampled, and the profile written to that file. */
const sampled = async (body: () => Promise<unknown>) => {
  const file = process.env["PROFILE"]
  if (file === undefined) return void await body()
  const session = new Session()
  session.connect()
  await session.post("Profiler.enable")
  await session.post("Profiler.setSamplingInterval", { interval: 100 })
  await session.post("Profiler.start")
  await body()
  const { profile } = await session.post("Profiler.stop")
  session.disconnect()
  writeFileSync(file, JSON.stringify(profile))
}

/** The cost of a body, as a whole. */
export const costOf = async (servers: ReadonlyArray<Redis>, body: () => Promise<unknown>): Promise<Cost> => {
  globalThis.gc?.()
  const before = await look(servers)
  const resident = process.memoryUsage.rss()
  let peak = resident
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss())
  }, 50)
  const loop = monitorEventLoopDelay({ resolution: 10 })
  loop.enable()
  const cpu = process.cpuUsage()
  const start = performance.now()
  await sampled(body)
  const seconds = (performance.now() - start) / 1000
  const { system, user } = process.cpuUsage(cpu)
  loop.disable()
  clearInterval(watch)
  const after = await look(servers)
  return {
    seconds,
    redisMicros: after.redis - before.redis,
    nodeMicros: system + user,
    commands: after.commands - before.commands,
    rssMiB: (peak - resident) / 1024 / 1024,
    // The delay includes the resolution of the timer that measures it.
    loopMillis: Math.max(0, loop.percentile(99) / 1e6 - 10)
  }
}

/** Each of a number of messages has its part in it. */
export const perMessage = (
  { commands, loopMillis, nodeMicros, redisMicros, rssMiB, seconds }: Cost,
  count: number
) => ({
  rate: count / seconds,
  redisMicros: redisMicros / count,
  nodeMicros: nodeMicros / count,
  commands: commands / count,
  rssMiB,
  loopMillis
})

/** The bytes Redis uses for what it stores; the buffers of those who are connected are not that. */
export const memoryOf = async (server: Redis): Promise<number> => {
  const info = await server.info("memory")
  return field(info, "used_memory") - field(info, "mem_clients_normal")
}
