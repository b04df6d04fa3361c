/** The command that repeats the fault runs and writes their table: `npm run faults -- --help`. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { availableParallelism } from "node:os"
import { repeat, type Repetition, runs } from "./process.ts"
import * as Report from "./report.ts"
import type { Run } from "./Run.ts"

const flags = {
  run: Flag.String("run").pipe(
    Flag.withDescription("Names of the runs, separated by commas; without it all of them"),
    Flag.optional
  ),
  times: Flag.Int("times").pipe(
    Flag.withDescription("How often each is repeated; without it 20 times, the soak 3 times"),
    Flag.optional
  ),
  seed: Flag.Int("seed").pipe(
    Flag.withDescription("The seed of the first repetition, the next have the next ones: repeats a run that failed"),
    Flag.optional
  ),
  parallel: Flag.Int("parallel").pipe(
    Flag.withDescription("How many repetitions run side by side"),
    Flag.withDefault(availableParallelism())
  ),
  short: Flag.Boolean("short").pipe(
    Flag.withDescription("The versions for CI: a few seconds each"),
    Flag.withDefault(false)
  ),
  write: Flag.Boolean("write").pipe(
    Flag.withDescription("Write what was found into docs/reliability.md; runs that were not asked for keep their rows"),
    Flag.withDefault(false)
  ),
  timeout: Flag.Int("timeout").pipe(
    Flag.withDescription("Seconds after which a repetition has failed, if it has not ended"),
    Flag.withDefault(1_800)
  )
}

const line = (
  run: Run,
  { faults, lost, messages, peakMiB, recoveries, repeated, seconds, seed, violations }: Repetition
) =>
  [
    `${violations.length === 0 ? "passed" : "FAILED"} seed ${seed}`,
    `${seconds.toFixed(1)} s`,
    `${messages} messages`,
    `${faults} faults`,
    `${lost} lost${run.mayLose === true ? " (part of the fault)" : ""}`,
    `${repeated} repeated`,
    `recovered after ${recoveries.length === 0 ? "-" : `${Math.round(Math.max(...recoveries))} ms at most`}`,
    `${peakMiB} MiB`
  ].join(", ") + violations.map((text) => `\n    ${text}`).join("")

const command = Command.make(
  "faults",
  flags,
  Effect.fn(function*(options) {
    const all = yield* runs
    const names = Option.map(options.run, (text) => text.split(","))
    const unknown = Option.getOrElse(names, () => []).filter((name) => !all.some(([known]) => known === name))
    if (unknown.length > 0) {
      yield* Console.error(`There is no run ${unknown.join(", ")}. There are: ${all.map(([name]) => name).join(", ")}`)
      return yield* Effect.sync(() => void (process.exitCode = 2))
    }
    const chosen = all.filter(([name]) => Option.isNone(names) || names.value.includes(name))
    const first = Option.getOrElse(options.seed, () => Math.floor(Math.random() * 2 ** 30))
    const jobs = chosen.flatMap(([name, run]) =>
      Array.from(
        { length: Option.getOrElse(options.times, () => run.repetitions ?? 20) },
        (_, i) => ({ name, run, seed: first + i })
      )
    )
    // The longest first, so that the rest fills what they leave free.
    jobs.sort((a, b) => (a.run.repetitions ?? 20) - (b.run.repetitions ?? 20))
    yield* Console.log(`${jobs.length} repetitions of ${chosen.length} runs, seeds from ${first} on`)
    let done = 0
    const repetitions = yield* Effect.forEach(jobs, ({ name, run, seed }) =>
      Effect.tap(
        repeat({ run: name, seed, isShort: options.short, timeoutMillis: options.timeout * 1_000 }),
        (repetition) => Console.log(`[${++done} of ${jobs.length}] ${name} ${line(run, repetition)}`)
      ), { concurrency: options.parallel })
    const failed = repetitions.filter(({ violations }) => violations.length > 0)
    for (const { run, seed } of failed) {
      yield* Console.error(`Failed: ${run}. Repeat it with: npm run faults -- --run ${run} --times 1 --seed ${seed}`)
    }
    if (options.write) yield* Report.write(all, repetitions)
    yield* Effect.sync(() => void (process.exitCode = failed.length === 0 ? 0 : 1))
  })
).pipe(Command.withDescription("Injects faults into real servers and accounts for every message."))

NodeRuntime.runMain(Effect.provide(Command.run(command, { version: "1" }), NodeServices.layer))
