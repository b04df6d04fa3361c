/**
 * A connection breaks while 12 publishes of large messages are in flight, and others add hundreds of large messages before it is back. The
 * search for the 12 holds up nobody: no command takes Redis longer than 5 ms, other clients are answered, its memory stays what it was.
 */
import { Effect, Fiber, Random, Schema } from "effect"
import { readFile } from "node:fs/promises"
import { Channel, Publisher, Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as TcpProxy from "../../fixtures/TcpProxy.ts"
import { type Run } from "../Run.ts"

const inFlight = 12
const slowMicros = 5_000
/** Another client is answered within this time at the latest, beside what the server waits for a processor. */
const waitMillis = 100
/** The 12 are known by then. */
const decidedWithin = 20_000

const log = (channel: string) => `{huge:0}:log:${channel}`

/** Microseconds for which the main thread of a process was ready to run, and others had the processor. */
const waitedMicros = (pid: number) =>
  Effect.promise(() => readFile(`/proc/${pid}/task/${pid}/schedstat`, "utf8")).pipe(
    Effect.map((text) => Number(text.split(" ")[1]) / 1_000)
  )

const field = (info: unknown, name: string) => Number(new RegExp(`^${name}:(\\d+)`, "m").exec(String(info))?.[1])

export default {
  number: 21,
  title: "12 publishes in flight at a cut, searched for among hundreds of messages of 200 kB and of 1 MiB",
  recoveryWithin: decidedWithin,
  body: Effect.fnUntraced(function*({ isShort, patience }) {
    const server = yield* RedisServer.make({ "slowlog-max-len": "10000" })
    const proxy = yield* TcpProxy.make(server)
    const violations: Array<string> = []
    const recoveries: Array<number> = []
    const sizes = [[200_000, isShort ? 150 : 1_000], [1_000_000, isShort ? 30 : 300]] as const

    const round = Effect.fnUntraced(function*(size: number, others: number) {
      const channel = Channel.make(`size${size}`, { payload: Schema.String })
      const publish = (text: string) =>
        Effect.gen(function*() {
          let id: string | undefined
          while (true) {
            const result = yield* Effect.result(Publisher.publish(channel, text, id === undefined ? {} : { id }))
            if (result._tag === "Success") return result.success
            const error = result.failure
            if (error._tag !== "PublishUncertain" && error._tag !== "Unavailable") return yield* Effect.die(error)
            if (error._tag === "PublishUncertain" && error.isLasting) return yield* Effect.die(error)
            id = error.id
          }
        })
      yield* publish("first")
      // The first of them are stored, the others never reach the server.
      const stored = yield* Random.nextIntBetween(1, inFlight)
      const names = Array.from({ length: inFlight }, (_, i) => `m${String(i).padStart(2, "0")}`)
      const text = (name: string) => name + "x".repeat(size)
      const dropped = yield* proxy.dropReplyOnce((request) => request.includes(`"${names[stored - 1]!}x`))
      const publishing = yield* Effect.forkChild(
        Effect.forEach(names, (name) => publish(text(name)), { concurrency: inFlight }),
        { startImmediately: true }
      )
      yield* dropped
      yield* proxy.refuse
      yield* proxy.cut
      for (let i = 0; i < others; i++) {
        yield* server.command(
          "eval",
          "return redis.call('xadd', KEYS[1], '*', 'i', ARGV[1], 'p', '\"' .. string.rep('x', ARGV[2]) .. '\"')",
          1,
          log(channel.name),
          `other${i}`,
          size
        )
      }
      const before = field(yield* server.command("info", "memory"), "used_memory")
      yield* server.command("config", "set", "slowlog-log-slower-than", slowMicros)
      yield* server.command("slowlog", "reset")
      let [worst, most] = [0, before]
      const watching = yield* Effect.forkChild(Effect.forever(Effect.gen(function*() {
        const asked = performance.now()
        const info = yield* server.command("info", "memory")
        worst = Math.max(worst, performance.now() - asked)
        most = Math.max(most, field(info, "used_memory"))
        yield* Effect.sleep(2)
      })))
      const waited = yield* waitedMicros(server.pid())
      const from = performance.now()
      yield* proxy.accept
      const receipts = yield* Fiber.join(publishing)
      recoveries.push(performance.now() - from)
      yield* Fiber.interrupt(watching)
      const slow = (yield* server.command("slowlog", "get", -1)) as ReadonlyArray<
        readonly [number, number, number, Array<string>]
      >
      yield* server.command("config", "set", "slowlog-log-slower-than", -1)
      const what = `among ${others} messages of ${size} bytes`
      const micros = Math.max(0, ...slow.map(([, , taken]) => taken))
      // On a machine that has other things to do the time of a command is not its own alone.
      const excess = slow.reduce((sum, [, , taken]) => sum + taken - slowMicros, 0)
      const allowed = (yield* waitedMicros(server.pid())) - waited
      if (excess > allowed) {
        violations.push(
          `${what} ${slow.length} commands took longer than ${slowMicros} µs, up to ${micros} µs: ${slow[0]![3][0]}`
        )
      }
      if (worst > waitMillis * patience + allowed / 1_000) {
        violations.push(`${what} another client waited for ${Math.round(worst)} ms`)
      }
      // The 12 messages themselves, twice: stored, and on their way.
      const room = 2 * inFlight * size + 16 * 2 ** 20
      if (most > before + room) violations.push(`${what} memory grew from ${before} to ${most} bytes`)
      for (const receipt of receipts) if (receipt._tag !== "Published") violations.push(`a receipt is ${receipt._tag}`)
      const entries = (yield* server.command(
        "eval",
        `local found, from = {}, '-'
        while true do
          local entry = redis.call('xrange', KEYS[1], from, '+', 'COUNT', 1)[1]
          if not entry then return found end
          found[#found + 1] = string.sub(entry[2][4], 2, 4)
          from = '(' .. entry[1]
        end`,
        1,
        log(channel.name)
      )) as ReadonlyArray<string>
      for (const name of names) {
        const times = entries.filter((entry) => entry === name).length
        if (times !== 1) violations.push(`${name} ${what} is stored ${times} times`)
      }
      yield* server.command("del", log(channel.name))
    })

    yield* Effect.forEach(sizes, ([size, others]) => round(size, others), { discard: true }).pipe(
      Effect.provide(Rotif.layer({ url: proxy.url, prefix: "huge", graceMillis: 600_000, maxPayloadBytes: 2 ** 21 }))
    )
    return { messages: sizes.length * inFlight, faults: sizes.length, lost: 0, repeated: 0, recoveries, violations }
  })
} satisfies Run
