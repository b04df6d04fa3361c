/**
 * Measures Rotif beside its peers: `npm run bench`. It takes turns between them, with a fresh process and a private redis-server for
 * every measurement, and writes medians to `docs/performance/results.json`, the table into `docs/performance.md` and the README, and the
 * plot beside them.
 *
 * `SCALE` sets the number of messages (0.2), `REPS` the repetitions (3), `ONLY` which workloads run (a regular expression for their names) and
 * `PEERS` for whom (names, separated by commas). Where `ONLY` or `PEERS` leave something out, the figures of before stay; `WRITE=0` writes nothing.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Figures, workloads } from "./jobs.ts"
import { measure, medians } from "./measuring.ts"
import { plot } from "./plot.ts"
import { environment, marks, type Results, table, withSection } from "./report.ts"

const number = (name: string, usual: number) => Number(process.env[name] ?? usual)
const scale = number("SCALE", 0.2)
const repetitions = number("REPS", 3)
const root = join(import.meta.dirname, "..")
const directory = join(root, "docs", "performance")
const file = join(directory, "results.json")

const only = process.env["ONLY"] === undefined ? undefined : new RegExp(process.env["ONLY"])
const names = process.env["PEERS"]?.split(",")
const hasManager = existsSync(join(root, "src", "promise.ts"))

const before: Results | undefined = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) as Results : undefined
const found: Record<string, Record<string, Figures>> = structuredClone(
  (only === undefined && names === undefined ? undefined : before?.workloads) ?? {}
)
const started = performance.now()

for (const workload of workloads(scale)) {
  if (only?.test(workload.name) === false) continue
  const jobs = workload.jobs.filter(({ peer }) =>
    (names === undefined || names.includes(peer)) && (peer !== "manager" || hasManager)
  )
  if (jobs.length === 0) continue
  console.log(`${workload.name} (${Math.round((performance.now() - started) / 1000)} s)`)
  const samples = new Map<string, Array<Figures>>()
  const failed = new Set<string>()
  for (let round = 0; round < repetitions; round++) {
    for (let turn = 0; turn < jobs.length; turn++) {
      const job = jobs[(round + turn) % jobs.length]!
      // What failed once is not waited for again.
      if (failed.has(job.peer)) continue
      const figures = await measure(job)
      if (figures === undefined) failed.add(job.peer)
      else samples.set(job.peer, [...samples.get(job.peer) ?? [], figures])
    }
  }
  const row = found[workload.name] ??= {}
  for (const { peer } of jobs) {
    const own = samples.get(peer)
    if (own === undefined || failed.has(peer)) {
      delete row[peer]
      continue
    }
    row[peer] = medians(own)
    console.log(
      `  ${peer.padEnd(12)} ${
        Object.entries(row[peer]).map(([name, value]) => `${name} ${Number(value.toPrecision(4)).toLocaleString("en")}`)
          .join("  ")
      }`
    )
  }
}

const results: Results = { environment: environment(scale, repetitions), workloads: found }
const lines = marks(results)
for (const { holds, mark, value, what } of lines) {
  console.log(`${holds ? "met   " : "MISSED"} ${what}: ${value} (${mark})`)
}

if (process.env["WRITE"] !== "0") {
  mkdirSync(directory, { recursive: true })
  writeFileSync(file, `${JSON.stringify(results, null, 1)}\n`)
  writeFileSync(join(directory, "drain.svg"), plot(results))
  const page = join(root, "docs", "performance.md")
  writeFileSync(page, withSection(readFileSync(page, "utf8"), table(results)))
  const readme = join(root, "README.md")
  writeFileSync(readme, withSection(readFileSync(readme, "utf8"), table(results, "short")))
}
