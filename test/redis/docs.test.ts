/**
 * Everything the documentation shows compiles and runs, and its links lead somewhere.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, globSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { inject } from "vitest"
import * as Keys from "../../src/redisBroker/keys.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as Snippets from "../fixtures/Snippets.ts"

const root = join(import.meta.dirname, "../..")
const read = (page: string) => readFileSync(join(root, page), "utf8")

const pages = globSync(["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**/*.md"], { cwd: root }).toSorted()
const snippets = new Map(pages.map((page) => [page, Snippets.extract(page, read(page))]))
const pagesWithCode = pages.filter((page) => snippets.get(page)!.length > 0)

/** A page for the test of the runner itself. */
const ownPage = "test/fixtures/page.md"
const ownSnippets = Snippets.extract(ownPage, read(ownPage))

// One run of the compiler for all pages.
let compiled: Snippets.Compiled
beforeAll(async () => {
  compiled = await Snippets.compile("docs", [...[...snippets.values()].flat(), ...ownSnippets])
}, 120_000)

describe("code in the documentation", () => {
  it.effect.each(pagesWithCode)("%s compiles and runs", (page) =>
    Effect.gen(function*() {
      assert.deepStrictEqual(compiled.errors(page), [], page)
      const server = yield* RedisServer.make()
      for (const snippet of snippets.get(page)!.filter((snippet) => snippet.runs)) {
        yield* server.command("flushall")
        assert.isUndefined(yield* Effect.promise(() => compiled.run(snippet, { REDIS_URL: server.url })))
      }
    }), 300_000)
})

/** The anchor GitHub gives to a heading. */
const anchor = (heading: string) =>
  heading.trim().toLowerCase().replaceAll(/[^\p{L}\p{N}\p{M} _-]/gu, "").replaceAll(" ", "-")

const prose = (markdown: string) => markdown.replaceAll(/^\s*(`{3,})[^]*?^\s*\1\s*$/gm, "")

const anchors = (page: string) =>
  Array.from(prose(read(page)).matchAll(/^#{1,6} (.+)$/gm), ([, heading]) => anchor(heading!))

/** The links of a page that lead nowhere; those to other sites are not followed. */
const deadLinks = (page: string, markdown: string): ReadonlyArray<string> =>
  Array.from(prose(markdown).matchAll(/\]\(([^)\s]+)\)/g), ([, link]) => link!).filter((link) => {
    if (/^[a-z]+:/.test(link)) return false
    const [path = "", hash] = link.split("#")
    const target = path === "" ? page : relative(root, join(root, dirname(page), decodeURIComponent(path)))
    if (!existsSync(join(root, target))) return true
    return hash !== undefined && target.endsWith(".md") && !anchors(target).includes(hash)
  })

describe("links in the documentation", () => {
  it("none leads nowhere", () => {
    assert.deepStrictEqual(pages.flatMap((page) => deadLinks(page, read(page)).map((link) => `${page}: ${link}`)), [])
  })

  it("the check itself finds a missing file and a missing heading", () => {
    assert.deepStrictEqual(
      deadLinks(
        ownPage,
        "[a](./RedisServer.ts) [b](gone.md) [c](page.md#a-page-for-its-own-test) [d](page.md#gone) [e](https://x.example)"
      ),
      ["gone.md", "page.md#gone"]
    )
  })
})

/** Paths of the repository that a page names as code, such as `src/Broker.ts`, and that do not exist. */
const missingPaths = (markdown: string): ReadonlyArray<string> =>
  Array.from(prose(markdown).matchAll(/`((?:src|test|bench|docs|examples)\/[^\s`]*)`/g), ([, path]) => path!)
    .filter((path) => globSync(path, { cwd: root }).length === 0)

describe("paths in the documentation", () => {
  it("none is missing", () => {
    assert.deepStrictEqual(pages.flatMap((page) => missingPaths(read(page)).map((path) => `${page}: ${path}`)), [])
  })

  it("the check itself finds a missing path", () => {
    assert.deepStrictEqual(missingPaths("`src/Broker.ts` `src/*.ts` `src/gone.ts` `src/gone/`"), [
      "src/gone.ts",
      "src/gone/"
    ])
  })

  it("docs/architecture.md links to every folder of src", () => {
    const linked = new Set(
      Array.from(read("docs/architecture.md").matchAll(/\]\(\.\.\/(src\/[^)]*)\)/g), ([, path]) => path!)
    )
    const folders = globSync("src/**/", { cwd: root }).map((folder) => folder.replace(/\/$/, ""))
      .filter((folder) => folder !== "src" && dirname(folder) !== "src/redisBroker/scripts")
    assert.isAbove(folders.length, 10)
    assert.deepStrictEqual(folders.filter((folder) => !linked.has(folder)), [])
  })
})

describe("facts in the documentation", () => {
  it("docs/architecture.md says what each folder may import, as the linter does", () => {
    const rules = JSON.parse(read(".oxlintrc.json")) as {
      readonly overrides: ReadonlyArray<{
        readonly files: ReadonlyArray<string>
        readonly rules: { readonly "no-restricted-imports"?: unknown }
      }>
    }
    const allowed = rules.overrides.flatMap(({ files: [file], rules: { "no-restricted-imports": rule } }) => {
      const patterns: ReadonlyArray<{ readonly group?: ReadonlyArray<string> }> = Array.isArray(rule)
        ? rule[1].patterns
        : []
      const exceptions = patterns.flatMap(({ group = [] }) => group.filter((glob) => glob.startsWith("!")))
      const folder = file!.replace("src/", "").replace(/\*+(\.ts)?$/, "")
      return exceptions.length === 0
        ? []
        : [[folder, exceptions.map((glob) => glob.replace(/^!(\.\.\/)+/, "").replace("**", "")).toSorted()] as const]
    })
    const rows = new Map(
      Array.from(
        read("docs/architecture.md").matchAll(/^\| \[([\w/]+\/)\]\(\S+\) \| .* \| (.*) \|$/gm),
        ([, folder, cell]) =>
          [folder!, Array.from(cell!.matchAll(/`([^`]+(?:\.ts|\/))`/g), ([, name]) => name!).toSorted()] as const
      )
    )
    assert.isAbove(allowed.length, 10)
    assert.deepStrictEqual(allowed.map(([folder]) => [folder, rows.get(folder)]), allowed.map((pair) => [...pair]))
  })

  it("docs/redis-keys.md names every key", () => {
    const named = Array.from(read("docs/redis-keys.md").matchAll(/^\| `([^`]+)` \|/gm), ([, key]) => key!)
    const {
      arrived,
      bodies,
      broadcast,
      broadcastGlob: _glob,
      floors,
      log,
      once,
      members,
      offered,
      offers,
      olderonce,
      own,
      removed,
      retries,
      retry,
      seen,
      settings,
      shard: _,
      answer,
      trials,
      busy,
      lines,
      behind,
      reached,
      taken,
      resting,
      storm,
      ...fixed
    } = Keys.make(
      "rotif",
      0
    )
    const keys: ReadonlyArray<string> = [
      ...Object.values(fixed),
      broadcast("C"),
      bodies("G", "C"),
      log("C"),
      retry("G", "C"),
      retries("G"),
      floors("G"),
      removed("G"),
      members("G"),
      settings("G"),
      resting("G"),
      storm("G"),
      seen("C", "I"),
      answer("T"),
      offers("N"),
      offered("N"),
      once("G"),
      olderonce("G"),
      trials("G", "C"),
      busy("G", "C"),
      lines("G", "C"),
      behind("G", "C"),
      reached("G", "C"),
      taken("G"),
      own("K"),
      arrived(0).replace(/0$/, "S")
    ]
    const parts = keys.map((key) => key.replace("{rotif:0}:", ""))
    assert.deepStrictEqual(named.toSorted(), parts.toSorted())
  })

  it("docs/connections.md names everything that is read from the environment", () => {
    const source = new Set(Array.from(read("src/Redis.ts").matchAll(/"(REDIS_[A-Z_]+)"/g), ([, name]) => name!))
    const named = new Set(Array.from(read("docs/connections.md").matchAll(/`(REDIS_[A-Z_]+)`/g), ([, name]) => name!))
    assert.deepStrictEqual([...named].toSorted(), [...source].toSorted())
  })

  it("docs/configuration.md names everything that is read from the environment, and every option of the Promise API", () => {
    const page = read("docs/configuration.md")
    const source = new Set(Array.from(read("src/Rotif.ts").matchAll(/"(ROTIF_[A-Z_]+)"/g), ([, name]) => name!))
    const named = new Set(Array.from(page.matchAll(/`(ROTIF_[A-Z_]+)`/g), ([, name]) => name!))
    assert.deepStrictEqual([...named].toSorted(), [...source].toSorted())
    const options = read("src/promise/options.ts")
    const fields = (name: string) => {
      const [, body] = new RegExp(`export interface ${name}(?:<[^]*?>)? {\n([^]*?)\n}`).exec(options)!
      return Array.from(body!.matchAll(/^ {2}readonly (\w+)\?/gm), ([, field]) => field!)
    }
    const all = ["RotifConfig", "DlqCleanup", "PublishOptions"].flatMap(fields)
    assert.isAbove(all.length, 30)
    assert.deepStrictEqual(all.filter((field) => !new RegExp(`\\b${field}\\b`).test(page)), [])
  })
})

describe("the runner of snippets", () => {
  const env = { REDIS_URL: `redis://127.0.0.1:${inject("redisPort")}` }
  const startingWith = (text: string) => ownSnippets.find(({ code }) => code.startsWith(text))!

  it("joins the fences of a snippet, and knows which snippets run", () => {
    assert.deepStrictEqual(ownSnippets.map(({ code, runs }) => [code.split("\n")[0], runs]), [
      [`import { connect } from "node:net"`, true],
      [`const wrong: number = "text"`, false],
      [`throw new Error("at run time")`, true]
    ])
  })

  it("reports errors of the compiler with the line of the page", () => {
    const line = read(ownPage).split("\n").findIndex((text) => text.startsWith("const wrong")) + 1
    const errors = compiled.errors(ownPage)
    assert.lengthOf(errors, 1)
    assert.match(errors[0]!, new RegExp(`^line ${line}: error TS2322`))
  })

  it("runs a module over several fences, with the server at hand", async () => {
    assert.isUndefined(await compiled.run(startingWith("import"), env))
    assert.include(await compiled.run(startingWith("import"), { REDIS_URL: "redis://127.0.0.1:1" }), "ECONNREFUSED")
  })

  it("reports a module that fails with the line of the page", async () => {
    const line = read(ownPage).split("\n").findIndex((text) => text.startsWith("throw")) + 1
    const failure = await compiled.run(startingWith("throw"), env)
    assert.include(failure, `${ownPage}:${line}: `)
    assert.include(failure, `.ts:${line}`)
  })

  it("refuses a label it does not know, and a fence that is left open", () => {
    assert.throws(() => Snippets.extract("p.md", "\n```ts chekc\n```\n"), "p.md:2")
    assert.throws(() => Snippets.extract("p.md", "```ts\n"), "not closed")
  })
})
