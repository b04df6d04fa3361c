/**
 * Where the CPU time of a message goes, for raw ioredis and for Rotif: `npm run bench:profile` samples the measured part of a few jobs
 * and writes the functions that take most, with their share, to `docs/performance/profiles.md`. `ONLY` (a regular expression) says which
 * jobs; `WRITE=0` only prints.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import type { Profiler } from "node:inspector"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Unplaced } from "./jobs.ts"
import { measure } from "./measuring.ts"

const common = { bytes: 200, groups: 1, waitMillis: 0, failures: 0 } as const

const jobs: Readonly<Record<string, (peer: string) => Unplaced>> = {
  "publish awaited": (peer) => ({ ...common, kind: "publish", how: "awaited", peer, count: 20_000 }),
  "publish bulk": (peer) => ({ ...common, kind: "publish", how: "bulk", peer, count: 200_000 }),
  "drain at 100": (peer) => ({ ...common, kind: "drain", concurrency: 100, peer, count: 200_000 }),
  "latency at 200 msg/s": (peer) => ({ ...common, kind: "latency", rate: 200, peer, count: 2000 })
}

/** So many functions are shown. */
const shown = 14

/** Whose code it is: what the summary is grouped by. */
const ownerOf = (url: string, name: string): string =>
  url.includes("/src/") && !url.includes("/node_modules/")
    ? "Rotif"
    : url.includes("/node_modules/ioredis/") || url.includes("/@ioredis/")
    ? "ioredis"
    : url.includes("/node_modules/effect/")
    ? "Effect"
    : url.includes("/bench/")
    ? "the bench"
    : name === "(garbage collector)"
    ? "garbage collection"
    : "Node and V8"

interface Share {
  readonly name: string
  micros: number
}

const add = (to: Map<string, Share>, name: string, micros: number) => {
  const known = to.get(name)
  if (known === undefined) to.set(name, { name, micros })
  else known.micros += micros
}

/** Self time by owner and by function, without the time the process had nothing to do. */
const sharesOf = ({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile) => {
  const byId = new Map(nodes.map((node) => [node.id, node.callFrame]))
  const owners = new Map<string, Share>()
  const functions = new Map<string, Share>()
  for (const [i, id] of samples.entries()) {
    const frame = byId.get(id)!
    const name = frame.functionName === "" ? "(anonymous)" : frame.functionName
    // `post` is the end of the profiler itself.
    if (name === "(idle)" || (name === "post" && frame.url === "node:inspector")) continue
    // What comes before a sample is its time.
    const micros = timeDeltas[i]!
    add(owners, ownerOf(frame.url, name), micros)
    const place = frame.url === "" ? "" : ` (${frame.url.split("/").slice(-2).join("/")}:${frame.lineNumber + 1})`
    add(functions, `${name}${place}`, micros)
  }
  const sorted = (shares: Map<string, Share>) => [...shares.values()].toSorted((a, b) => b.micros - a.micros)
  return { owners: sorted(owners), functions: sorted(functions) }
}

const only = new RegExp(process.env["ONLY"] ?? "")
const directory = mkdtempSync(join(tmpdir(), "rotif-profile-"))
const out: Array<string> = []
for (const [name, jobFor] of Object.entries(jobs)) {
  if (!only.test(name)) continue
  out.push("", `## ${name[0]!.toUpperCase()}${name.slice(1)}`)
  for (const [peer, label] of [["raw", "raw ioredis"], ["rotif", "Rotif"]] as const) {
    const job = jobFor(peer)
    const file = join(directory, "profile")
    // Once without the profiler, which takes time itself.
    const plain = await measure(job)
    const sampled = await measure(job, { PROFILE: file })
    if (plain === undefined || sampled === undefined) throw new Error(`"${name}" failed for ${peer}`)
    const { functions, owners } = sharesOf(JSON.parse(readFileSync(file, "utf8")) as Profiler.Profile)
    const total = owners.reduce((sum, { micros }) => sum + micros, 0)
    const share = (micros: number) => `${(micros / total * 100).toFixed(1)} %`
    // The samples do not see the time of the system's threads: they say how to divide what was measured without them.
    const micros = (part: number) => (part / total * plain["nodeMicros"]!).toFixed(2)
    out.push(
      "",
      `### ${label}: ${plain["nodeMicros"]!.toPrecision(3)} Node µs a message`,
      "",
      "| whose code | share | Node µs |",
      "| --- | ---: | ---: |",
      ...owners.map((each) => `| ${each.name} | ${share(each.micros)} | ${micros(each.micros)} |`),
      "",
      "| function, itself | share | Node µs |",
      "| --- | ---: | ---: |",
      ...functions.slice(0, shown).map((each) =>
        `| \`${each.name}\` | ${share(each.micros)} | ${micros(each.micros)} |`
      )
    )
  }
}
rmSync(directory, { recursive: true })
console.log(out.join("\n").trim())

if (process.env["WRITE"] !== "0") {
  const page = join(import.meta.dirname, "..", "docs", "performance", "profiles.md")
  const [head] = readFileSync(page, "utf8").split("<!-- profiles -->")
  writeFileSync(page, `${head}<!-- profiles -->\n${out.join("\n")}\n`)
}
