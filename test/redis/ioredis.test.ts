/**
 * Properties of ioredis that Rotif uses and ioredis does not promise. The version is pinned; each test fails by its name when another version loses one.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cluster, Command, Redis } from "ioredis"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import { join } from "node:path"
import { inject } from "vitest"

const root = join(import.meta.dirname, "../..")
const versionIn = (file: string): { readonly version: string; readonly dependencies: Record<string, string> } =>
  JSON.parse(readFileSync(file, "utf8"))

/** A connected client, closed at the end. */
const withClient = async <A>(use: (client: Redis) => Promise<A>): Promise<A> => {
  const client = new Redis({ port: inject("redisPort"), protocol: 2, lazyConnect: true, replyMapping: "legacy" })
  client.on("error", () => {})
  try {
    await client.connect()
    return await use(client)
  } finally {
    client.disconnect()
  }
}

describe("the internals of ioredis", () => {
  it("package.json: the version is exact, and it is the one that is installed", () => {
    const wanted = versionIn(join(root, "package.json")).dependencies["ioredis"]!
    assert.match(wanted, /^\d+\.\d+\.\d+$/)
    assert.strictEqual(versionIn(createRequire(import.meta.url).resolve("ioredis/package.json")).version, wanted)
  })

  it("Cluster: keeps the nodes it was made with as startupNodes", () => {
    const cluster = new Cluster([{ host: "10.0.0.1", port: 7000 }], { lazyConnect: true })
    assert.deepStrictEqual(Reflect.get(cluster, "startupNodes"), [{ host: "10.0.0.1", port: 7000 }])
    cluster.disconnect()
  })

  it("Cluster and Redis: tell which they are by isCluster, and keep their options", () => {
    const cluster = new Cluster([{ host: "10.0.0.1", port: 7000 }], { lazyConnect: true, redisOptions: { db: 0 } })
    const client = new Redis("redis://alice:secret@10.0.0.1:7000/3", { lazyConnect: true })
    assert.deepStrictEqual([cluster.isCluster, client.isCluster], [true, false])
    assert.isDefined(cluster.options.redisOptions)
    const { db, host, password, port, username } = client.options
    assert.deepStrictEqual({ db, host, password, port, username }, {
      db: 3,
      host: "10.0.0.1",
      password: "secret",
      port: 7000,
      username: "alice"
    })
    cluster.disconnect()
    client.disconnect()
  })

  it("Command: knows its keys and its slot", () => {
    const command = new Command("xreadgroup", ["GROUP", "g", "c", "STREAMS", "{a:0}:log", ">"])
    assert.deepStrictEqual(command.getKeys().map(String), ["{a:0}:log"])
    assert.strictEqual(new Command("type", ["{a:0}:log"]).getSlot(), new Command("type", ["{a:0}:meta"]).getSlot())
    assert.strictEqual(new Command("type", ["foo"]).getSlot(), 12_182)
  })

  it("sendCommand: writes whole commands to what is given in place of the socket, and the reply settles their promises", () =>
    withClient(async (client) => {
      let text = ""
      const collector = {
        isPipeline: true,
        write: (part: string | Buffer) => {
          text += part.toString()
        },
        destination: { redis: client }
      } as const
      const commands = ["ä", "b"].map((value) => new Command("echo", [value], { replyEncoding: "utf8" }))
      for (const command of commands) client.sendCommand(command, collector)
      assert.strictEqual(text, "*2\r\n$4\r\necho\r\n$2\r\nä\r\n*2\r\n$4\r\necho\r\n$1\r\nb\r\n")
      client.stream.write(text)
      assert.deepStrictEqual(await Promise.all(commands.map(({ promise }) => promise)), ["ä", "b"])
    }))

  it("status and stream: ready and writable while it is connected; the end is told by an event", () =>
    withClient(async (client) => {
      assert.strictEqual(client.status, "ready")
      assert.isTrue(client.stream.writable)
      const ended = new Promise<void>((resolve) => client.once("end", () => resolve()))
      client.disconnect()
      client.stream.destroy()
      await ended
    }))

  it("replies: an error of the server is a ReplyError with its text; XREADGROUP in lower case gives plain arrays", () =>
    withClient(async (client) => {
      const error = await client.call("xreadgroup", "GROUP", "g", "c", "STREAMS", "no such stream", ">").then(
        () => undefined,
        (error: Error) => error
      )
      assert.deepInclude({ name: error?.name, code: error?.message.split(" ", 1)[0] }, {
        name: "ReplyError",
        code: "NOGROUP"
      })
      await client.call("xgroup", "CREATE", "ioredis-test", "g", "0", "MKSTREAM")
      await client.call("xadd", "ioredis-test", "1-1", "k", "v")
      assert.deepStrictEqual(await client.call("xreadgroup", "GROUP", "g", "c", "STREAMS", "ioredis-test", ">"), [
        ["ioredis-test", [["1-1", ["k", "v"]]]]
      ])
      await client.call("del", "ioredis-test")
    }))

  it("errors: what is not sent, and what is lost, are told by the texts that are looked for", async () => {
    const offline = new Redis({ port: 1, lazyConnect: true, enableOfflineQueue: false, retryStrategy: () => null })
    offline.on("error", () => {})
    const unsent = await offline.call("ping").then(() => "", (error: Error) => error.message)
    assert.match(unsent, /^Stream isn't writeable/)
    offline.disconnect()
    const server = createServer((socket) => void socket.on("data", () => socket.destroy()))
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const client = new Redis({ port, lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 })
    client.on("error", () => {})
    const lost = await client.connect().then(() => "", (error: Error) => error.message)
    assert.match(lost, /Connection is closed|ECONNRESET|EPIPE/)
    client.disconnect()
    server.close()
  })

  it("socketTimeout: ends a connection that owes an answer", async () => {
    const server = createServer((socket) => void socket.on("error", () => {}))
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const client = new Redis({ port, lazyConnect: true, socketTimeout: 100, retryStrategy: () => null })
    client.on("error", () => {})
    const from = performance.now()
    await client.connect().then(() => assert.fail("it is no Redis"), () => {})
    assert.isBelow(performance.now() - from, 5_000)
    client.disconnect()
    server.close()
  })

  it("sharded subscriptions: the event moved is emitted", () => {
    const main = createRequire(import.meta.url).resolve("ioredis")
    const handler = readFileSync(join(main, "..", "DataHandler.js"), "utf8")
    assert.include(handler, "emit(\"moved\")")
  })
})
