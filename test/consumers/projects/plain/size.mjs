import assert from "node:assert"
import { lstatSync, readdirSync } from "node:fs"

const files = readdirSync("node_modules", { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
// pnpm has links; each file counts once.
const sizes = new Map(files.map(({ name, parentPath }) => lstatSync(`${parentPath}/${name}`)).map(({ ino, size }) => [ino, size]))
const bytes = [...sizes.values()].reduce((sum, size) => sum + size, 0)
console.log(`node_modules: ${sizes.size} files, ${(bytes / 1e6).toFixed(1)} MB`)
assert(bytes < 20e6)
