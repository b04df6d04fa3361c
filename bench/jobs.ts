/**
 * What is measured: every job runs in a process of its own, on a Redis of its own.
 */

interface Base {
  readonly port: number
  readonly count: number
  readonly bytes: number
}

interface Publish extends Base {
  readonly kind: "publish"
  readonly peer: string
  readonly how: "awaited" | "in flight" | "bulk"
}

interface Drain extends Base {
  readonly kind: "drain"
  readonly peer: string
  readonly concurrency: number
  readonly groups: number
  readonly waitMillis: number
  /** How often each message fails. */
  readonly failures: number
}

interface Latency extends Base {
  readonly kind: "latency"
  readonly peer: string
  readonly rate: number
}

interface Memory extends Base {
  readonly kind: "memory"
  readonly peer: string
  readonly state: "queued" | "scheduled" | "in flight" | "left"
}

export interface Wildcard extends Base {
  readonly kind: "wildcard"
  readonly peer: "rotif"
  readonly channels: number
  /** How many at 200 a second. */
  readonly calm: number
}

export interface Backlog extends Base {
  readonly kind: "backlog"
  readonly peer: "rotif"
}

export interface Shards extends Base {
  readonly kind: "shards"
  readonly peer: "rotif"
  readonly shards: number
}

export interface Growth extends Base {
  readonly kind: "growth"
  readonly peer: string
  readonly consumers: number
}

export type Job = Publish | Drain | Latency | Memory | Wildcard | Backlog | Shards | Growth

/** By name; see `cost.ts`. What a job does not measure is not there. */
export type Figures = Readonly<Record<string, number>>

type WithoutPort<J> = J extends unknown ? Omit<J, "port"> : never

/** A job that has no server yet. */
export type Unplaced = WithoutPort<Job>

/** A row of the report: the same work for several peers. */
export interface Workload {
  readonly name: string
  readonly jobs: ReadonlyArray<Unplaced>
}

export const peers = [
  "raw",
  "rawEach",
  "rotif",
  "rotifOnce",
  "manager",
  "bullmq",
  "beeQueue",
  "effectQueue",
  "groupmq"
] as const

const sizes = [[200, "200 B"], [10_240, "10 KiB"]] as const

/** Raw and ours go through many messages in the time others need for few. */
const isFast = (peer: string) => ["raw", "rotif", "rotifOnce", "rotifBatch", "manager"].includes(peer)

/**
 * All of them. `scale` sets the number of messages where it does not change what is measured; below 0.1 everywhere, to try the bench
 * itself. 0.2 is a second or so for each of the fast ones.
 */
export const workloads = (scale: number): ReadonlyArray<Workload> => {
  const n = (peer: string, fast: number, slow = fast) => Math.max(200, Math.round((isFast(peer) ? fast : slow) * scale))
  const out: Array<Workload> = []
  for (const [bytes, size] of sizes) {
    // The small ones take seconds until all of the code is compiled as far as it will be.
    const times = bytes > 1000 ? 0.2 : 5
    for (
      const [how, fast, slow] of [["awaited", 20_000, 10_000], ["in flight", 50_000, 20_000], [
        "bulk",
        200_000,
        20_000
      ]] as const
    ) {
      out.push({
        name: `publish ${how}, ${size}`,
        jobs: peers.filter((peer) => peer !== "rotifOnce").map((peer) => ({
          kind: "publish",
          peer,
          how,
          bytes,
          count: n(peer, fast * times, slow * times)
        }))
      })
    }
    for (const concurrency of [1, 10, 100, 1000]) {
      out.push({
        name: `drain at ${concurrency}, ${size}`,
        jobs: peers.map((peer) => ({
          kind: "drain",
          peer,
          concurrency,
          groups: 1,
          waitMillis: 0,
          failures: 0,
          bytes,
          count: n(peer, 200_000 * times, concurrency === 1 ? 5000 * times : 20_000 * times)
        }))
      })
    }
    for (const rate of [200, 5000]) {
      out.push({
        name: `latency at ${rate} msg/s, ${size}`,
        // At 5,000 a second some do not keep up: then it is the length of their queue that is measured.
        jobs: peers.map((peer) => ({
          kind: "latency",
          peer,
          rate,
          bytes,
          // A percentile needs its samples, whatever the scale.
          count: Math.max(rate > 1000 ? 2000 : 800, n("", rate * 5 * (rate > 1000 ? 0.4 : 1)))
        }))
      })
    }
  }
  out.push({
    name: "handler that waits 1 ms, at 100",
    jobs: peers.map((peer) => ({
      kind: "drain",
      peer,
      concurrency: 100,
      groups: 1,
      waitMillis: 1,
      failures: 0,
      bytes: 200,
      count: n(peer, 50_000, 10_000)
    }))
  })
  out.push({
    name: "batches of 100, beside 100 at a time",
    jobs: (["rotif", "rotifBatch"] as const).map((peer) => ({
      kind: "drain",
      peer,
      concurrency: 100,
      groups: 1,
      waitMillis: 0,
      failures: 0,
      bytes: 200,
      count: n(peer, 1_000_000)
    }))
  })
  for (const groups of [1, 5, 20]) {
    out.push({
      name: `fan-out to ${groups}`,
      jobs: (["raw", "rotif"] as const).map((peer) => ({
        kind: "drain",
        peer,
        concurrency: 100,
        groups,
        waitMillis: 0,
        failures: 0,
        bytes: 200,
        count: n(peer, 200_000 / groups)
      }))
    })
  }
  out.push({
    name: "retry storm: each fails twice",
    jobs: (["rotif", "rotifOnce", "manager", "bullmq", "beeQueue", "effectQueue", "groupmq"] as const).map((peer) => ({
      kind: "drain",
      peer,
      concurrency: 100,
      groups: 1,
      waitMillis: 0,
      failures: 2,
      bytes: 200,
      count: n(peer, 20_000, 5000)
    }))
  })
  for (const channels of [1, 100, 1000]) {
    out.push({
      name: `wildcard over ${channels}`,
      jobs: [{ kind: "wildcard", peer: "rotif", channels, calm: 1000, bytes: 200, count: n("rotif", 100_000) }]
    })
  }
  for (const count of [10_000, 1_000_000]) {
    out.push({
      name: `scheduled backlog of ${count.toLocaleString("en")}`,
      // It is the number that is asked about.
      jobs: [{ kind: "backlog", peer: "rotif", bytes: 200, count: scale < 0.1 ? n("rotif", count) : count }]
    })
  }
  for (const state of ["queued", "scheduled", "in flight", "left"] as const) {
    out.push({
      name: `memory, ${state}`,
      jobs: peers.filter((peer) => peer !== "rawEach").map((peer) => ({
        kind: "memory",
        peer,
        state,
        bytes: 200,
        // Not scaled: a hash table is between half full and full, and a message has its part of what is empty.
        count: scale < 0.1 ? n(peer, 50_000, 20_000) : isFast(peer) ? 50_000 : 20_000
      }))
    })
  }
  for (const consumers of [1, 2, 4]) {
    out.push({
      name: `${consumers} consumer processes`,
      jobs: (["raw", "rotif", "bullmq"] as const).map((peer) => ({
        kind: "growth",
        peer,
        consumers,
        bytes: 200,
        count: n(peer, 200_000, 20_000)
      }))
    })
  }
  for (const shards of [1, 2, 4, 8]) {
    out.push({
      name: `cluster of 3, ${shards} shards`,
      jobs: [{ kind: "shards", peer: "rotif", shards, bytes: 200, count: n("rotif", 100_000) }]
    })
  }
  return out
}
