/** Workers of a run: processes that publish and handle, and report to the recorder of the run. */
import type { Scope } from "effect"
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { leashed } from "../fixtures/leash.ts"
import { environmentFor, type Wrong } from "./clock.ts"
import type { Recorder } from "./Recorder.ts"
import type { Event, Job } from "./worker.ts"

export interface Worker<J = Job> {
  readonly job: J
  readonly isReady: () => boolean
  readonly isRunning: () => boolean
  /** Completes at the event "ready"; dies with the output of the process when that ends before. */
  readonly ready: Effect.Effect<void>
  /** Sends a signal; SIGSTOP and SIGCONT as well. */
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Completes when the process has ended and all its events are recorded. */
  readonly ended: Effect.Effect<void>
  /** How it failed, with its last output; `undefined` while it runs, and after exit code 0. */
  readonly failure: () => string | undefined
}

const isAlive = (child: ChildProcess) => child.exitCode === null && child.signalCode === null

/** Starts a program of this folder with its job in the environment; it dies with the scope. */
export const spawnProgram = <J, E extends { readonly event: string }>(
  program: string,
  job: J,
  onEvent: (event: E) => void,
  clock?: Wrong
): Effect.Effect<Worker<J>, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [command, ...args] = leashed(
        process.execPath,
        "--conditions=rotif-source",
        `--import=${join(import.meta.dirname, "clock.ts")}`,
        join(import.meta.dirname, program)
      )
      const child = spawn(
        command,
        args,
        {
          env: {
            ...process.env,
            JOB: JSON.stringify(job),
            ...environmentFor(clock)
          },
          stdio: ["ignore", "pipe", "pipe"]
        }
      )
      let log = ""
      let isReady = false
      child.stderr.on("data", (chunk: Buffer) => {
        log = (log + chunk.toString()).slice(-4_000)
      })
      const closed = new Promise<void>((resolve) => child.once("close", () => resolve()))
      const ready = new Promise<void>((resolve) => {
        createInterface(child.stdout).on("line", (line) => {
          const event = JSON.parse(line) as E
          if (event.event === "ready") {
            isReady = true
            resolve()
          }
          onEvent(event)
        })
      })
      const worker: Worker<J> = {
        job,
        isReady: () => isReady && isAlive(child),
        isRunning: () => isAlive(child),
        ready: Effect.promise(() =>
          Promise.race([
            ready,
            closed.then(() => {
              if (!isReady) throw new Error(`a worker ended before it was ready: ${log}`)
            })
          ])
        ),
        kill: (signal) => Effect.sync(() => void child.kill(signal)),
        ended: Effect.promise(() => closed),
        failure: () =>
          isAlive(child) || child.exitCode === 0
            ? undefined
            : `${child.signalCode ?? `exit code ${child.exitCode}`}\n${log}`
      }
      return worker
    }),
    (worker) => Effect.andThen(worker.kill("SIGKILL"), worker.ended)
  )

/** Events that are not for the recorder. */
export type OtherEvent = Exclude<Event, { readonly event: "told" | "handled" | "ready" }>

/** Starts a worker that reports to the recorder. */
export const start = (
  job: Job,
  recorder: Recorder,
  options: { readonly onEvent?: (event: OtherEvent) => void; readonly clock?: Wrong } = {}
): Effect.Effect<Worker, never, Scope.Scope> =>
  spawnProgram("worker.ts", job, (event: Event) => {
    if (event.event === "told") return recorder.told(event.text, event.dueAt, event.from)
    if (event.event === "handled") return recorder.handled(event)
    if (event.event === "ready") return
    if (event.event === "begun") recorder.begun(event)
    options.onEvent?.(event)
  }, options.clock)
