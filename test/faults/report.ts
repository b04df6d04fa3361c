/** The table of the fault runs in `docs/reliability.md`, and the figures it is made of. */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { join } from "node:path"
import type { Repetition } from "./process.ts"
import type { Run } from "./Run.ts"

interface Row {
  readonly times: number
  readonly passed: number
  readonly seeds: string
  readonly messages: number
  readonly faults: number
  readonly lost: number
  readonly repeated: number
  readonly recoveryP50: number | null
  readonly recoveryMax: number | null
  readonly seconds: number
  readonly peakMiB: number
  readonly on: string
}

interface Results {
  readonly environment: string
  readonly rows: Readonly<Record<string, Row>>
}

const root = join(import.meta.dirname, "../..")
const page = join(root, "docs/reliability.md")
const file = join(root, "docs/reliability/results.json")
const begin = "<!-- faults: written by npm run faults -->"
const end = "<!-- /faults -->"

const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((total, number) => total + number, 0)

const rowOf = (repetitions: ReadonlyArray<Repetition>): Row => {
  const recoveries = repetitions.flatMap((repetition) => repetition.recoveries).sort((a, b) => a - b)
  const seeds = repetitions.map(({ seed }) => seed)
  return {
    times: repetitions.length,
    passed: repetitions.filter(({ violations }) => violations.length === 0).length,
    seeds: `${Math.min(...seeds)} to ${Math.max(...seeds)}`,
    messages: sum(repetitions.map(({ messages }) => messages)),
    faults: sum(repetitions.map(({ faults }) => faults)),
    lost: sum(repetitions.map(({ lost }) => lost)),
    repeated: sum(repetitions.map(({ repeated }) => repeated)),
    recoveryP50: recoveries[Math.floor(recoveries.length / 2)] ?? null,
    recoveryMax: recoveries.at(-1) ?? null,
    seconds: Math.round(sum(repetitions.map(({ seconds }) => seconds))),
    peakMiB: Math.max(...repetitions.map(({ peakMiB }) => peakMiB)),
    on: new Date().toISOString().slice(0, 10)
  }
}

const environment = () => {
  const redis = execFileSync(process.env["REDIS_SERVER"] ?? "redis-server", ["--version"], { encoding: "utf8" })
  return `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, ${
    Math.round(totalmem() / 2 ** 30)
  } GiB, ${process.platform}; ` +
    `Redis ${/v=(\S+)/.exec(redis)?.[1] ?? "unknown"}, Node ${process.versions.node}`
}

const count = (value: number) => value.toLocaleString("en")

const table = (all: ReadonlyArray<readonly [string, Run]>, { environment, rows }: Results) => {
  const head = [
    "",
    "run",
    "passed",
    "messages",
    "faults",
    "lost",
    "handled again",
    "recovery p50",
    "max",
    "bound",
    "RSS max"
  ]
  const millis = (value: number | null) => value === null ? "" : `${count(Math.round(value))} ms`
  const cells = all.flatMap(([name, run]) => {
    const row = rows[name]
    if (row === undefined) return []
    return [[
      String(run.number),
      `${run.title} (\`${name}\`)`,
      `${row.passed} of ${row.times}`,
      count(row.messages),
      count(row.faults),
      `${count(row.lost)}${run.mayLose === true ? " (part of the fault)" : ""}`,
      count(row.repeated),
      millis(row.recoveryP50),
      millis(row.recoveryMax),
      millis(run.recoveryWithin ?? null),
      `${row.peakMiB} MiB`
    ]]
  })
  const rule = head.map((_, i) => i < 2 ? "---" : "---:")
  return `${[head, rule, ...cells].map((row) => `| ${row.join(" | ")} |`).join("\n")}\n\n${environment}.`
}

/** Adds the new figures to the earlier ones, and writes the table. */
export const write = (all: ReadonlyArray<readonly [string, Run]>, repetitions: ReadonlyArray<Repetition>) =>
  Effect.sync(() => {
    const before = existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Results).rows : {}
    const found = Object.entries(Object.groupBy(repetitions, ({ run }) => run))
      .map(([name, own]) => [name, rowOf(own!)] as const)
    const known = new Set(all.map(([name]) => name))
    const rows = Object.fromEntries(
      Object.entries({ ...before, ...Object.fromEntries(found) }).filter(([name]) => known.has(name))
    )
    const results: Results = { environment: environment(), rows }
    mkdirSync(join(root, "docs/reliability"), { recursive: true })
    writeFileSync(file, `${JSON.stringify(results, null, 1)}\n`)
    const text = readFileSync(page, "utf8")
    const from = text.indexOf(begin)
    const to = text.indexOf(end)
    if (from < 0 || to < from) throw new Error(`${page} has no place for the table: the lines "${begin}" and "${end}"`)
    writeFileSync(page, `${text.slice(0, from + begin.length)}\n\n${table(all, results)}\n\n${text.slice(to)}`)
  })
