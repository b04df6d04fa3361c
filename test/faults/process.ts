/** Starts a repetition of a run in a process of its own, and collects its outcome. */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import type { Outcome, Run } from "./Run.ts"

export interface Repetition extends Outcome {
  readonly run: string
  readonly seed: number
  readonly seconds: number
  readonly peakMiB: number
}

/** All runs by their names, in the order of their numbers. */
export const runs: Effect.Effect<ReadonlyArray<readonly [name: string, run: Run]>> = Effect.promise(async () => {
  const names = readdirSync(join(import.meta.dirname, "runs")).map((file) => file.slice(0, -".ts".length)).sort()
  const loaded = await Promise.all(
    names.map(async (name) => [name, (await import(`./runs/${name}.ts`) as { readonly default: Run }).default] as const)
  )
  return loaded.sort(([, a], [, b]) => a.number - b.number)
})

export const repeat = (options: {
  readonly run: string
  readonly seed: number
  readonly isShort: boolean
  readonly timeoutMillis: number
  /** After its outcome the process must end within this many milliseconds. Default: 10,000. */
  readonly endMillis?: number | undefined
}): Effect.Effect<Repetition> =>
  Effect.callback<Repetition>((resume) => {
    const started = performance.now()
    const { REDIS_URL: _, ...env } = process.env
    const child = spawn(
      process.execPath,
      [
        "--conditions=rotif-source",
        join(import.meta.dirname, "one.ts"),
        options.run,
        String(options.seed),
        ...(options.isShort ? ["short"] : [])
      ],
      { env, stdio: ["ignore", "pipe", "pipe"] }
    )
    let output = ""
    let log = ""
    let cut: string | undefined
    const stopAfter = (millis: number, why: string) =>
      setTimeout(() => {
        cut = why
        child.kill("SIGKILL")
      }, millis)
    let timer = stopAfter(options.timeoutMillis, `did not end within ${options.timeoutMillis} ms`)
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString()
      if (!/^outcome .*\n/m.test(chunk.toString())) return
      clearTimeout(timer)
      timer = stopAfter(
        options.endMillis ?? 10_000,
        "I6: the process does not end: a socket, a timer or a server is left"
      )
    })
    child.stderr.on("data", (chunk: Buffer) => {
      log = (log + chunk.toString()).slice(-4_000)
      // Long runs report their progress.
      for (const [line] of chunk.toString().matchAll(/^progress .*\n/gm)) process.stderr.write(line)
    })
    child.once("close", (code, signal) => {
      clearTimeout(timer)
      const line = (name: string) => new RegExp(`^${name} (.*)$`, "m").exec(output)?.[1]
      const found = line("outcome")
      const outcome = found === undefined
        ? { messages: 0, faults: 0, lost: 0, repeated: 0, recoveries: [], violations: [], peakMiB: 0 }
        : JSON.parse(found) as Outcome & { readonly peakMiB: number }
      const seen = JSON.parse(line("violations") ?? "null") as ReadonlyArray<string> | null
      const violations = [
        ...outcome.violations,
        ...seen ?? [],
        ...(cut === undefined ? [] : [cut]),
        ...(seen === null && cut === undefined
          ? [`I6: the process ended by ${signal ?? `exit code ${code}`}\n${log}`]
          : [])
      ]
      resume(Effect.succeed({
        ...outcome,
        run: options.run,
        seed: options.seed,
        seconds: (performance.now() - started) / 1000,
        violations
      }))
    })
    return Effect.sync(() => {
      clearTimeout(timer)
      child.kill("SIGKILL")
    })
  })
