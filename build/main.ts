/**
 * Builds the package: the modules of the Effect API one by one, and the Promise API as two files, for `import` and for `require`, that have the
 * used parts of `effect` in them. Only `ioredis` is left outside.
 *
 * The bundler is rolldown: it is the one of Vite, which the tests run on, so it adds no package; it is maintained with Vite; it leaves out unused
 * parts of `effect`; and it writes both formats with their source maps. Names are kept, so that stacks can be read without the maps.
 */
import { execFileSync } from "node:child_process"
import { readdir, readFile, rm, writeFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { dirname, join, relative } from "node:path"
import { parseArgs } from "node:util"
import { rolldown } from "rolldown"

const root = join(import.meta.dirname, "..")
const { values: { out } } = parseArgs({ options: { out: { type: "string", default: join(root, "dist") } } })

const compile = (): void => {
  const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc")
  execFileSync(process.execPath, [tsc, "-p", join(root, "tsconfig.build.json"), "--outDir", out], { stdio: "inherit" })
}

/** Writes promise.js and promise.cjs, and returns the files of which they have parts. */
const bundle = async (): Promise<ReadonlyArray<string>> => {
  const build = await rolldown({
    input: join(root, "src/promise.ts"),
    platform: "node",
    external: [/^node:/, "ioredis"],
    // A part of effect reads import.meta.env, and lives without it.
    transform: { define: { "import.meta.env": "undefined" } },
    onLog: (_, { message }) => {
      throw new Error(message)
    }
  })
  const shared = {
    banner: "/*! It contains parts of other packages; promise.LICENSES.txt has their licences. */",
    codeSplitting: false,
    comments: { legal: true, annotation: false, jsdoc: false },
    minify: { compress: true, mangle: false, codegen: { removeWhitespace: false } },
    // The sources of Rotif are in the package.
    sourcemap: true,
    sourcemapExcludeSources: true
  } as const
  const { output: [chunk] } = await build.write({ ...shared, format: "esm", file: join(out, "promise.js") })
  await build.write({ ...shared, format: "cjs", file: join(out, "promise.cjs") })
  await build.close()
  return Object.entries(chunk.modules).filter(([, { renderedLength }]) => renderedLength > 0).map(([file]) => file)
}

/** The licences of the packages that these files belong to. */
const licences = async (files: ReadonlyArray<string>): Promise<string> => {
  const inside = files.map((file) => /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1])
  const folders = [...new Set(inside)].filter((folder) => folder !== undefined).sort()
  const texts = await Promise.all(folders.map(async (folder) => {
    const { license, name, version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"))
    const file = (await readdir(folder)).find((name) => /^licen[cs]e/i.test(name))
    if (file === undefined) throw new Error(`${name} has no licence file, and is a part of rotif/promise`)
    return `${name} ${version} (${license})\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`
  }))
  return `promise.js and promise.cjs contain parts of these packages.\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`
}

const imported = /(^(?:import|export) (?:type )?(?:\{[^}]*\}|\* as \w+|\*|\w+) from |\bimport\()"([^"]+)"/gm

/**
 * Writes the declarations of the Promise API a second time for `require`, because TypeScript takes a `.d.ts` of this package as one of an ES module.
 * Returns all files that `promise.d.ts` needs.
 */
const declarations = async (): Promise<ReadonlySet<string>> => {
  const files = new Set([join(out, "promise.d.ts")])
  for (const file of files) {
    const text = await readFile(file, "utf8")
    for (const [, , from] of text.matchAll(imported)) {
      if (from!.startsWith(".")) files.add(join(dirname(file), from!.replace(/\.ts$/, ".d.ts")))
      else if (from !== "ioredis" && !from!.startsWith("node:")) {
        throw new Error(`${relative(out, file)} imports ${from}: users of the Promise API do not have it`)
      }
    }
    await writeFile(
      file.replace(/\.d\.ts$/, ".d.cts"),
      text.replace(/^\/\/# sourceMappingURL.*$/m, "").replaceAll(
        imported,
        (found, before: string, from: string) =>
          from.startsWith(".") ? `${before}"${from.replace(/\.ts$/, ".cts")}"` : found
      )
    )
  }
  return files
}

/** Removes what tsc has made of the rooms of the Promise API, but for the needed declarations: their code is in the bundle. */
const removeRooms = async (needed: ReadonlySet<string>): Promise<void> => {
  const rooms = join(out, "promise")
  for (const file of await readdir(rooms)) {
    const declaration = file.replace(/\.d\.ts\.map$/, ".d.ts").replace(/\.d\.cts$/, ".d.ts")
    if (!needed.has(join(rooms, declaration))) await rm(join(rooms, file))
  }
}

await rm(out, { recursive: true, force: true })
compile()
await writeFile(join(out, "promise.LICENSES.txt"), await licences(await bundle()))
await removeRooms(await declarations())
