/** How a script is written: `` script("name")`Lua` ``. A line break begins the Lua, and shared parts are interpolated. */
import type { Script } from "../Redis.ts"

type Lua = (texts: TemplateStringsArray, ...parts: ReadonlyArray<string | number>) => Script

const written = (name: string, isIdempotent: boolean): Lua => (texts, ...parts) => ({
  name,
  lua: String.raw({ raw: texts }, ...parts),
  isIdempotent
})

/** A script that must not run again when its reply was lost: a second run would give another reply, or change something once more. */
export const script = (name: string): Lua => written(name, false)

/** A script that runs again when its reply was lost. */
export const idempotentScript = (name: string): Lua => written(name, true)
