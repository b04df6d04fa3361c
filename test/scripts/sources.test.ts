/**
 * Every Lua script is one file that names its KEYS and ARGV first, parses as Lua 5.1, and touches no global of its own:
 * Redis refuses to create one, but only when that line runs.
 */
import { assert, describe, it } from "@effect/vitest"
import * as luaparse from "luaparse"
import { scripts } from "../fixtures/scripts.ts"

const allowed = new Set(
  ("redis KEYS ARGV cjson cmsgpack string table math tonumber tostring ipairs pairs type unpack pcall error next select")
    .split(" ")
)

/** What is wrong with a script; nothing, if all is well. */
const problems = (lua: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  const options: Partial<luaparse.Options> = { luaVersion: "5.1", scope: true, locations: true }
  let chunk: luaparse.Chunk & { readonly globals?: ReadonlyArray<luaparse.Identifier> }
  try {
    chunk = luaparse.parse(lua, options)
  } catch (error) {
    return [String(error)]
  }
  for (const { name } of chunk.globals ?? []) {
    if (!allowed.has(name)) found.push(`global ${name}`)
  }
  // Even an allowed global may only be read: `string = x` would change it for every script.
  luaparse.parse(lua, {
    ...options,
    onCreateNode: (node) => {
      const targets = node.type === "AssignmentStatement"
        ? node.variables
        : node.type === "FunctionDeclaration" && node.identifier !== null
        ? [node.identifier]
        : []
      for (const target of targets) {
        if (target.type === "Identifier" && "isLocal" in target && target.isLocal === false) {
          found.push(`assigns to the global ${target.name}`)
        }
      }
    }
  })
  // The locals stand first, so the first statement that is none ends the search.
  const first = chunk.body.findIndex((statement) => statement.type !== "LocalStatement")
  const head = chunk.body.slice(0, first < 0 ? undefined : first)
  const lines = lua.split("\n")
  for (const table of ["KEYS", "ARGV"]) {
    const uses = lines.flatMap((line, index) => line.includes(table) ? [index + 1] : [])
    const lastOfHead = head.at(-1)?.loc?.end.line ?? 0
    if (uses.length > 0 && uses[0]! > lastOfHead) found.push(`${table} is not named by a local in the first lines`)
  }
  return found
}

describe("scripts", () => {
  it("there are scripts to check", () => {
    assert.isNotEmpty(scripts)
  })

  it.each(scripts.map(({ folder, script }) => ({ name: `${folder}/${script.name}`, script })))(
    "$name is well-formed",
    ({ script }) => {
      assert.deepStrictEqual(problems(script.lua), [])
    }
  )

  it.each([
    ["local key = KEYS[1]\nreturn redis.call('GET', key)", 0],
    ["return 1 +", 1],
    ["local key = KEYS[1]\nreturn redis.call('GET', kye)", 1],
    ["local key = KEYS[1]\ncount = 1\nreturn key", 2],
    ["function f() return 1 end\nreturn 1", 2],
    ["string = nil", 1],
    ["local time = redis.call('TIME')\nredis.call('PING')\nreturn redis.call('GET', KEYS[1])", 1],
    ["local key <const> = KEYS[1]", 1]
  ])("the check itself finds what is wrong: %j", (lua, count) => {
    assert.lengthOf(problems(lua), count)
  })
})
