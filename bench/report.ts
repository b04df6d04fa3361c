/**
 * The figures as tables, and beside the marks they have to meet.
 */
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { join } from "node:path"
import type { Figures } from "./jobs.ts"

export interface Results {
  readonly environment: Readonly<Record<string, string>>
  /** By workload and peer. */
  readonly workloads: Readonly<Record<string, Readonly<Record<string, Figures>>>>
}

const titles: Readonly<Record<string, string>> = {
  raw: "raw ioredis, pipelined",
  rawEach: "raw ioredis, one by one",
  rotif: "**Rotif**",
  rotifOnce: "**Rotif**, `exactlyOnce`",
  rotifBatch: "**Rotif**, batches of 100",
  manager: "**Rotif**, `NotificationManager`",
  bullmq: "BullMQ",
  beeQueue: "bee-queue",
  effectQueue: "Effect `PersistedQueue`",
  groupmq: "groupmq"
}

export const titleOf = (peer: string): string => titles[peer] ?? peer

/** The machine and the versions. */
export const environment = (scale: number, repetitions: number): Readonly<Record<string, string>> => {
  const version = (path: string) =>
    (JSON.parse(readFileSync(join(import.meta.dirname, path, "package.json"), "utf8")) as { readonly version: string })
      .version
  const redis = execFileSync(process.env["REDIS_SERVER"] ?? "redis-server", ["--version"], { encoding: "utf8" })
  return {
    machine: `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, ${
      Math.round(totalmem() / 2 ** 30)
    } GiB, ${process.platform}`,
    node: process.versions.node,
    redis: /v=(\S+)/.exec(redis)?.[1] ?? "unknown",
    effect: version("../node_modules/effect"),
    ...Object.fromEntries(
      ["ioredis", "bullmq", "bee-queue", "groupmq"].map((name) => [name, version(join("node_modules", name))])
    ),
    run: `scale ${scale}, medians of ${repetitions}, ${new Date().toISOString().slice(0, 10)}`
  }
}

const round = (value: number) =>
  value >= 1000
    ? (Math.round(value / 10) * 10).toLocaleString("en")
    : value >= 100
    ? value.toFixed(0)
    : value >= 10
    ? value.toFixed(1)
    : value.toFixed(2)

interface Column {
  readonly title: string
  readonly of: (figures: Figures) => string
}

const column = (title: string, name: string, text = round): Column => ({
  title,
  of: (figures) => figures[name] === undefined ? "" : text(figures[name])
})

const columns: ReadonlyArray<Column> = [
  column("msg/s", "rate"),
  column("Redis µs", "redisMicros"),
  column("Node µs", "nodeMicros"),
  column("commands", "commands", (value) => value.toFixed(2)),
  column("p50 ms", "p50", (value) => (value / 1000).toFixed(2)),
  column("p95 ms", "p95", (value) => (value / 1000).toFixed(2)),
  column("p99 ms", "p99", (value) => (value / 1000).toFixed(2)),
  column("Redis core", "core", (value) => `${(value * 100).toFixed(1)} %`),
  column("bytes", "bytes", (value) => value.toFixed(0)),
  column("moved/s", "movingRate"),
  column("Redis µs moved", "movingMicros"),
  column("RSS MiB", "rssMiB", (value) => value.toFixed(0)),
  column("loop p99 ms", "loopMillis", (value) => value.toFixed(1))
]

const markdown = (rows: ReadonlyArray<ReadonlyArray<string>>, texts: number) =>
  rows.map((cells, i) =>
    `| ${cells.join(" | ")} |${i === 0 ? `\n| ${cells.map((_, j) => j < texts ? "---" : "---:").join(" | ")} |` : ""}`
  ).join("\n")

/** The rows of the README. */
const short: ReadonlyArray<readonly [workload: string, title: string, figures: ReadonlyArray<string>]> = [
  ["publish bulk, 200 B", "publish, bulk", ["rate", "redisMicros", "nodeMicros"]],
  ["drain at 100, 200 B", "handle, 100 at a time", ["rate", "redisMicros", "nodeMicros"]]
]

const shortTable = ({ environment: { machine, node, redis, run }, workloads }: Results) => {
  const peers = Object.keys(titles).filter((peer) => short.some(([name]) => workloads[name]?.[peer] !== undefined))
  const rows = peers.map((peer) => [
    titleOf(peer),
    ...short.flatMap(([name, , figures]) => {
      const own = workloads[name]?.[peer]
      return figures.map((figure) => own?.[figure] === undefined ? "" : round(own[figure]))
    })
  ])
  const head = ["", ...short.flatMap(([, title]) => [`${title}: msg/s`, "Redis µs", "Node µs"])]
  return `${
    markdown([head, ...rows], 1)
  }\n\n200-byte messages; µs of CPU per message. ${machine}; Redis ${redis}, Node ${node}; ${run}.`
}

const markTable = (results: Results) =>
  markdown([
    ["", "measured", "mark", ""],
    ...marks(results).map(({ holds, mark, value, what }) => [what, value, mark, holds ? "met" : "**missed**"])
  ], 1)

/** Everything, or what stands in the README. */
export const table = (results: Results, size: "long" | "short" = "long"): string => {
  if (size === "short") return shortTable(results)
  const where = Object.entries(results.environment).map(([name, value]) => `${name} ${value}`).join("; ")
  const parts = Object.entries(results.workloads).map(([name, row]) => {
    const used = columns.filter((column) => Object.values(row).some((figures) => column.of(figures) !== ""))
    const rows = Object.keys(titles).flatMap((peer) => row[peer] === undefined ? [] : [[peer, row[peer]] as const]).map(
      (
        [peer, figures]
      ) => [titleOf(peer), ...used.map((column) => column.of(figures))]
    )
    return `### ${name.charAt(0).toUpperCase()}${name.slice(1)}\n\n${
      markdown([["", ...used.map(({ title }) => title)], ...rows], 1)
    }`
  })
  return [`Measured on: ${where}.`, "## Marks", markTable(results), "## Workloads", ...parts].join("\n\n")
}

const begin = "<!-- bench: begin -->"
const end = "<!-- bench: end -->"

/** Puts a text between the marks of a page. */
export const withSection = (page: string, text: string): string => {
  const [from, to] = [page.indexOf(begin), page.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`the page has no "${begin}" … "${end}"`)
  return `${page.slice(0, from)}${begin}\n${text}\n${page.slice(to)}`
}

interface Mark {
  readonly what: string
  readonly value: string
  readonly mark: string
  readonly holds: boolean
}

/** The marks of which the figures are there. */
export const marks = ({ workloads }: Results): ReadonlyArray<Mark> => {
  const get = (workload: string, peer: string, figure: string) => workloads[workload]?.[peer]?.[figure]
  const out: Array<Mark> = []
  const check = (
    what: string,
    values: ReadonlyArray<number | undefined>,
    of: (...values: ReadonlyArray<number>) => number,
    comparison: "≤" | "≥",
    limit: number,
    unit: string
  ) => {
    if (values.some((value) => value === undefined)) return
    const value = of(...values as ReadonlyArray<number>)
    out.push({
      what,
      value: `${value.toFixed(2)} ${unit}`,
      mark: `${comparison} ${limit} ${unit}`,
      holds: comparison === "≤" ? value <= limit : value >= limit
    })
  }
  const ratio = (a: number, b: number) => a / b
  const same = (a: number) => a
  const best = (workload: string, figure: string) => {
    const values = ["bullmq", "beeQueue", "effectQueue", "groupmq"].flatMap((peer) => get(workload, peer, figure) ?? [])
    return values.length === 0 ? undefined : Math.max(...values)
  }
  const bulk = "publish bulk, 200 B"
  const at100 = "drain at 100, 200 B"
  for (const [figure, name, limit] of [["nodeMicros", "Node", 1.3], ["redisMicros", "Redis", 1.2]] as const) {
    check(
      `publish bulk, ${name} µs`,
      [get(bulk, "rotif", figure), get(bulk, "raw", figure)],
      ratio,
      "≤",
      limit,
      "× raw"
    )
  }
  const awaited = "publish awaited, 200 B"
  check(
    "publish awaited, rate",
    [get(awaited, "rotif", "rate"), get(awaited, "raw", "rate")],
    ratio,
    "≥",
    0.9,
    "× raw (level)"
  )
  check(
    "drain at 100, rate",
    [get(at100, "rotif", "rate"), get(at100, "raw", "rate")],
    ratio,
    "≥",
    0.6,
    "× raw with deletion"
  )
  check("drain at 100, rate", [get(at100, "rotif", "rate"), get(at100, "bullmq", "rate")], ratio, "≥", 5, "× BullMQ")
  check(
    "drain at 100, rate",
    [get(at100, "rotif", "rate"), get(at100, "beeQueue", "rate")],
    ratio,
    "≥",
    4,
    "× bee-queue"
  )
  check("drain at 100, Redis", [get(at100, "rotif", "redisMicros")], same, "≤", 2.5, "µs")
  check("drain at 100, Node", [get(at100, "rotif", "nodeMicros")], same, "≤", 8, "µs")
  const at1 = "drain at 1, 200 B"
  check("drain at 1, rate", [get(at1, "rotif", "rate"), best(at1, "rate")], ratio, "≥", 5, "× the best peer")
  for (const p of ["p50", "p99"]) {
    const calm = "latency at 200 msg/s, 200 B"
    check(`latency ${p} at 200 msg/s`, [get(calm, "rotif", p), get(calm, "raw", p)], ratio, "≤", 1.5, "× raw")
  }
  check("bytes queued", [get("memory, queued", "rotif", "bytes")], same, "≤", 260, "bytes")
  check("bytes scheduled", [get("memory, scheduled", "rotif", "bytes")], same, "≤", 420, "bytes")
  check("bytes left", [get("memory, left", "rotif", "bytes")], Math.round, "≤", 0, "bytes")
  for (const figure of ["redisMicros", "nodeMicros"]) {
    const title = figure === "redisMicros" ? "Redis µs" : "Node µs"
    check(
      `20 groups, ${title} per message and group`,
      [get("fan-out to 20", "rotif", figure), get("fan-out to 1", "rotif", figure)],
      ratio,
      "≤",
      1.5,
      "× 1 group"
    )
  }
  for (const [figure, title] of [["redisMicros", "storing"], ["movingMicros", "moving"]] as const) {
    check(
      `1,000,000 scheduled, Redis µs of ${title}`,
      [get("scheduled backlog of 1,000,000", "rotif", figure), get("scheduled backlog of 10,000", "rotif", figure)],
      ratio,
      "≤",
      1.5,
      "× 10,000"
    )
  }
  const [one, many] = ["wildcard over 1", "wildcard over 1000"]
  check(
    "wildcard over 1,000, Redis µs under load",
    [get(many, "rotif", "redisMicros"), get(one, "rotif", "redisMicros")],
    ratio,
    "≤",
    3,
    "× 1 channel"
  )
  check("wildcard over 1,000, p50 at 200 msg/s", [get(many, "rotif", "p50")], (micros) => micros! / 1000, "≤", 10, "ms")
  check(
    "wildcard over 1,000, at 200 msg/s",
    [get(many, "rotif", "core")],
    (core) => core! * 100,
    "≤",
    10,
    "% of a Redis core"
  )
  check(
    "exactlyOnce, drain at 100, rate",
    [get(at100, "rotifOnce", "rate"), get(at100, "bullmq", "rate")],
    ratio,
    "≥",
    2,
    "× BullMQ plain"
  )
  return out
}
