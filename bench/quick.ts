/**
 * Has the cost of a message grown? `npm run bench:quick` compares CPU and commands per message, as ratios to raw ioredis in the same run,
 * with those in `quick.json`; `UPDATE=1` writes them there. It takes no notice of how fast the machine is, and the margins are wide
 * enough for one that has other work to do.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Figures, Unplaced } from "./jobs.ts"
import { measure } from "./measuring.ts"

/** CPU times on a busy machine: caches and cores are shared. */
const cpuMargin = 1.75
/** Commands depend on how the work falls into batches, and on little else. */
const commandMargin = 1.5
const commandSlack = 0.2
const rounds = Number(process.env["REPS"] ?? 2)

const file = join(import.meta.dirname, "quick.json")

const publish = (peer: string, how: "in flight" | "bulk", count: number): Unplaced => ({
  kind: "publish",
  peer,
  how,
  count,
  bytes: 200
})
const drain = (
  peer: string,
  count: number,
  options?: { readonly groups?: number; readonly failures?: number }
): Unplaced => ({
  kind: "drain",
  peer,
  concurrency: 100,
  groups: 1,
  failures: 0,
  waitMillis: 0,
  count,
  bytes: 200,
  ...options
})

/** What they are compared with, by its name. */
const bases: Readonly<Record<string, Unplaced>> = {
  "raw publish bulk": publish("raw", "bulk", 50_000),
  "raw drain": drain("raw", 50_000)
}

const jobs: Readonly<Record<string, readonly [base: keyof typeof bases, job: Unplaced]>> = {
  "publish bulk": ["raw publish bulk", publish("rotif", "bulk", 50_000)],
  "publish in flight": ["raw publish bulk", publish("rotif", "in flight", 20_000)],
  drain: ["raw drain", drain("rotif", 50_000)],
  "drain exactly once": ["raw drain", drain("rotifOnce", 20_000)],
  "publish 10,000 keys": ["raw publish bulk", publish("rotifKeys", "bulk", 50_000)],
  "drain 10,000 keys": ["raw drain", drain("rotifKeys", 50_000)],
  "drain 10 hot keys": ["raw drain", drain("rotifHotKeys", 10_000)],
  "drain in batches": ["raw drain", drain("rotifBatch", 50_000)],
  "drain with 5 groups": ["raw drain", drain("rotif", 5000, { groups: 5 })],
  "each fails twice": ["raw drain", drain("rotif", 2000, { failures: 2 })],
  "wildcard over 100": [
    "raw drain",
    { kind: "wildcard", peer: "rotif", channels: 100, count: 20_000, bytes: 200, calm: 100 }
  ],
  "scheduled": ["raw publish bulk", { kind: "backlog", peer: "rotif", count: 20_000, bytes: 200 }]
}

/** The best of several rounds: what others do on the machine only adds. */
const best = new Map<string, Figures>()
for (let round = 0; round < rounds; round++) {
  for (
    const [name, job] of [
      ...Object.entries(bases),
      ...Object.entries(jobs).map(([name, [, job]]) => [name, job] as const)
    ]
  ) {
    const figures = await measure(job)
    if (figures === undefined) throw new Error(`"${name}" failed`)
    const known = best.get(name)
    best.set(
      name,
      Object.fromEntries(Object.entries(figures).map(([key, value]) => [key, Math.min(value, known?.[key] ?? value)]))
    )
  }
}

interface Ratios {
  readonly nodeMicros: number
  readonly redisMicros: number
  /** Not a ratio: a number that does not depend on the machine. */
  readonly commands: number
}

const found: Readonly<Record<string, Ratios>> = Object.fromEntries(
  Object.entries(jobs).map(([name, [base]]) => {
    const [own, raw] = [best.get(name)!, best.get(base)!]
    const ratio = (key: string) => Number((own[key]! / raw[key]!).toFixed(2))
    return [name, {
      nodeMicros: ratio("nodeMicros"),
      redisMicros: ratio("redisMicros"),
      commands: Number(own["commands"]!.toFixed(3))
    }]
  })
)

if (process.env["UPDATE"] === "1") writeFileSync(file, `${JSON.stringify(found, null, 2)}\n`)
const stored = JSON.parse(readFileSync(file, "utf8")) as Readonly<Record<string, Ratios | undefined>>
const problems: Array<string> = []
for (const [name, ratios] of Object.entries(found)) {
  const known = stored[name]
  if (known === undefined) throw new Error(`"${name}" is not in ${file}: UPDATE=1 npm run bench:quick`)
  console.log(
    `${name.padEnd(20)} Node ${ratios.nodeMicros.toFixed(2)} × raw (${known.nodeMicros})   Redis ${
      ratios.redisMicros.toFixed(2)
    } × raw (${known.redisMicros})   ${ratios.commands.toFixed(3)} commands (${known.commands})`
  )
  const check = (what: string, value: number, limit: number) => {
    if (value > limit) problems.push(`${name}: ${what} is ${value}, at most ${limit.toFixed(2)} is allowed`)
  }
  check("Node µs ÷ raw", ratios.nodeMicros, known.nodeMicros * cpuMargin)
  check("Redis µs ÷ raw", ratios.redisMicros, known.redisMicros * cpuMargin)
  check("commands a message", ratios.commands, known.commands * commandMargin + commandSlack)
}
/** Ordering keys may at most double the CPU time of Redis for a message's whole way, with many keys. */
const mostOfPlain = 2
const wayOf = (publish: string, drain: string) => best.get(publish)!["redisMicros"]! + best.get(drain)!["redisMicros"]!
const ofPlain = wayOf("publish 10,000 keys", "drain 10,000 keys") / wayOf("publish bulk", "drain")
console.log(`10,000 keys: ${ofPlain.toFixed(2)} × plain Redis µs for the whole way`)
if (ofPlain > mostOfPlain) {
  problems.push(`10,000 keys take ${ofPlain.toFixed(2)} × plain Redis µs, more than ${mostOfPlain}`)
}
for (const problem of problems) console.error(problem)
if (problems.length > 0) process.exitCode = 1
