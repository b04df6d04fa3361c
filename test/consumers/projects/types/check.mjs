/** Each version of TypeScript with each way to resolve modules, with all libraries checked and without the DOM. */
import { spawnSync } from "node:child_process"
import { copyFileSync } from "node:fs"

const shared = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--skipLibCheck", "false", "--lib", "ES2023", "--target", "ES2022", "--types", "node"]
const resolutions = {
  node16: ["--module", "node16"],
  nodenext: ["--module", "nodenext"],
  bundler: ["--module", "esnext", "--moduleResolution", "bundler"],
  commonjs: ["--module", "commonjs"]
}
const pairs = process.env.SHORT
  ? [["5.4", "node16"], ["5.4", "commonjs"], ["newest", "nodenext"]]
  : ["5.4", "newest"].flatMap((version) => Object.keys(resolutions).map((name) => [version, name]))
const files = { node16: ["orders.ts", "orders.mts", "orders.cts"], nodenext: ["orders.ts", "orders.mts", "orders.cts"] }

for (const ending of ["mts", "cts"]) copyFileSync("orders.ts", `orders.${ending}`)

let failed = false
for (const [version, name] of pairs) {
  const tsc = `node_modules/typescript-${version}/bin/tsc`
  const args = [tsc, ...shared, ...resolutions[name], ...files[name] ?? ["orders.ts"]]
  const { status, stderr, stdout } = spawnSync(process.execPath, args, { encoding: "utf8" })
  console.log(`TypeScript ${version}, ${name}: ${status === 0 ? "compiles" : `\n${stdout}${stderr}`}`)
  failed ||= status !== 0
}
process.exit(failed ? 1 : 0)
