/**
 * The walls between the rooms of `src/` hold: the linter, with the rules of the project, reports every breach in a small tree that has
 * one breach of each kind. oxlint ignores a pattern that it does not understand, so a rule alone proves nothing.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join, relative } from "node:path"

const root = join(import.meta.dirname, "../..")

/** One import each: a room of `src/`, and what it may not import. */
const breaches: ReadonlyArray<readonly [room: string, from: string]> = [
  // An adapter knows nothing of the other one, and nothing above the port.
  ["memoryBroker/a.ts", "../redisBroker/keys.ts"],
  ["memoryBroker/b.ts", "../Publisher.ts"],
  ["redisBroker/a.ts", "../memoryBroker/clock.ts"],
  ["redisBroker/b.ts", "../Publisher.ts"],
  ["redis/a.ts", "../redisBroker/keys.ts"],
  ["redis/b.ts", "../Broker.ts"],
  // The vocabulary of the port knows nothing above it.
  ["broker/a.ts", "../Broker.ts"],
  ["broker/b.ts", "../internal/pause.ts"],
  ["broker/c.ts", "../redisBroker/keys.ts"],
  // The floors of the Redis adapter.
  ["redisBroker/publish/a.ts", "../member/acks.ts"],
  ["redisBroker/publish/b.ts", "../../Publisher.ts"],
  ["redisBroker/member/a.ts", "../publish/append.ts"],
  ["redisBroker/member/b.ts", "../../memoryBroker/clock.ts"],
  ["redisBroker/inspection/a.ts", "../publish/append.ts"],
  ["redisBroker/inspection/b.ts", "../member/acks.ts"],
  ["redisBroker/scripts/publish/a.ts", "../member/ack.ts"],
  ["redisBroker/scripts/publish/b.ts", "../../../Broker.ts"],
  // A public module has no business in the folder of another one.
  ["Health.ts", "./deadLetters/list.ts"],
  ["Publisher.ts", "./redisBroker/keys.ts"],
  ["RedisBroker.ts", "./memoryBroker/clock.ts"],
  ["MemoryBroker.ts", "./redisBroker/keys.ts"],
  ["Redis.ts", "./redisBroker/keys.ts"],
  ["Subscription.ts", "./redis/link.ts"],
  ["Message.ts", "./deadLetters/list.ts"],
  ["DeadLetters.ts", "./subscription/consumer.ts"],
  ["Rotif.ts", "./redisBroker/keys.ts"],
  ["Deduplication.ts", "./redis/link.ts"],
  ["Broadcast.ts", "./channel/name.ts"],
  ["Stats.ts", "./scheduler/recurs.ts"],
  ["Transaction.ts", "./retry/replay.ts"],
  ["Scheduler.ts", "./broadcast/listening.ts"],
  ["promise.ts", "./subscription/consumer.ts"],
  ["promise/a.ts", "../subscription/consumer.ts"],
  // Rooms below the public modules know the port, and nothing above themselves.
  ["internal/a.ts", "../Publisher.ts"],
  ["internal/b.ts", "../subscription/consumer.ts"],
  ["subscription/a.ts", "../Publisher.ts"],
  ["publisher/a.ts", "../Publisher.ts"],
  ["channel/a.ts", "../Channel.ts"],
  ["scheduler/a.ts", "../Scheduler.ts"],
  ["retry/a.ts", "../Retry.ts"],
  ["broadcast/a.ts", "../Broadcast.ts"],
  ["middleware/a.ts", "../Subscription.ts"],
  ["deadLetters/a.ts", "../Subscription.ts"],
  ["duties/a.ts", "../redisBroker/keys.ts"],
  // One file knows ioredis.
  ["Broker.ts", "ioredis"],
  ["redis/c.ts", "ioredis"],
  ["redisBroker/c.ts", "ioredis"],
  ["redisBroker/member/c.ts", "ioredis"],
  ["duties/b.ts", "ioredis"]
]

/** Imports that a room needs, which nothing is said of. */
const lawful: ReadonlyArray<readonly [room: string, from: string]> = [
  ["redis/ioredis.ts", "ioredis"],
  ["memoryBroker/clock.ts", "../Broker.ts"],
  ["redisBroker/keys.ts", "../broker/a.ts"],
  ["redisBroker/member/acks.ts", "../keys.ts"],
  ["redisBroker/scripts/member/ack.ts", "../../../Redis.ts"],
  ["subscription/consumer.ts", "../internal/pause.ts"],
  ["deadLetters/list.ts", "../Broker.ts"]
]

/** They import only types of each other. */
const circle: ReadonlyArray<readonly [room: string, from: string]> = [
  ["internal/hen.ts", "./egg.ts"],
  ["internal/egg.ts", "./hen.ts"]
]

interface Diagnostic {
  readonly code: string
  readonly filename: string
}

describe("oxlint, with the rules of the project", () => {
  let directory: string
  let reported: ReadonlyArray<string>

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "rotif-house-"))
    const rules = JSON.parse(await readFile(join(root, ".oxlintrc.json"), "utf8"))
    // Types are the business of a compiler, which this tree has none of.
    rules.options.typeAware = false
    await writeFile(join(directory, ".oxlintrc.json"), JSON.stringify(rules))
    for (const [room, from] of [...breaches, ...lawful, ...circle]) {
      const file = join(directory, "src", room)
      await mkdir(dirname(file), { recursive: true })
      await writeFile(file, `import type { A } from "${from}"\nexport type B = A\n`)
    }
    const output = await new Promise<string>((resolve) =>
      execFile(
        process.execPath,
        [join(root, "node_modules/oxlint/bin/oxlint"), "--format", "json"],
        { cwd: directory },
        (_, stdout) => resolve(stdout)
      )
    )
    const { diagnostics } = JSON.parse(output) as { readonly diagnostics: ReadonlyArray<Diagnostic> }
    reported = diagnostics.map(({ code, filename }) => {
      const path = filename.startsWith("/") ? relative(directory, filename) : filename
      return `${path.replace("src/", "")}: ${code}`
    })
  })
  afterAll(() => rm(directory, { recursive: true, force: true }))

  it("reports each import through a wall, and no other", () => {
    const walls = reported.filter((line) => line.endsWith("no-restricted-imports)"))
    assert.deepStrictEqual(
      walls.toSorted(),
      breaches.map(([room]) => `${room}: eslint(no-restricted-imports)`).toSorted()
    )
  })

  it("reports a circle of types", () => {
    const circles = reported.filter((line) => line.endsWith("no-cycle)"))
    assert.includeMembers(circles, circle.map(([room]) => `${room}: import(no-cycle)`))
  })
})
