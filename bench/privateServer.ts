/**
 * A private redis-server for a bench: loopback, no persistence, ends with the scope.
 */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { createServer } from "node:net"

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

/** Starts it and gives its port. */
export const privateServer = Effect.gen(function*() {
  const port = yield* freePort
  const args = ["--port", String(port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
  const child = spawn(process.env["REDIS_SERVER"] ?? "redis-server", args, { stdio: ["ignore", "pipe", "ignore"] })
  yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
  yield* Effect.callback<void>((resume) => {
    let log = ""
    child.stdout.on("data", (chunk: Buffer) => {
      log += chunk.toString()
      if (log.includes("Ready to accept connections")) resume(Effect.void)
    })
    child.once("exit", () => resume(Effect.die(new Error(`redis-server ended before it was ready\n${log}`))))
  })
  return port
})

/** A number in the reply of INFO. */
export const field = (info: string, name: string) => Number(new RegExp(`^${name}:(.*)$`, "m").exec(info)?.[1])
