/**
 * One repetition of a run: `node --conditions=rotif-source one.ts <run> <seed> [short]`. Its last lines are the outcome and what its
 * process has left behind.
 */
import { Cause, Context, Effect, Exit, Metric, Random } from "effect"
import { writeSync } from "node:fs"
import type { Outcome, Run, Setting } from "./Run.ts"

const [name = "", seed = "0", size] = process.argv.slice(2)
const { default: run } = await import(`./runs/${name}.ts`) as { readonly default: Run }

const violations: Array<string> = []
process.on("unhandledRejection", (reason) => violations.push(`I6: a rejection that nobody handles: ${String(reason)}`))
process.on("uncaughtException", (error) => violations.push(`I6: an exception that nobody catches: ${error.stack}`))

let peakMiB = 0
const measuring = setInterval(() => {
  peakMiB = Math.max(peakMiB, process.memoryUsage.rss() / 2 ** 20)
}, 200)

const fibers = { started: 0, ended: 0 }
const counting = Context.make(Metric.FiberRuntimeMetrics, {
  recordFiberStart: () => void fibers.started++,
  recordFiberEnd: () => void fibers.ended++
})

const isShort = size === "short"
const setting: Setting = { seed: Number(seed), isShort, patience: isShort ? 5 : 1 }
const body = run.body(setting).pipe(
  Effect.scoped,
  Random.withSeed(Number(seed))
)
const exit = await Effect.runPromiseExitWith(counting)(body)
clearInterval(measuring)

const nothing: Outcome = { messages: 0, faults: 0, lost: 0, repeated: 0, recoveries: [], violations: [] }
const outcome = Exit.isSuccess(exit) ? exit.value : nothing
if (Exit.isFailure(exit)) violations.push(`the run failed: ${Cause.pretty(exit.cause)}`)
const memoryMiB = run.memoryMiB ?? 400
if (peakMiB > memoryMiB) violations.push(`I7: ${Math.round(peakMiB)} MiB, more than ${memoryMiB}`)
const within = (run.recoveryWithin ?? Number.POSITIVE_INFINITY) * setting.patience
const slow = outcome.recoveries.filter((millis) => millis > within)
if (slow.length > 0) violations.push(`I8: recovered after ${slow.map(Math.round).join(", ")} ms, more than ${within}`)
if (outcome.faults === 0) violations.push("no fault was injected")

// From here on only leftovers keep the process alive; the runner reports a process that does not end.
process.on("beforeExit", () => {
  const left = process.getActiveResourcesInfo().filter((kind) => kind !== "PipeWrap" && kind !== "TTYWrap")
  if (left.length > 0) violations.push(`I6: left behind: ${left.join(", ")}`)
  if (fibers.started !== fibers.ended) violations.push(`I6: ${fibers.started - fibers.ended} fibers are left`)
  writeSync(1, `left nothing else\nviolations ${JSON.stringify(violations)}\n`)
})
writeSync(1, `outcome ${JSON.stringify({ ...outcome, peakMiB: Math.round(peakMiB) })}\n`)
