/**
 * Measures: one job, one process, one redis-server.
 */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import type { Figures, Unplaced } from "./jobs.ts"
import { privateServer } from "./privateServer.ts"

/** A measurement that takes longer is given up: its peer does not do this. */
const patienceMillis = Number(process.env["PATIENCE"] ?? 120) * 1000

/** Runs one job in a process of its own. `undefined` when it failed, with why on the console. */
export const measure = (job: Unplaced, env: Readonly<Record<string, string>> = {}): Promise<Figures | undefined> =>
  Effect.runPromise(
    Effect.scoped(Effect.flatMap(privateServer, (port) =>
      Effect.callback<Figures | undefined>((resume) => {
        const args = ["--conditions=rotif-source", "--expose-gc", join(import.meta.dirname, "measure.ts")]
        const child = spawn(process.execPath, [...args, JSON.stringify({ ...job, port })], {
          stdio: ["ignore", "pipe", "pipe"],
          env: { ...process.env, ...env }
        })
        let out = ""
        let problems = ""
        const timer = setTimeout(() => {
          problems = `gave up after ${patienceMillis / 1000} s`
          child.kill("SIGKILL")
        }, patienceMillis)
        child.stdout.on("data", (chunk: Buffer) => out += chunk.toString())
        child.stderr.on("data", (chunk: Buffer) => problems += chunk.toString())
        child.once("close", (code) => {
          clearTimeout(timer)
          if (code === 0) return resume(Effect.succeed(JSON.parse(out.trim().split("\n").at(-1)!) as Figures))
          console.error(`  ${job.peer}: ${problems.trim().split("\n").slice(-12).join("\n  ")}`)
          resume(Effect.succeed(undefined))
        })
      })))
  )

const median = (values: ReadonlyArray<number>) => values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)]!

export const medians = (samples: ReadonlyArray<Figures>): Figures =>
  Object.fromEntries(Object.keys(samples[0]!).map((name) => [name, median(samples.map((sample) => sample[name]!))]))
