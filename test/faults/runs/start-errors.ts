/**
 * A start that cannot succeed says what is wrong and where, in bounded time; the same faults while it runs are told, heal when they are
 * mended, and lose nothing. No word of it has a password in it.
 */
import { Effect, Layer, Logger, Random } from "effect"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import { Health, Publisher, Rotif, Subscription } from "rotif"
import { NotificationManager } from "rotif/promise"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { documented } from "../../fixtures/documentedUser.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, until } from "../Run.ts"
import { Work } from "../worker.ts"

/** In every password and user name; what is said anywhere must not have it. */
const secret = "canary"
const password = `${secret}-password`

/** What listens and is no Redis server, or an old one. */
const listener = (answer: (request: string) => string | undefined) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const sockets = new Set<Socket>()
      const server = createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {}).on("close", () => sockets.delete(socket))
        socket.on("data", (data) => {
          for (const request of String(data).toLowerCase().split(/(?=\*\d+\r\n)/)) {
            const text = answer(request)
            if (text !== undefined) socket.write(text)
          }
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed({
          port: typeof address === "object" && address !== null ? address.port : 0,
          close: () => {
            server.close()
            for (const socket of sockets) socket.destroy()
          }
        }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

const bulk = (text: string) => `$${text.length}\r\n${text}\r\n`

/** A key and a certificate that vouches for itself. */
const certificate = Effect.acquireRelease(
  Effect.sync(() => {
    const dir = mkdtempSync(join(tmpdir(), "rotif-tls-"))
    const [key, cert] = [join(dir, "key.pem"), join(dir, "cert.pem")]
    const args = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    spawnSync("openssl", [...args, "-keyout", key, "-out", cert])
    return { dir, key, cert }
  }),
  ({ dir }) => Effect.sync(() => rmSync(dir, { recursive: true }))
)

const user = (...changes: ReadonlyArray<string>) => {
  const [, , , ...rules] = documented
  return [`${secret}-user`, ...rules.map((rule) => rule === ">secret" ? `>${password}` : rule), ...changes].join(" ")
}

export default {
  number: 9,
  title:
    "Wrong passwords, missing permissions, replicas, TLS mismatches, old and foreign servers; at start and while running",
  recoveryWithin: 5_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const said: Array<string> = []
    const violations: Array<string> = []
    const logger = Logger.make(({ cause, message }) => void said.push(inspect([message, cause], { depth: 12 })))
    const { cert, key } = yield* certificate
    const tlsPort = yield* Effect.promise(RedisServer.freePort)
    const server = yield* RedisServer.make({
      appendonly: "yes",
      appendfsync: "always",
      "tls-port": String(tlsPort),
      "tls-key-file": key,
      "tls-cert-file": cert,
      "tls-auth-clients": "no",
      user: [
        user(),
        user("-xack").replace("-user", "-noack"),
        user("-evalsha", "-eval").replace("-user", "-noeval"),
        user("+cluster|slots").replace("-user", "-cluster")
      ]
    })
    const replica = yield* RedisServer.make({ replicaof: `127.0.0.1 ${server.port}` })
    const old = yield* listener((request) =>
      request.includes("info")
        ? bulk("redis_version:5.0.14\r\nredis_mode:standalone\r\nrole:master\r\n")
        : request.includes("hello")
        ? "-ERR unknown command 'HELLO'\r\n"
        : request.includes("client")
        ? ":1\r\n"
        : "+OK\r\n"
    )
    const web = yield* listener(() => "HTTP/1.1 400 Bad Request\r\n\r\n")
    const silent = yield* listener(() => undefined)
    const host = "127.0.0.1"
    const nobody = yield* Effect.promise(RedisServer.freePort)
    const login = (name = "user") => `${secret}-${name}:${password}@`
    const at = (port: number, name?: string) => ({ url: `redis://${login(name)}${host}:${port}` })
    const quick = { connectTimeout: 1_200, startTimeout: 2_500, prefix: "rotif" } as const
    const starts: ReadonlyArray<readonly [name: string, options: Rotif.RedisOptions, told: RegExp]> = [
      ["a wrong password", { url: `redis://${secret}-user:${secret}-wrong@${host}:${server.port}` }, /WRONGPASS/],
      ["a missing permission", at(server.port, "noack"), /permit \+xack/],
      ["scripts that are not permitted", at(server.port, "noeval"), /NOPERM.*eval/],
      ["another namespace", { ...at(server.port), prefix: "shop" }, /NOPERM/],
      ["a replica", { host, port: replica.port }, /is a replica: give the address of its master/],
      [
        "TLS where there is none",
        { url: `rediss://${login()}${host}:${server.port}` },
        /does it speak TLS|does not speak TLS/
      ],
      ["no TLS where it is needed", at(tlsPort), /speak TLS/],
      ["a certificate nobody vouches for", { url: `rediss://${login()}${host}:${tlsPort}` }, /certificate/],
      ["a server that is too old", at(old.port), /5\.0\.14 is too old: 7\.0/],
      ["nobody there", at(nobody), /ECONNREFUSED/],
      ["no such host", { url: `redis://${login()}no.such.host.invalid:6379` }, /ENOTFOUND|EAI_AGAIN/],
      ["an HTTP server", at(web.port), /no Redis server/],
      ["a server that says nothing", at(silent.port), /no answer within 1200 ms/],
      ["Sentinels that are not there", {
        sentinels: [{ host, port: nobody }],
        name: "mymaster",
        password,
        sentinelPassword: `${secret}-sentinel`
      }, /sentinels are unreachable/],
      ["a Sentinel that is none", {
        sentinels: [{ host, port: server.port }],
        name: "mymaster",
        password,
        sentinelPassword: `${secret}-sentinel`
      }, /master mymaster: /],
      [
        "a Cluster that is none",
        { cluster: [{ host, port: server.port }], username: `${secret}-cluster`, password },
        /Cluster/
      ],
      ["a Cluster with a wrong password", {
        cluster: [{ host, port: server.port }],
        username: `${secret}-user`,
        password: `${secret}-wrong`
      }, /WRONGPASS/]
    ]
    const attempts = Effect.forEach(
      starts,
      Effect.fnUntraced(function*([name, options, told]) {
        const from = performance.now()
        const error = yield* Effect.flip(Effect.scoped(Layer.build(Layer.fresh(Rotif.layer({ ...quick, ...options })))))
          .pipe(
            Effect.catchCause((cause) => Effect.succeed(new Error(`it did not fail: ${String(cause)}`)))
          )
        const millis = performance.now() - from
        const text = inspect(error, { depth: 12, showHidden: true }) + JSON.stringify(error) + String(error)
        said.push(text)
        if (!told.test(text)) violations.push(`${name}: it says ${String(error)}`)
        if (millis > 8_000) violations.push(`${name}: it took ${Math.round(millis)} ms`)
      }),
      { concurrency: "unbounded", discard: true }
    )
    yield* Effect.provide(attempts, Logger.layer([logger]))
    const log = (...what: ReadonlyArray<unknown>) => void said.push(inspect(what, { depth: 12 }))
    const manager = new NotificationManager({
      redis: `redis://${secret}-user:${secret}-wrong@${host}:${server.port}`,
      logger: { debug: log, info: log, warn: log, error: log }
    })
    const rejected = yield* Effect.promise(async () => {
      const told = await manager.publish("work", "x").then(
        () => "it did not fail",
        (error: unknown) => inspect(error, { depth: 12, showHidden: true }) + JSON.stringify(error)
      )
      await manager.stopAll()
      return told + inspect(manager, { depth: 4 }) + JSON.stringify(manager)
    })
    said.push(rejected)
    if (!rejected.includes("WRONGPASS")) violations.push(`the Promise API says ${rejected}`)

    // While it runs -----------------------------------------------------------------------------------------------------
    const admin = (...command: ReadonlyArray<string>) => server.command(command[0]!, ...command.slice(1))
    const name = `${secret}-user`
    const cut = admin("client", "kill", "user", name).pipe(Effect.ignore)
    const faults: ReadonlyArray<
      readonly [begin: Effect.Effect<unknown, unknown>, end: Effect.Effect<unknown, unknown>]
    > = [
      [
        Effect.andThen(admin("acl", "setuser", name, "resetpass", `>${secret}-new`), cut),
        admin("acl", "setuser", name, "resetpass", `>${password}`)
      ],
      ...["xadd", "xreadgroup", "xack", "evalsha"].map((command) =>
        [
          admin("acl", "setuser", name, `-${command}`),
          admin("acl", "setuser", name, `+${command}`)
        ] as const
      ),
      // A failover elsewhere: the address leads to a replica, with the data it had, and then to the master again.
      [admin("replicaof", host, String(nobody)), admin("replicaof", "no", "one")]
    ]
    const plan = (yield* Random.shuffle([...faults, ...faults])).slice(0, isShort ? 3 : 12)
    const lasts = yield* Random.nextIntBetween(300, isShort ? 500 : 2_000)
    const recorder = new Recorder()
    const recoveries: Array<number> = []
    const running = Effect.gen(function*() {
      yield* Subscription.make(Work, {
        group: "all",
        lease: "1 second",
        handler: ({ deliveryCount, payload }) =>
          Effect.sync(() =>
            recorder.handled({
              group: "all",
              consumer: "c",
              channel: "work",
              text: payload,
              deliveryCount,
              at: Date.now()
            })
          )
      })
      let n = 0
      let isOver = false
      const publishing = yield* Effect.forkScoped(
        Effect.gen(function*() {
          while (!isOver) {
            const text = `p-${n++}`
            const exit = yield* Effect.exit(Publisher.publish(Work, text, { id: text }))
            if (exit._tag === "Success") recorder.told(text)
            else said.push(inspect(exit, { depth: 12, showHidden: true }) + JSON.stringify(exit))
            yield* Effect.sleep(5)
          }
        })
      )
      for (const [begin, end] of plan) {
        const before = recorder.deliveries.length
        yield* until("messages are handled", Effect.sync(() => recorder.deliveries.length > before + 5))
        yield* begin
        yield* Effect.sleep(lasts)
        said.push(inspect(yield* Health.check, { depth: 12 }))
        yield* end
        const mended = Date.now()
        yield* until("messages are handled again", Effect.sync(() => recorder.firstAfter(mended) !== undefined), 20_000)
        recoveries.push(recorder.firstAfter(mended)!.at - mended)
      }
      isOver = true
      yield* publishing.pipe((fiber) =>
        until("the publisher ends", Effect.sync(() => fiber.pollUnsafe() !== undefined))
      )
      yield* until("health is well again", Effect.map(Health.check, ({ status }) => status === "healthy"), 20_000)
      return yield* settled(Work)
    })
    const lines = said.length
    const left = yield* running.pipe(
      Effect.scoped,
      Effect.provide(Rotif.layer({ ...quick, ...at(server.port), commandTimeout: 500, startTimeout: "5 seconds" })),
      Effect.provide(Logger.layer([logger]))
    )
    const leaks = said.filter((text) => text.includes(`${secret}-`))
    if (leaks.length > 0) {
      violations.push(`${leaks.length} texts with a credential in them, such as ${leaks[0]!.slice(0, 300)}`)
    }
    if (said.length === lines) violations.push("nothing was said of the faults")
    const account = recorder.account({ groups: ["all"] })
    return {
      ...account,
      faults: starts.length + 1 + plan.length,
      recoveries,
      violations: [...account.violations, ...violations, ...left]
    }
  })
} satisfies Run
