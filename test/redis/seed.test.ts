/** The page this library was first described on: all its code, in memory and on Redis. */
import { assert, describe, expect as vitestExpect, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync, spawn } from "node:child_process"
import fs from "node:fs"
import { join } from "node:path"
import { NotificationManager, type PublishOptions, type RotifMessage, type SubscribeOptions } from "rotif/promise"
import { afterEach, beforeEach } from "vitest"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { freshPrefix } from "../contract/kit.ts"
import { backends, close, managed, quiet, redisUrl, until } from "../contract/promiseKit.ts"
import { seedSuite } from "../contract/seed.ts"
import { seedFailureSuite } from "../contract/seedFailure.ts"

for (const { config, name } of backends) {
  seedSuite(name, config)
  seedFailureSuite(name, config)
}

describe("integration testing, as on the page", () => {
  /** `toBeLessThan` of a test framework wants numbers; the ids of the page are strings, in ascending order. */
  const expect = (value: unknown) => ({
    toHaveLength: (length: number) => vitestExpect(value).toHaveLength(length),
    toBeLessThan: (other: string | undefined) =>
      assert.isTrue((value as string) < other!, `${String(value)} < ${other}`)
  })

  describe("NotificationManager Integration", () => {
    let manager: NotificationManager

    beforeEach(async () => {
      manager = new NotificationManager({
        redis: `${redisUrl}/1`, // Use separate DB for tests
        maxRetries: 2,
        logger: quiet
      })
      await manager.redis.flushdb() // Clean test database
    })

    afterEach(async () => {
      await manager.stopAll()
    })

    it("should process messages in order", async () => {
      const received: string[] = []

      await manager.subscribe("test.order", async (msg) => {
        received.push(msg.id)
      }, { group: "test-group" })

      await manager.publish("test.order", { seq: 1 })
      await manager.publish("test.order", { seq: 2 })

      // Wait for processing
      await new Promise((resolve) => setTimeout(resolve, 1000))

      expect(received).toHaveLength(2)
      expect(received[0]).toBeLessThan(received[1]) // Check order
    })

    it("shows the client of the database it uses", async () => {
      const stored = () => manager.redis.xlen("{rotif:0}:log:test.order")
      assert.strictEqual(await stored(), 0)
      await manager.publish("test.order", 1)
      assert.strictEqual(await stored(), 1)
      const keys = await manager.redis.keys("*")
      assert.isTrue(keys.every((key) => key.startsWith("{rotif:")), keys.join())
      // Only what was published: the manager takes its leases again at any time, and makes the log of a channel it knows again.
      await manager.redis.flushdb()
      assert.strictEqual(await stored(), 0)
    })
  })
})

describe("performance optimization, as on the page", () => {
  it("a stream keeps about maxStreamLength messages", async () => {
    const prefix = freshPrefix()
    const manager = managed({
      redis: redisUrl,
      prefix,
      maxStreamLength: 1000, // Keep approximately 1k messages
      // or
      minStreamId: "1-0" // Keep messages after this ID
    })
    for (let i = 0; i < 10; i++) {
      await manager.publishBatch(
        Array.from({ length: 500 }, (_, n) => ({ channel: "measurements", payload: i * 500 + n }))
      )
    }
    const keys = await manager.redis.keys(`{${prefix}:*}*measurements*`)
    const lengths = await Promise.all(
      keys.map(async (key) => await manager.redis.type(key) === "stream" ? manager.redis.xlen(key) : 0)
    )
    const length = Math.max(...lengths)
    assert.isAtLeast(length, 1000)
    // Redis removes whole nodes, of 100 entries by default.
    assert.isAtMost(length, 1200)
  })
})

describe("security, as on the page", () => {
  it.live(
    "authentication: TLS with a certificate of one's own authority, a client certificate, a password",
    () =>
      Effect.gen(function*() {
        const files = yield* RedisServer.make()
        const { dir } = files
        const openssl = (...args: ReadonlyArray<string>) => execFileSync("openssl", args, { cwd: dir, stdio: "pipe" })
        const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Rotif Test CA")
        for (const who of ["server", "client"]) {
          openssl("req", ...key.slice(0, 5), "-keyout", `${who}.key`, "-out", `${who}.csr`, "-subj", `/CN=${who}`)
          fs.writeFileSync(join(dir, "san.cnf"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
          const sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san.cnf"]
          openssl("x509", "-req", "-in", `${who}.csr`, "-out", `${who}.crt`, ...sign)
        }
        const tlsPort = yield* Effect.promise(RedisServer.freePort)
        const password = "a secret: with / and @"
        yield* RedisServer.make({
          "tls-port": String(tlsPort),
          "tls-cert-file": join(dir, "server.crt"),
          "tls-key-file": join(dir, "server.key"),
          "tls-ca-cert-file": join(dir, "ca.crt"),
          "tls-auth-clients": "yes",
          requirepass: `"${password}"`
        })

        const previous = process.env["REDIS_PASSWORD"]
        process.env["REDIS_PASSWORD"] = password
        const manager = new NotificationManager({
          redis: {
            url: `redis://localhost:${tlsPort}`,
            password: process.env["REDIS_PASSWORD"],
            tls: {
              // TLS configuration
              ca: fs.readFileSync(join(dir, "ca.crt")),
              cert: fs.readFileSync(join(dir, "client.crt")),
              key: fs.readFileSync(join(dir, "client.key"))
            }
          },
          logger: quiet
        })
        if (previous === undefined) delete process.env["REDIS_PASSWORD"]
        else process.env["REDIS_PASSWORD"] = previous
        close(manager)

        const seen: Array<unknown> = []
        yield* Effect.promise(async () => {
          await manager.subscribe("secrets", async (msg) => void seen.push(msg.payload))
          await manager.publish("secrets", "over TLS")
          await until(() => seen.length === 1)
          assert.strictEqual(await manager.redis.ping(), "PONG")
          await manager.stopAll()
        })
        assert.deepStrictEqual(seen, ["over TLS"])

        // What the settings keep out.
        const refusal = async (redis: object) => {
          const other = managed({ redis: { url: `redis://localhost:${tlsPort}`, startTimeout: 2000, ...redis } })
          const error = await other.waitUntilReady().then(() => undefined, (error: Error) => error)
          return error?.message ?? "connected"
        }
        const tls = (who: string) => ({
          ca: fs.readFileSync(join(dir, "ca.crt")),
          cert: fs.readFileSync(join(dir, `${who}.crt`)),
          key: fs.readFileSync(join(dir, `${who}.key`))
        })
        yield* Effect.promise(async () => {
          const wrong = await refusal({ password: "wrong", tls: tls("client") })
          assert.match(wrong, /WRONGPASS/)
          assert.notInclude(wrong, "wrong,")
          assert.notStrictEqual(
            await refusal({ password, tls: { ca: fs.readFileSync(join(dir, "ca.crt")) } }),
            "connected"
          )
          assert.notStrictEqual(
            await refusal({ password, tls: { ...tls("client"), ca: fs.readFileSync(join(dir, "client.crt")) } }),
            "connected"
          )
        })
      }).pipe(Effect.scoped),
    60_000
  )
})

describe("graceful shutdown, as on the page", () => {
  it("SIGINT: running handlers finish and are acknowledged, other messages stay for other consumers, the process ends", async () => {
    const prefix = freshPrefix()
    const child = spawn(
      process.execPath,
      ["--conditions=rotif-source", join(import.meta.dirname, "../processes/interrupted.ts")],
      { env: { ...process.env, REDIS_URL: redisUrl, PREFIX: prefix }, stdio: ["ignore", "pipe", "inherit"] }
    )
    try {
      let output = ""
      child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString()
      })
      const ended = new Promise<number | null>((resolve) => child.once("exit", resolve))
      await until(() => output.includes("ready"))
      const manager = managed({ redis: redisUrl, prefix, groupNameFn: () => "group" })
      for (const n of [1, 2, 3]) await manager.publish("work", n)
      await until(() => output.includes("started 1"))
      child.kill("SIGINT")

      assert.strictEqual(await ended, 0)
      assert.deepStrictEqual(output.trimEnd().split("\n").filter((line) => /^(started|stop|finished)/.test(line)), [
        "started 1",
        "stopping",
        "finished 1",
        "stopped"
      ])
      const rest: Array<string> = []
      await manager.subscribe("work", async (msg) => void rest.push(`${msg.payload} ${msg.attempt}`))
      await until(() => rest.length === 2)
      assert.deepStrictEqual(rest.toSorted(), ["2 1", "3 1"])
    } finally {
      child.kill("SIGKILL")
    }
  })
})

describe("API reference, as on the page", () => {
  /** What the page says of `NotificationManager`; but that a requeue tells how many, as its example wants. */
  interface Page {
    publish(channel: string, payload: unknown, options?: PublishOptions): Promise<string>
    subscribe(
      pattern: string,
      handler: (msg: RotifMessage) => Promise<void>,
      options?: SubscribeOptions
    ): Promise<{ readonly id: string }>
    subscribeToDLQ(handler: (msg: RotifMessage) => Promise<void>): Promise<void>
    requeueFromDLQ(count?: number): Promise<number>
    stopAll(): Promise<void>
  }

  it("has these methods, with these types", () => {
    const page: Page = managed({ redis: "memory" })
    for (const method of ["publish", "subscribe", "subscribeToDLQ", "requeueFromDLQ", "stopAll"] as const) {
      assert.isFunction(page[method])
    }
  })
})
