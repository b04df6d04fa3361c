/**
 * A position stands for one message, also where somebody deletes a stream and it is made again within the same millisecond: every script that
 * makes a stream, many times in a row with the stream deleted in between.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Redis } from "ioredis"
import { inject } from "vitest"
import { attachGroup } from "../../src/redisBroker/scripts/member/attachGroup.ts"
import { createChannel } from "../../src/redisBroker/scripts/publish/createChannel.ts"
import { commit } from "../../src/redisBroker/scripts/member/commit.ts"
import { bodyWithoutTime } from "../../src/redisBroker/scripts/checks/bodyWithoutTime.ts"
import { promote } from "../../src/redisBroker/scripts/publish/promote.ts"
import { requeueLetters } from "../../src/redisBroker/scripts/deadLetters/requeue.ts"
import { reschedule } from "../../src/redisBroker/scripts/publish/reschedule.ts"
import { settle } from "../../src/redisBroker/scripts/member/settle.ts"
import type { Script } from "../../src/Redis.ts"
import { freshPrefix } from "../contract/kit.ts"

type Arg = string | number

interface Case {
  readonly script: Script
  /** What it makes. */
  readonly makes: string
  /** `$name` stands for the key of that name. */
  readonly seed?: ReadonlyArray<ReadonlyArray<Arg>> | undefined
  readonly keys: ReadonlyArray<string>
  readonly args: ReadonlyArray<Arg>
}

const settleKeys = ["source", "retry", "waiting", "bodies", "dead", "retries", "meta", "counts", "trials"]
const gate = ["busy", "lines", "behind", "reached"]
const handedOut: Case["seed"] = [
  ["xgroup", "create", "$source", "g", "0", "mkstream"],
  ["xadd", "$source", "1-0", "p", "x"],
  ["xreadgroup", "group", "g", "c", "count", 1, "streams", "$source", ">"]
]
const waits = (member: string): Case["seed"] => [
  ["hset", "$bodies", "id", member.startsWith("\n") ? "\nx" : "{}\nx"],
  ["zadd", "$waiting", 1, member]
]
const settled = (
  action: string,
  value: string
) => ["g", "c", "ch", "events", 0, "1-0", 1, action, value, "{}\nx", "", "", ""]

const cases: ReadonlyArray<Case> = [
  { script: createChannel, makes: "log", keys: ["meta", "channels", "log"], args: ["ch", "", "events"] },
  {
    script: attachGroup,
    makes: "log",
    keys: ["floors", "counts", "settled", "removed", "taken", "log", "retry", "bodies", ...gate],
    args: ["g", "0", "[]", "ch"]
  },
  {
    script: attachGroup,
    makes: "retry",
    keys: ["floors", "counts", "settled", "removed", "taken", "retry", "retry", "retry", ...gate],
    args: ["g", "0", "[]", "\nch"]
  },
  { script: settle, makes: "retry", seed: handedOut, keys: settleKeys, args: settled("ready", "") },
  { script: settle, makes: "dead", seed: handedOut, keys: settleKeys, args: settled("dead", "g\nch\nterm") },
  {
    script: requeueLetters,
    makes: "retry",
    seed: [["xadd", "$dead", "1-0", "k", "g\nch\nterm"]],
    keys: ["dead", "counts", "meta", "retry", "retries"],
    args: ["events", 1, "g", "ch", "1-0", 1, "term", "{}\nx"]
  },
  {
    script: bodyWithoutTime,
    makes: "retry",
    seed: [["hset", "$bodies", "id", "{}\nx"], ["hset", "$groups", "g\nch", ""]],
    keys: ["waiting", "bodies", "retry", "retries", "meta", "groups", "counts"],
    args: ["repair", "g", "ch", "id", "events"]
  },
  {
    script: promote,
    makes: "log",
    seed: waits("\nch\nid"),
    keys: ["waiting", "bodies", "log", "log"],
    args: [100, 1_000, "", "\nch\n"]
  },
  {
    script: promote,
    makes: "retry",
    seed: waits("g\nch\nid"),
    keys: ["waiting", "bodies", "retry", "retries"],
    args: [100, 1_000, "", "g\nch\n"]
  },
  {
    script: reschedule,
    makes: "log",
    seed: waits("\nch\nid"),
    keys: ["waiting", "bodies", "log", "window", "answer"],
    args: ["events", "\nch\nid", "id", "+0", "iid", 9000]
  },
  {
    script: commit,
    makes: "outbox",
    keys: ["relayed", "arrived", "arrived", "arrived", "outbox"],
    args: ["relay", 0, "1-0", "n", "", "", 0, 0, 0, "events", "outbox", 5, 2, "p", "x"]
  }
]

const client = new Redis({ host: "127.0.0.1", port: inject("redisPort"), protocol: 2 })
afterAll(() => client.disconnect())

const rounds = 100

describe("a stream that is made again gives no position twice", () => {
  for (const { args, keys, makes, script, seed = [] } of cases) {
    it(`${script.name}: ${makes}`, async () => {
      const prefix = `{${freshPrefix()}}:`
      const keyed = (arg: Arg) => typeof arg === "string" && arg.startsWith("$") ? prefix + arg.slice(1) : arg
      const all = [...new Set([...keys, ...seed.flatMap((command) => command.map(String))].map((key) => prefix + key))]
      // In one go, so that many of them fall into one millisecond.
      const pipeline = client.pipeline()
      for (let i = 0; i < rounds; i++) {
        for (const [name, ...rest] of seed) pipeline.call(String(name), ...rest.map(keyed))
        pipeline.eval(script.lua, keys.length, ...keys.map((key) => prefix + key), ...args)
        pipeline.xadd(prefix + makes, "*", "p", "x")
        pipeline.xrange(prefix + makes, "-", "+")
        pipeline.del(...all.map((key) => key.replace("$", "")))
      }
      const replies = (await pipeline.exec())!
      assert.deepStrictEqual(replies.filter(([error]) => error !== null), [])
      const perRound = seed.length + 4
      const positions = replies.filter((_, i) => i % perRound === perRound - 2)
        .flatMap(([, entries]) => (entries as ReadonlyArray<readonly [string]>).map(([position]) => position))
      assert.isAtLeast(positions.length, rounds)
      assert.isBelow(new Set(positions.map((position) => position.split("-")[0])).size, rounds, "all in different ms")
      assert.strictEqual(new Set(positions).size, positions.length)
      const last = positions.toSorted((a, b) => Number(a.split("-")[0]) - Number(b.split("-")[0])).at(-1)!
      assert.isAtMost(Math.abs(Number(last.split("-")[0]) - Date.now()), 5_000, "a position tells the time")
    })
  }
})
