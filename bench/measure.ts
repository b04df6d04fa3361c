/**
 * One measurement in a process of its own: `node measure.ts '<job as JSON>'` warms up, measures and prints the figures as JSON.
 */
import { Redis } from "ioredis"
import { costOf, memoryOf, perMessage } from "./cost.ts"
import type { Figures, Job } from "./jobs.ts"
import { type Open, payloadOf, payloadsOf, type Peer, sleep } from "./peers/peer.ts"
import * as Program from "./program.ts"
import { growth } from "./growth.ts"

/** Consumes until so many were handled, and until those are settled. */
const drain = async (
  peer: Peer,
  total: number,
  options: {
    readonly concurrency: number
    readonly waitMillis: number
    readonly groups: number
    readonly failures: number
  }
) => {
  let left = total * options.groups
  const failed = new Uint8Array(total)
  let done = () => {}
  const all = new Promise<void>((resolve) => {
    done = resolve
  })
  const stops = await Promise.all(
    Array.from({ length: options.groups }, (_, i) =>
      peer.consume({
        concurrency: options.concurrency,
        group: options.groups === 1 ? undefined : `g${i}`,
        waitMillis: options.waitMillis,
        handle: ({ id }) => {
          if (failed[id]! < options.failures) {
            failed[id]!++
            return false
          }
          if (--left === 0) done()
          return true
        }
      }))
  )
  await all
  await Promise.all(stops.map((stop) => stop()))
}

const percentile = (sorted: ReadonlyArray<number>, part: number) => sorted[Math.floor((sorted.length - 1) * part)]!

/** Publishes at a steady rate, whether or not what was published has come; the times from before the publish to the handler. */
const latency = async (peer: Peer, rate: number, count: number, bytes: number) => {
  const micros: Array<number> = []
  let done = () => {}
  const all = new Promise<void>((resolve) => {
    done = resolve
  })
  const stop = await peer.consume({
    concurrency: 100,
    waitMillis: 0,
    handle: ({ at }) => {
      micros.push((performance.now() - at) * 1000)
      if (micros.length === count) done()
      return true
    }
  })
  // What is just being joined is not measured.
  await sleep(200)
  const start = performance.now()
  const sent: Array<Promise<unknown>> = []
  while (sent.length < count) {
    const due = Math.min(count, Math.ceil((performance.now() - start) * rate / 1000))
    while (sent.length < due) sent.push(peer.one(payloadOf(sent.length, bytes, performance.now())))
    await sleep(Math.max(0, sent.length * 1000 / rate - (performance.now() - start)))
  }
  await Promise.all(sent)
  await all
  await stop()
  micros.sort((a, b) => a - b)
  return { p50: percentile(micros, 0.5), p95: percentile(micros, 0.95), p99: percentile(micros, 0.99) }
}

/** Bytes of Redis for a message that is queued, scheduled, being handled, and when all is done. */
const memory = async (
  open: Open,
  port: number,
  client: Redis,
  { bytes, count, peer: name, state }: Extract<Job, { kind: "memory" }>
) => {
  // Redis keeps a histogram of some 20 KiB for every command it has ever seen: what is used the first time after a look is not memory of messages.
  await client.config("SET", "latency-tracking", "no")
  const peer = await open(port, "memory")
  const held = 1000
  if (state === "in flight") {
    let begun = 0
    let release = () => {}
    const hold = new Promise<void>((resolve) => {
      release = resolve
    })
    // A consumer that waits is there before and after.
    const stop = await peer.consume({
      concurrency: held,
      waitMillis: 0,
      hold,
      handle: () => {
        begun++
        return true
      }
    })
    await sleep(300)
    const before = await memoryOf(client)
    await peer.bulk(payloadsOf(held, bytes))
    while (begun < held) await sleep(10)
    await sleep(300)
    const after = await memoryOf(client)
    release()
    await stop()
    await peer.close()
    return { bytes: (after - before) / held }
  }
  // What a queue has once, it has before.
  if (state === "scheduled") await peer.schedule!(payloadsOf(1, bytes, count))
  else {
    await peer.bulk(payloadsOf(1, bytes))
    await drain(peer, 1, { concurrency: 100, waitMillis: 0, groups: 1, failures: 0 })
    await sleep(500)
  }
  const before = await memoryOf(client)
  const payloads = payloadsOf(count, bytes)
  for (let from = 0; from < count; from += 5000) {
    const part = payloads.slice(from, from + 5000)
    await (state === "scheduled" ? peer.schedule!(part) : peer.bulk(part))
  }
  let after = await memoryOf(client)
  if (state === "left") {
    await drain(peer, count, { concurrency: 100, waitMillis: 0, groups: 1, failures: 0 })
    // What is removed later is waited for; Rotif removes what is 10 seconds old, every 20 seconds.
    const isRotif = name.startsWith("rotif") || name === "manager"
    const deadline = performance.now() + (isRotif ? 40_000 : 10_000)
    after = await memoryOf(client)
    while (after > before + count && performance.now() < deadline) {
      await sleep(250)
      after = await memoryOf(client)
    }
  }
  await peer.close()
  return { bytes: (after - before) / count }
}

const publishes: Record<
  "awaited" | "in flight" | "bulk",
  (peer: Peer, count: number, bytes: number) => Promise<unknown>
> = {
  awaited: (peer, count, bytes) => peer.sequential(payloadsOf(count, bytes)),
  "in flight": (peer, count, bytes) => peer.concurrent(payloadsOf(count, bytes), 100),
  bulk: async (peer, count, bytes) => peer.bulk(payloadsOf(count, bytes))
}

const run = async (job: Job): Promise<Figures> => {
  const client = new Redis({ port: job.port, host: "127.0.0.1" })
  try {
    if (job.kind === "wildcard") return await Program.wildcard(client, job)
    if (job.kind === "backlog") return await Program.backlog(client, job)
    if (job.kind === "shards") return await Program.shards(job)
    if (job.kind === "growth") return await growth(client, job)
    const { open } = await import(`./peers/${job.peer}.ts`) as { readonly open: Open }
    if (job.kind === "memory") return await memory(open, job.port, client, job)
    const { bytes, count } = job
    // Code that has run before is measured, on data that has not been there before.
    const warm = Math.min(count, Math.max(1000, Math.ceil(count / 5)))
    if (job.kind === "latency") {
      // At 200 a second it would take minutes until the code is compiled: it is run in with more at a time.
      const before = await open(job.port, "warm")
      await before.concurrent(payloadsOf(warm * 5, bytes), 100)
      await drain(before, warm * 5, { concurrency: 100, waitMillis: 0, groups: 1, failures: 0 })
      await before.close()
      await client.flushall()
      const peer = await open(job.port, "run")
      await latency(peer, 500, Math.min(warm, 500), bytes)
      let found = { p50: 0, p95: 0, p99: 0 }
      const cost = await costOf([client], async () => {
        found = await latency(peer, job.rate, count, bytes)
      })
      await peer.close()
      return { ...perMessage(cost, count), ...found, core: cost.redisMicros / cost.seconds / 1e6 }
    }
    if (job.kind === "publish") {
      const before = await open(job.port, "warm")
      await publishes[job.how](before, warm, bytes)
      await before.close()
      await client.flushall()
      const peer = await open(job.port, "run")
      await publishes[job.how](peer, 1, bytes)
      const payloads = payloadsOf(count, bytes)
      const cost = await costOf(
        [client],
        () =>
          job.how === "awaited"
            ? peer.sequential(payloads)
            : job.how === "bulk"
            ? peer.bulk(payloads)
            : peer.concurrent(payloads, 100)
      )
      await peer.close()
      return perMessage(cost, count)
    }
    if (job.kind === "drain") {
      const { concurrency, failures, groups, waitMillis } = job
      const options = { concurrency, failures, groups, waitMillis }
      const before = await open(job.port, "warm")
      const size = waitMillis > 0 ? Math.min(warm, 500) : warm
      await before.bulk(payloadsOf(size, bytes))
      await drain(before, size, options)
      await before.close()
      await client.flushall()
      const peer = await open(job.port, "run")
      for (let from = 0; from < count; from += 5000) {
        await peer.bulk(payloadsOf(Math.min(5000, count - from), bytes, from))
      }
      const cost = await costOf([client], () => drain(peer, count, options))
      await peer.close()
      return perMessage(cost, count * groups)
    }
    throw new Error("there is no such job")
  } finally {
    client.disconnect()
  }
}

const figures = await run(JSON.parse(process.argv[2]!) as Job)
// Some peers leave timers behind.
process.stdout.write(`${JSON.stringify(figures)}\n`, () => process.exit(0))
