/**
 * The package as a new user has it: packed, unpacked into an empty project, and used by the example of the README, in TypeScript with
 * strict settings and in plain JavaScript. Nothing is downloaded: its dependencies are those of this repository.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { cp, mkdir, mkdtemp, readdir, readFile, realpath, rm, symlink, writeFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { afterAll } from "vitest"

const root = join(import.meta.dirname, "..")

const run = (cwd: string, file: string, args: ReadonlyArray<string>) =>
  new Promise<string>((resolve, reject) => {
    execFile(file, args, { cwd, timeout: 60_000, killSignal: "SIGKILL" }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`${file} ${args.join(" ")}: ${error.code}\n${stdout}${stderr}`))
    })
  })

const node = (cwd: string, ...args: ReadonlyArray<string>) => run(cwd, process.execPath, args)

describe("the package", () => {
  let project: string
  const installed = () => join(project, "node_modules/rotif")
  let examples: ReadonlyArray<string>
  let modules: ReadonlyArray<string>

  beforeAll(async () => {
    modules = (await readdir(join(root, "src"))).filter((name) => name.endsWith(".ts") && name !== "index.ts")
    project = await mkdtemp(join(tmpdir(), "rotif-package-"))
    // Not into dist/: another check may build there at the same time.
    const built = join(project, "build")
    await mkdir(built)
    for (const file of ["package.json", "README.md", "LICENSE", "CHANGELOG.md", "src", "docs"]) {
      await cp(join(root, file), join(built, file), {
        recursive: true,
        filter: (from) => !from.endsWith("node_modules")
      })
    }
    await node(root, "build/main.ts", "--out", join(built, "dist"))
    await run(built, "npm", ["pack", "--ignore-scripts", "--pack-destination", project])
    const [archive] = (await readdir(project)).filter((name) => name.endsWith(".tgz"))
    await mkdir(installed(), { recursive: true })
    await run(project, "tar", ["-xzf", archive!, "-C", installed(), "--strip-components", "1"])
    // From the files of the repository, not of a tool that runs this.
    const dependency = createRequire(join(root, "package.json"))
    for (const name of ["effect", "ioredis", "@types/node", "undici-types"]) {
      const link = join(project, "node_modules", name)
      await mkdir(dirname(link), { recursive: true })
      await symlink(dirname(dependency.resolve(`${name}/package.json`)), link)
    }
    const readme = await readFile(join(root, "README.md"), "utf8")
    examples = Array.from(readme.matchAll(/```ts\n([^]*?)```/g), ([, code]) => code!)
    await writeFile(join(project, "package.json"), JSON.stringify({ type: "module" }))
  }, 120_000)
  afterAll(() => rm(project, { recursive: true, force: true }))

  /** What the examples print: that with Effect, and that with Promises. */
  const worked = [
    /^Published \S+ on orders.placed\ncharged 42 for o-1 of \S+, attempt 2\n$/,
    /^published \S+\ncharged 42 for o-1, attempt 2\n$/
  ]

  it("the README has an example for each", () => {
    assert.lengthOf(examples, worked.length)
  })

  it("holds what is needed and nothing else", async () => {
    const entries = await readdir(installed())
    assert.deepStrictEqual(entries.sort(), [
      "CHANGELOG.md",
      "LICENSE",
      "README.md",
      "dist",
      "docs",
      "package.json",
      "src"
    ])
  })

  it("runs the examples of the README in plain JavaScript", async () => {
    for (const [i, example] of examples.entries()) {
      await writeFile(join(project, "example.mjs"), example)
      assert.match(await node(project, "example.mjs"), worked[i]!)
    }
  })

  it("gives the Promise API to import and to require, without effect", async () => {
    const alone = await mkdtemp(join(tmpdir(), "rotif-promise-"))
    try {
      await mkdir(join(alone, "node_modules"))
      // A copy: a link would find the effect beside the original.
      await cp(installed(), join(alone, "node_modules/rotif"), { recursive: true })
      await symlink(await realpath(join(project, "node_modules/ioredis")), join(alone, "node_modules/ioredis"))
      await writeFile(join(alone, "example.mjs"), examples[1]!)
      assert.match(await node(alone, "example.mjs"), worked[1]!)
      await writeFile(
        join(alone, "names.mjs"),
        `import { createRequire } from "node:module"
        import * as imported from "rotif/promise"
        const required = createRequire(import.meta.url)("rotif/promise")
        console.log(Object.keys(required).sort().join() === Object.keys(imported).sort().join())`
      )
      assert.strictEqual(await node(alone, "names.mjs"), "true\n")
    } finally {
      await rm(alone, { recursive: true, force: true })
    }
  })

  it("has the licences of what is inside the built files", async () => {
    const text = await readFile(join(installed(), "dist/promise.LICENSES.txt"), "utf8")
    const map = JSON.parse(await readFile(join(installed(), "dist/promise.js.map"), "utf8"))
    const names = new Set(
      (map.sources as ReadonlyArray<string>).flatMap((file) =>
        Array.from(file.matchAll(/node_modules\/((?:@[^/]+\/)?[^/]+)/g), ([, name]) => name!)
      )
    )
    assert.deepStrictEqual([...names], ["effect"])
    for (const name of names) assert.match(text, new RegExp(`^${name} [0-9.]+ \\(MIT\\)$`, "m"))
  })

  it("compiles the examples with strict settings, and runs them", async () => {
    const files = examples.map((_, i) => `example${i}.ts`)
    for (const [i, file] of files.entries()) await writeFile(join(project, file), examples[i]!)
    const compilerOptions = {
      target: "ES2022",
      // Effect describes Web Crypto and streams in words of the DOM.
      lib: ["ES2023", "DOM", "DOM.Iterable"],
      module: "NodeNext",
      strict: true,
      exactOptionalPropertyTypes: true,
      types: ["node"],
      outDir: "out"
    }
    await writeFile(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files }))
    await node(project, join(root, "node_modules/typescript/bin/tsc"), "-p", ".")
    for (const [i, file] of files.entries()) {
      assert.match(await node(project, `out/${file.replace(".ts", ".js")}`), worked[i]!)
    }
  })

  it("has nothing internal in its types", async () => {
    const marked = await Promise.all(modules.map(async (file) => {
      const source = await readFile(join(root, "src", file), "utf8")
      return Array.from(
        source.matchAll(/@internal\n \*\/\nexport (const|class|function|interface|type) (\w+)/g),
        ([, kind, name]) => ({ module: basename(file, ".ts"), kind: kind!, name: name! })
      )
    }))
    const internal = marked.flat()
    assert.isAbove(internal.length, 5)
    // Each of these lines has to be an error: an internal name that can be reached makes the directive above it one.
    const lines = internal.map(({ kind, module, name }, i) =>
      `// @ts-expect-error\nexport type T${i} = ${
        kind === "interface" || kind === "type" ? "" : "typeof "
      }rotif.${module}.${name}\n`
    )
    await writeFile(join(project, "internal.ts"), `import type * as rotif from "rotif"\n${lines.join("")}`)
    const compilerOptions = { module: "NodeNext", strict: true, skipLibCheck: true, types: ["node"], noEmit: true }
    await writeFile(join(project, "internal.json"), JSON.stringify({ compilerOptions, files: ["internal.ts"] }))
    await node(project, join(root, "node_modules/typescript/bin/tsc"), "-p", "internal.json")
  })

  it("describes each public item in a sentence, with its category and version", async () => {
    const dist = join(installed(), "dist")
    const parts = new Map<string, ReadonlySet<string> | "all">(
      modules.map((file) => [file.replace(".ts", ".d.ts"), "all"])
    )
    const undescribed: Array<string> = []
    // A map that grows while it is walked through: what a module exports of a room is public as well.
    for (const [file, names] of parts) {
      const source = await readFile(join(dist, file), "utf8")
      for (const [, what, from] of source.matchAll(/^export (?:type )?(\*|\{[^}]*\}) from "(\.[^"]+)\.ts"/gm)) {
        const room = `${join(dirname(file), from!)}.d.ts`
        const known = parts.get(room)
        if (known === "all") continue
        const named = what!.replaceAll(/[{}]|\btype /g, "").split(",").map((name) => name.trim().split(" as ")[0]!)
        parts.delete(room)
        parts.set(room, what === "*" ? "all" : new Set([...known ?? [], ...named]))
      }
      const items = source.matchAll(
        /(\/\*\*(?:[^*]|\*(?!\/))*\*\/\n)?^export (?:declare )?(?:const|class|function|interface|type) (\w+)/gm
      )
      for (const [, comment = "", name] of items) {
        if (names !== "all" && !names.has(name!)) continue
        const isDescribed = /^\/\*\*\s+(\* )?[^@\s]/.test(comment) && /@category \w/.test(comment) &&
          /@since \d/.test(comment)
        if (!isDescribed) undescribed.push(`${file}: ${name}`)
      }
    }
    assert.isAbove(parts.size, modules.length)
    assert.deepStrictEqual(undescribed, [])
  })

  it("closes every folder of its sources", async () => {
    const folders = (await readdir(join(root, "src"), { withFileTypes: true })).filter((entry) => entry.isDirectory())
    const rooms = await Promise.all(folders.map(async ({ name }) => {
      const [file] = (await readdir(join(root, "src", name))).filter((file) => file.endsWith(".ts"))
      return `rotif/${name}/${basename(file!, ".ts")}`
    }))
    const script = `
      const codes = ${JSON.stringify(rooms)}.map((path) => import(path).then(() => path, (error) => error.code))
      console.log(JSON.stringify([...new Set(await Promise.all(codes))]))
    `
    await writeFile(join(project, "rooms.mjs"), script)
    assert.strictEqual(await node(project, "rooms.mjs"), `["ERR_PACKAGE_PATH_NOT_EXPORTED"]\n`)
  })

  it("gives each module a path of its own, and keeps the inner ones to itself", async () => {
    const names = modules.map((file) => basename(file, ".ts"))
    const paths = names.map((name) => `rotif/${name}`)
    const script = `
      for (const path of ${JSON.stringify(paths)}) await import(path)
      const inner = await import("rotif/internal/keys").catch((error) => error.code)
      console.log(inner, Object.keys(await import("rotif")).join())
    `
    await writeFile(join(project, "paths.mjs"), script)
    assert.strictEqual(
      await node(project, "paths.mjs"),
      // The Promise API is for those who do not use Effect, what makes operations fail is for tests: both are apart from the rest.
      `ERR_PACKAGE_PATH_NOT_EXPORTED ${names.filter((name) => !["promise", "testing"].includes(name)).sort().join()}\n`
    )
  })
})
