/** Everything at once, for 20 minutes (SOAK_MINUTES): mixed load, processes that come and go, and one fault after the other. */
import { Effect, Option, Random } from "effect"
import { Rotif, Scheduler, Stats, Subscription } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as TcpProxy from "../../fixtures/TcpProxy.ts"
import { pendingOf } from "../pending.ts"
import { happens, type Run, sound, until } from "../Run.ts"
import { Ledger } from "../soak/Ledger.ts"
import {
  crewStreams,
  Done,
  type Event,
  Everything,
  type Job,
  Line,
  Promised,
  recurring,
  Tasks,
  Work
} from "../soak/load.ts"
import * as Workers from "../Workers.ts"

const lease = 1_000

const recoveryWithin = lease + 1_000

const kinds = [
  "kill",
  "leave",
  "stop",
  "cut",
  "reply",
  "latency",
  "restart",
  "freeze",
  "flush",
  "promised"
] as const

/** Those whose consumers are always there; a group whose only process is exchanged has nobody meanwhile. */
const steadyGroups = ["all", "ordered", "plain", "once", "tx", "done"]

const median = (numbers: ReadonlyArray<number>) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!
const least = (numbers: ReadonlyArray<number>) => Math.min(...numbers)

/** The last quarter of the samples against the second one: growth that goes on would show. */
const growth = (
  what: string,
  samples: ReadonlyArray<number>,
  measure: (numbers: ReadonlyArray<number>) => number,
  slack: number
) => {
  const quarter = (n: number) =>
    measure(samples.slice(Math.floor(samples.length * (n - 1) / 4), Math.ceil(samples.length * n / 4)))
  const [before, after] = [quarter(2), quarter(4)]
  return after <= before * 1.15 + slack
    ? []
    : [`I7: ${what} grows: ${before.toFixed(1)} MiB in the second quarter, ${after.toFixed(1)} MiB in the last`]
}

const groups = {
  plain: Work,
  once: Work,
  done: Done,
  tx: Tasks,
  all: Everything,
  ordered: Line,
  pausing: Work,
  promise: Promised
}

export default {
  number: 13,
  title: "Soak: mixed load, processes coming and going, all of these faults",
  recoveryWithin,
  repetitions: 3,
  // The account of about 60,000 messages for four groups each is in it.
  memoryMiB: 700,
  body: Effect.fnUntraced(function*({ isShort, patience, seed }) {
    const millis = isShort ? 5_000 : Number(process.env["SOAK_MINUTES"] ?? 20) * 60_000
    const one = Effect.gen(function*() {
      return {
        kind: kinds[yield* Random.nextIntBetween(0, kinds.length, { halfOpen: true })]!,
        after: yield* isShort ? Random.nextIntBetween(100, 500) : Random.nextIntBetween(2_000, 10_000),
        lasts: yield* isShort ? Random.nextIntBetween(100, 500) : Random.nextIntBetween(100, 3_000),
        victim: yield* Random.nextIntBetween(0, 1)
      }
    })
    const plan = yield* Effect.all(Array.from({ length: 2_000 }, () => one))

    const server = yield* RedisServer.make({ appendonly: "yes", appendfsync: "always" })
    const proxy = yield* TcpProxy.make(server)
    const ledger = new Ledger()
    const rotif = { url: proxy.url, prefix: "soak", trimInterval: "2 seconds" } as const
    const violations: Array<string> = []
    /**
     * What Redis holds: MiB of each kind of key, and MiB of the rest without what is meant to stay for a time that the docs name: dead
     * letters, ids of publishes (an hour), replies of scripts (10 minutes), and the tables of the database for these keys.
     */
    const census = Effect.gen(function*() {
      const keys = (yield* server.command("keys", "*")) as ReadonlyArray<string>
      const sizes = yield* Effect.forEach(
        keys,
        (key) => Effect.all([server.command("memory", "usage", key, "samples", 0), server.command("ttl", key)]),
        { concurrency: 200 }
      )
      const kinds = new Map<string, { keys: number; endless: number; bytes: number }>()
      keys.forEach((key, i) => {
        const name = key.replace(/^\{[^}]*\}:?/, "").split(":")[0]!
        const kind = kinds.get(name) ?? { keys: 0, endless: 0, bytes: 0 }
        const [bytes, ttl] = sizes[i]!
        kinds.set(name, {
          keys: kind.keys + 1,
          endless: kind.endless + (ttl === -1 ? 1 : 0),
          bytes: kind.bytes + Number(bytes ?? 0)
        })
      })
      const info = String(yield* server.command("info", "memory"))
      const stats = (yield* server.command("memory", "stats")) as ReadonlyArray<unknown>
      const [, main, , expires] = stats[stats.indexOf("db.0") + 1] as ReadonlyArray<unknown>
      // MEMORY USAGE of a key has its entry in the table (24 bytes) and its head (16).
      const tables = Number(main) + Number(expires) - 40 * keys.length
      const kept = ["dead", "seen", "answer"].reduce((sum, name) => sum + (kinds.get(name)?.bytes ?? 0), 0)
      return {
        rest: (Number(/used_memory:(\d+)/.exec(info)![1]) - kept - tables) / 2 ** 20,
        endless: (kinds.get("seen")?.endless ?? 0) + (kinds.get("answer")?.endless ?? 0),
        text: [...kinds].map(([name, { bytes, endless, keys }]) =>
          `${name} ${keys} keys, ${endless} without an end, ${(bytes / 2 ** 20).toFixed(2)} MiB`
        ).join("; ")
      }
    })
    // Every group is there before anything is published: a new one begins with what the others have not settled.
    yield* Effect.forEach(
      Object.entries(groups),
      ([group, source]) => Effect.scoped(Subscription.make(source, { group, lease, handler: () => Effect.never })),
      { discard: true }
    ).pipe(Effect.provide(Rotif.layer({ url: server.url, prefix: rotif.prefix })))
    const atStart = (yield* census).rest

    // Processes ------------------------------------------------------------------------------------------------------

    type Member = Workers.Worker<Job> & { isExpectedToEnd: boolean; isQuiet: boolean }
    const members = new Set<Member>()
    let started = 0
    const begin = Effect.fnUntraced(function*(program: "member" | "promised", role: Job["role"]) {
      const name = role === "steady" ? role : `${program}${started++}`
      const job: Job = { rotif, role, name, seed: seed + started, everyMillis: isShort ? 40 : 50, lease }
      const member: Member = Object.assign(
        yield* Workers.spawnProgram(`soak/${program}.ts`, job, (event: Event) => {
          if (event.event === "quiet") member.isQuiet = true
          ledger.take(event)
        }),
        { isExpectedToEnd: false, isQuiet: false }
      )
      members.add(member)
      return member
    })
    const look = () => {
      for (const member of members) {
        if (member.isRunning()) continue
        members.delete(member)
        const how = member.failure()
        if (!member.isExpectedToEnd) violations.push(`I6: ${member.job.name} ended by itself: ${how ?? "exit code 0"}`)
      }
    }
    const crew = yield* Effect.all([
      begin("member", "crew"),
      begin("member", "crew"),
      begin("promised", "crew"),
      begin("member", "steady")
    ])
    const ready = Effect.forEach(crew, (member) => member.ready, { concurrency: 4, discard: true })
    yield* ready

    const exchange = Effect.fnUntraced(function*(index: number, signal: NodeJS.Signals) {
      const old = crew[index]!
      old.isExpectedToEnd = true
      yield* old.kill(signal)
      crew[index] = yield* begin(index === 2 ? "promised" : "member", "crew")
      if (signal === "SIGTERM") {
        yield* Effect.forkScoped(Effect.andThen(
          old.ended,
          Effect.sync(() => {
            const how = old.failure()
            if (how !== undefined) violations.push(`I6: ${old.job.name} did not end well: ${how}`)
          })
        ))
      } else yield* old.ended
    })

    // Faults -----------------------------------------------------------------------------------------------------------

    const recoveries: Array<number> = []
    const counts = Object.fromEntries(kinds.map((kind) => [kind, 0]))

    /** Until every group has handled something since then. */
    const groupsGoOn = Effect.fnUntraced(function*(at: number, groups = steadyGroups) {
      const took: Array<readonly [what: string, millis: number]> = []
      for (const group of groups) {
        yield* until(`${group} goes on`, Effect.sync(() => ledger.firstSince(at, group) !== undefined))
        took.push([group, ledger.firstSince(at, group)! - at])
      }
      return took
    })

    /** Until others have what it held. */
    const othersTakeOver = Effect.fnUntraced(function*(name: string, at: number) {
      const held = pendingOf(server, name, crewStreams(rotif.prefix))
      const before = yield* held
      if (!(yield* happens(Effect.map(held, (left) => left.length === 0), 60_000))) {
        violations.push(`nobody has taken over from ${name}: ${(yield* held).join(", ")}`)
      }
      return before.length === 0 ? [] : [[`what ${name} held`, Date.now() - at] as const]
    })

    const inject = Effect.fnUntraced(function*({ kind, lasts, victim }: (typeof plan)[number]) {
      switch (kind) {
        case "kill": {
          const at = Date.now()
          const { name } = crew[victim]!.job
          yield* exchange(victim, "SIGKILL")
          return yield* othersTakeOver(name, at)
        }
        case "leave": {
          const at = Date.now()
          yield* exchange(victim, "SIGTERM")
          return yield* groupsGoOn(at)
        }
        case "stop": {
          const at = Date.now()
          const member = crew[victim]!
          yield* member.kill("SIGSTOP")
          yield* Effect.sleep(lasts)
          const took = lasts > lease + 500 ? yield* othersTakeOver(member.job.name, at) : []
          yield* member.kill("SIGCONT")
          return took
        }
        case "cut":
          yield* proxy.cut
          return yield* groupsGoOn(Date.now())
        case "reply": {
          const commands = ["xadd", "evalsha", "xreadgroup", "xack"]
          const command = commands[lasts % commands.length]!
          yield* yield* proxy.dropReplyOnce((request) => request.toString("latin1").toLowerCase().includes(command))
          return yield* groupsGoOn(Date.now())
        }
        case "latency":
          yield* proxy.delay(50 + lasts % 200)
          yield* Effect.sleep(lasts)
          yield* proxy.delay(0)
          return yield* groupsGoOn(Date.now())
        case "restart":
          yield* server.kill
          yield* Effect.sleep(lasts)
          yield* server.restart
          return yield* groupsGoOn(Date.now())
        case "freeze":
          yield* server.stop
          yield* Effect.sleep(lasts)
          yield* server.cont
          return yield* groupsGoOn(Date.now())
        case "flush":
          yield* server.command("script", "flush")
          return yield* groupsGoOn(Date.now())
        case "promised":
          yield* exchange(2, victim === 0 ? "SIGKILL" : "SIGTERM")
          yield* crew[2]!.ready
          return yield* groupsGoOn(Date.now(), ["promise"])
      }
    })

    const redisMemory: Array<number> = []
    const watching = yield* Effect.forkScoped(Effect.gen(function*() {
      for (let n = 0;; n++) {
        look()
        // Redis does not answer while it is stopped or down.
        const held = n % 5 === 0 ? yield* Effect.option(Effect.timeout(census, "2 seconds")) : Option.none()
        if (held._tag === "Some") redisMemory.push(held.value.rest)
        if (n % 30 === 29) {
          const shown = Object.entries(counts).map(([kind, count]) => `${kind} ${count}`).join(", ")
          process.stderr.write(
            `progress soak ${seed}: ${
              Math.round(n / 30)
            } min, ${ledger.messages} messages, ${shown}; slowest recovery ` +
              `${Math.round(Math.max(0, ...recoveries))} ms; ${redisMemory.at(-1)?.toFixed(1)} MiB in Redis, ` +
              `${ledger.rss.at(-1)?.toFixed(0)} MiB in the steady process, ` +
              `${ledger.heap.at(-1)?.toFixed(0)} MiB of heap; ${violations.length} violations\n`
          )
        }
        yield* Effect.sleep(2_000)
      }
    }))

    const end = performance.now() + millis
    let faults = 0
    for (const fault of plan) {
      if (performance.now() + fault.after > end) break
      yield* Effect.sleep(fault.after)
      ledger.mark()
      const took = yield* inject(fault)
      faults++
      counts[fault.kind]!++
      if (took.length > 0) recoveries.push(Math.max(...took.map(([, millis]) => millis)))
      const slow = took.filter(([, millis]) => millis > recoveryWithin * patience)
      if (slow.length > 0) {
        violations.push(
          `I8: after ${JSON.stringify(fault)}: ${slow.map(([what, millis]) => `${what} ${millis} ms`).join(", ")}`
        )
      }
      yield* ready
    }

    // The end ----------------------------------------------------------------------------------------------------------

    for (const member of members) yield* member.kill("SIGUSR2")
    yield* until("all are quiet", Effect.sync(() => [...members].every((member) => member.isQuiet)))
    const account = yield* Effect.gen(function*() {
      yield* Scheduler.removeRecurring(recurring.key)
      if (!(yield* happens(ledger.isDone, 60_000))) violations.push("I5: after a minute not all is handled")
      const found = yield* ledger.account()
      violations.push(...yield* sound())
      if (!isShort) {
        // What all have acknowledged is removed after its grace, and keys that are remembered are forgotten.
        yield* until(
          "the logs are empty",
          Effect.map(Stats.channels(Everything), (stats) => stats.every(({ length }) => length === 0))
        )
        let last = yield* census
        const isBack = Effect.map(census, (now) => {
          last = now
          return now.rest < atStart + 2 && now.endless === 0
        })
        if (!(yield* happens(isBack, 120_000))) {
          violations.push(
            `I7: Redis holds ${last.rest.toFixed(1)} MiB beside what is meant to stay, ${
              atStart.toFixed(1)
            } at the start: ${last.text}`
          )
        }
        process.stderr.write(
          `progress soak ${seed}: at the end ${last.rest.toFixed(1)} MiB of ${atStart.toFixed(1)}: ${last.text}\n`
        )
      }
      return found
    }).pipe(Effect.provide(Rotif.layer({ ...rotif, url: server.url })))
    yield* Effect.sync(look)
    for (const member of members) {
      member.isExpectedToEnd = true
      yield* member.kill("SIGTERM")
      yield* member.ended
      const how = member.failure()
      if (how !== undefined) violations.push(`I6: ${member.job.name} did not end well: ${how}`)
    }
    watching.interruptUnsafe()
    if (!isShort) {
      violations.push(
        ...growth("Redis", redisMemory, median, 1),
        // What is garbage is collected when V8 sees fit: the least of a while is what is held, and the RSS goes up and down by the rest.
        ...growth("the heap of the steady process", ledger.heap, least, 5),
        ...growth("the steady process", ledger.rss, median, 60)
      )
    }
    return { ...account, faults, recoveries, violations: [...account.violations, ...violations] }
  })
} satisfies Run
