/**
 * The start of a small program with `rotif/promise` and with BullMQ, each in a project of its own with nothing else installed: the time from the
 * start of Node to the first published message, the memory of the process then, the loaded files, and the size of `node_modules`. The two take
 * turns. Of each figure the median is shown.
 *
 *     npm run bench:start -- [--rounds N]
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { privateServer } from "./privateServer.ts"

const root = join(import.meta.dirname, "..")
const { dependencies } = JSON.parse(readFileSync(join(import.meta.dirname, "package.json"), "utf8"))
const { values: { rounds } } = parseArgs({ options: { rounds: { type: "string", default: "15" } } })

/** What the program prints when its message is stored. */
interface Figures {
  readonly millis: number
  readonly rssMB: number
  readonly files: number
}

const told = `console.log(JSON.stringify({
  millis: performance.now(),
  rssMB: process.memoryUsage.rss() / 1e6,
  files: Object.keys((await import("node:module")).createRequire(import.meta.url).cache).length
}))`

const programs = {
  rotif: `import { NotificationManager } from "rotif/promise"
const manager = new NotificationManager({ redis: process.env.REDIS_URL, reports: false })
await manager.publish("orders.placed", { id: 1 })
${told}
await manager.stopAll()`,
  bullmq: `import { Queue } from "bullmq"
const queue = new Queue("orders", { connection: { url: process.env.REDIS_URL } })
await queue.add("placed", { id: 1 })
${told}
await queue.close()`
} as const

type Name = keyof typeof programs
const names = ["rotif", "bullmq"] as const

const run = (cwd: string, url: string, file: string, ...args: ReadonlyArray<string>): Effect.Effect<string, Error> =>
  Effect.callback((resume) => {
    execFile(
      file,
      args,
      { cwd, env: { ...process.env, REDIS_URL: url } },
      (error, stdout, stderr) =>
        resume(error === null ? Effect.succeed(stdout) : Effect.fail(new Error(`${error.message}\n${stdout}${stderr}`)))
    )
  })

const median = (values: ReadonlyArray<number>): number => values.toSorted((a, b) => a - b)[values.length >> 1]!

const main = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "rotif-start-"))),
    (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
  )
  const url = `redis://127.0.0.1:${yield* privateServer}`
  yield* run(root, url, "npm", "run", "build")
  yield* run(root, url, "npm", "pack", "--ignore-scripts", "--pack-destination", folder)
  const archive = (yield* Effect.promise(() => readdir(folder))).find((name) => name.endsWith(".tgz"))!
  const installed: Record<Name, string> = { rotif: join(folder, archive), bullmq: `bullmq@${dependencies.bullmq}` }
  for (const name of names) {
    const project = join(folder, name)
    yield* Effect.promise(() => mkdir(project))
    yield* Effect.promise(() => writeFile(join(project, "package.json"), `{ "private": true, "type": "module" }`))
    yield* Effect.promise(() => writeFile(join(project, "program.js"), programs[name]))
    yield* run(project, url, "npm", "install", "--no-audit", "--no-fund", installed[name])
    // BullMQ wants an ioredis beside it.
    if (name === "bullmq") {
      yield* run(project, url, "npm", "install", "--no-audit", "--no-fund", `ioredis@${dependencies.ioredis}`)
    }
  }
  const all: Record<Name, Array<Figures>> = { rotif: [], bullmq: [] }
  for (let round = 0; round < Number(rounds); round++) {
    for (const name of names) {
      const printed = yield* run(join(folder, name), url, process.execPath, "program.js")
      all[name].push(JSON.parse(printed.trim().split("\n").at(-1)!) as Figures)
    }
  }
  for (const name of names) {
    const size = Number((yield* run(join(folder, name), url, "du", "-sb", "node_modules")).split("\t")[0]) / 1e6
    const of = (figure: keyof Figures) => median(all[name].map((figures) => figures[figure]))
    yield* Console.log(
      `${name}: ${of("millis").toFixed(0)} ms, ${of("rssMB").toFixed(1)} MB, ${of("files")} files by require, ` +
        `node_modules ${size.toFixed(1)} MB`
    )
  }
  const ratio = (figure: keyof Figures) =>
    (median(all.rotif.map((figures) => figures[figure])) / median(all.bullmq.map((figures) => figures[figure])))
      .toFixed(2)
  yield* Console.log(`rotif to bullmq: time ${ratio("millis")}, memory ${ratio("rssMB")}`)
})

NodeRuntime.runMain(Effect.scoped(main))
