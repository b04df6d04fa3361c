/** The command that compares the backends by random histories: `npm run fuzz -- --help`. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Layer, Option, References } from "effect"
import { Command, Flag } from "effect/cli"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { backendsOn } from "./backends.ts"
import { compare, shrink } from "./compare.ts"
import * as History from "./history.ts"

const flags = {
  seed: Flag.Int("seed").pipe(
    Flag.withDescription(
      "The seed of the first history, the next have the next ones: repeats one that showed a difference"
    ),
    Flag.optional
  ),
  times: Flag.Int("times").pipe(Flag.withDescription("How many histories"), Flag.withDefault(1_000)),
  parallel: Flag.Int("parallel").pipe(
    Flag.withDescription("How many histories are played side by side"),
    Flag.withDefault(8)
  ),
  show: Flag.Boolean("show").pipe(
    Flag.withDescription("Makes the first history that shows a difference smaller, and prints it"),
    Flag.withDefault(false)
  )
}

const command = Command.make(
  "fuzz",
  flags,
  Effect.fn(function*({ parallel, seed, show, times }) {
    const first = Option.getOrElse(seed, () => Math.floor(Math.random() * 2 ** 30))
    const [server, cluster] = yield* Effect.all([RedisServer.make(), RedisCluster.make()], {
      concurrency: "unbounded"
    })
    const backends = backendsOn(server.port, cluster.nodes.map(({ port }) => port))
    yield* Console.log(
      `${times} histories from seed ${first} on, each on ${backends.map(({ name }) => name).join(", ")}`
    )
    let done = 0
    let different = 0
    yield* Effect.forEach(
      Array.from({ length: times }, (_, i) => first + i),
      Effect.fnUntraced(function*(seed) {
        const history = yield* History.make(seed)
        const found = yield* compare(history, backends)
        if (++done % 100 === 0) yield* Console.log(`${done} of ${times}, ${different} with a difference`)
        if (found.length === 0) return
        different++
        for (const { backend, differences } of found) {
          yield* Console.error(`seed ${seed}: ${backend} differs from ${backends[0]!.name}:`)
          for (const text of differences.slice(0, 10)) yield* Console.error(`    ${text.slice(0, 600)}`)
        }
        if (show && different === 1) {
          const smaller = yield* shrink(history, backends)
          yield* Console.error(
            `seed ${seed}, made smaller:\n${smaller.steps.map((step) => `    ${JSON.stringify(step)}`).join("\n")}`
          )
          for (const { backend, differences } of yield* compare(smaller, backends)) {
            for (const text of differences.slice(0, 10)) yield* Console.error(`    ${backend}: ${text.slice(0, 600)}`)
          }
        }
      }),
      { concurrency: parallel, discard: true }
    )
    yield* Console.log(`${times} histories, ${different} with a difference`)
    yield* Effect.sync(() => void (process.exitCode = different === 0 ? 0 : 1))
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "Plays random histories in memory, on a Redis and on a Cluster, and compares what came of them."
  )
)

// Handlers fail by design.
const quiet = Layer.succeed(References.MinimumLogLevel, "None")

NodeRuntime.runMain(
  Command.run(command, { version: "1" }).pipe(Effect.provide(Layer.merge(NodeServices.layer, quiet)))
)
