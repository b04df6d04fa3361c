/**
 * The packed package in small projects of its users: test runners, module systems, compilers, package managers, runtimes, bundlers. Each project
 * of `projects/` is copied to a temporary folder and installed from the tarball; the programs of `plain/` are in each. All use one Redis.
 *
 *     npm run test:consumers -- [--short] [--built] [--only NAME]…
 *
 * `--short` takes fewer projects, and `--built` the dist/ that is there.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { execFile } from "node:child_process"
import { cp, mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { parseArgs } from "node:util"
import * as RedisServer from "../fixtures/RedisServer.ts"

const root = join(import.meta.dirname, "../..")
const projects = join(import.meta.dirname, "projects")

const npm = ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline"]

/** A project, how it is installed, and whether it is in the short form. */
interface Consumer {
  readonly name: string
  readonly install: ReadonlyArray<string>
  readonly project: string
  readonly isShort?: boolean
}

const consumers: ReadonlyArray<Consumer> = [
  { name: "plain", project: "plain", install: npm, isShort: true },
  { name: "types", project: "types", install: npm, isShort: true },
  { name: "effect3", project: "effect3", install: npm, isShort: true },
  { name: "jest", project: "jest", install: npm, isShort: true },
  { name: "ts-jest", project: "ts-jest", install: npm },
  { name: "vitest", project: "vitest", install: npm },
  { name: "mocha", project: "mocha", install: npm },
  { name: "node22", project: "node22", install: npm },
  { name: "bundled", project: "bundled", install: npm },
  { name: "bun", project: "bun", install: npm },
  { name: "deno", project: "deno", install: npm },
  { name: "pnpm", project: "plain", install: ["npx", "--yes", "pnpm@12.21.0", "add"] },
  { name: "yarn", project: "plain", install: ["npx", "--yes", "yarn@1.22.22", "add", "--no-lockfile"] }
]

const { values: { built, only, short } } = parseArgs({
  options: {
    built: { type: "boolean", default: false },
    only: { type: "string", multiple: true },
    short: { type: "boolean", default: false }
  }
})

/** The Node of this process, and nothing of the scripts that started it. */
const environment = (redisUrl: string): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_(?!config_)/.test(name))),
  PATH: `${dirname(process.execPath)}:${process.env["PATH"]}`,
  NODE_OPTIONS: "",
  REDIS_URL: redisUrl,
  ...(short ? { SHORT: "yes" } : {})
})

const run = (
  cwd: string,
  env: NodeJS.ProcessEnv,
  [file, ...args]: ReadonlyArray<string>
): Effect.Effect<string, Error> =>
  Effect.callback((resume) => {
    execFile(file!, args, { cwd, env, timeout: 300_000 }, (error, stdout, stderr) =>
      resume(
        error === null
          ? Effect.succeed(stdout)
          : Effect.fail(new Error(`${[file, ...args].join(" ")}: ${error.code}\n${stdout}${stderr}`))
      ))
  })

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "rotif-consumers-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

const seconds = (since: number) => ((performance.now() - since) / 1000).toFixed(1)

/** Tries one project; `false` if something fails, which is printed. */
const attempt = Effect.fnUntraced(function*(consumer: Consumer, tarball: string, env: NodeJS.ProcessEnv) {
  const begun = performance.now()
  const folder = yield* temporary
  for (const name of new Set(["plain", consumer.project])) {
    yield* Effect.promise(() => cp(join(projects, name), folder, { recursive: true }))
  }
  return yield* run(folder, env, [...consumer.install, tarball]).pipe(
    Effect.andThen(run(folder, env, ["npm", "test", "--silent"])),
    Effect.matchEffect({
      onSuccess: (printed) =>
        Effect.as(Console.log(`✓ ${consumer.name} (${seconds(begun)} s)\n${printed.trim()}\n`), true),
      onFailure: ({ message }) =>
        Effect.as(Console.log(`✗ ${consumer.name} (${seconds(begun)} s)\n${message}\n`), false)
    })
  )
}, Effect.scoped)

const main = Effect.gen(function*() {
  const begun = performance.now()
  const folder = yield* temporary
  const { url } = yield* RedisServer.make()
  const env = environment(url)
  if (!built) yield* run(root, env, ["npm", "run", "build"])
  yield* run(root, env, ["npm", "pack", "--ignore-scripts", "--pack-destination", folder])
  const [archive] = yield* Effect.promise(() => readdir(folder))
  const chosen = consumers.filter(({ isShort, name }) => only === undefined ? !short || isShort : only.includes(name))
  const passed = yield* Effect.forEach(chosen, (consumer) => attempt(consumer, join(folder, archive!), env), {
    concurrency: 2
  })
  yield* Console.log(`${passed.filter(Boolean).length} of ${passed.length} passed in ${seconds(begun)} s`)
  if (passed.length === 0 || passed.includes(false)) process.exitCode = 1
})

NodeRuntime.runMain(Effect.scoped(main))
