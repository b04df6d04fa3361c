/** Workers of a run: processes that publish and handle, whose account goes to its recorder. */
import type { Scope } from "effect"
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { Recorder } from "./Recorder.ts"
import type { Event, Job } from "./worker.ts"

export interface Worker {
  readonly job: Job
  readonly isReady: () => boolean
  readonly isRunning: () => boolean
  /** Completes at the first event "ready", or dies with what the process wrote when it ends before. */
  readonly ready: Effect.Effect<void>
  /** Sends a signal; SIGSTOP and SIGCONT as well. */
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** All that it said has been taken down when it has ended. */
  readonly ended: Effect.Effect<void>
}

const isAlive = (child: ChildProcess) => child.exitCode === null && child.signalCode === null

/** What is not for the recorder. */
export type OtherEvent = Exclude<Event, { readonly event: "told" | "handled" | "ready" }>

/** Starts a worker; it dies with the scope. */
export const start = (
  job: Job,
  recorder: Recorder,
  onEvent: (event: OtherEvent) => void = () => {}
): Effect.Effect<Worker, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(
        process.execPath,
        ["--conditions=rotif-source", join(import.meta.dirname, "worker.ts")],
        { env: { ...process.env, JOB: JSON.stringify(job) }, stdio: ["ignore", "pipe", "pipe"] }
      )
      let log = ""
      let isReady = false
      child.stderr.on("data", (chunk: Buffer) => {
        log = (log + chunk.toString()).slice(-4_000)
      })
      const closed = new Promise<void>((resolve) => child.once("close", () => resolve()))
      const ready = new Promise<void>((resolve) => {
        createInterface(child.stdout).on("line", (line) => {
          const event = JSON.parse(line) as Event
          if (event.event === "told") recorder.told(event.text, event.dueAt, event.from)
          else if (event.event === "handled") recorder.handled(event)
          else if (event.event === "ready") {
            isReady = true
            resolve()
          } else onEvent(event)
        })
      })
      const worker: Worker = {
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
        ended: Effect.promise(() => closed)
      }
      return worker
    }),
    (worker) => Effect.andThen(worker.kill("SIGKILL"), worker.ended)
  )
