/** The same ids, published by several processes at once. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { Broker, Channel, Publisher, Rotif } from "rotif"
import { inject } from "vitest"
import { type Line, Work } from "../fixtures/duplicates.ts"
import { freshPrefix } from "../contract/kit.ts"

const url = `redis://127.0.0.1:${inject("redisPort")}`
const program = join(import.meta.dirname, "../fixtures/duplicates.ts")

const processes = 4
const ids = 1_000
const publishes = 10_000
const share = publishes / processes

/** What one process printed. */
const publisher = (prefix: string, index: number) =>
  Effect.callback<ReadonlyArray<Line>>((resume) => {
    const child = execFile(
      process.execPath,
      ["--conditions=rotif-source", program],
      {
        env: {
          ...process.env,
          REDIS_URL: url,
          PREFIX: prefix,
          IDS: String(ids),
          FIRST: String(index * share),
          COUNT: String(share)
        },
        maxBuffer: 64 * 1024 * 1024
      },
      (error, stdout) =>
        resume(
          error === null
            ? Effect.succeed(stdout.trim().split("\n").map((line) => JSON.parse(line) as Line))
            : Effect.die(error)
        )
    )
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

describe("10,000 publishes of 1,000 ids by 4 processes", () => {
  it.live("are 1,000 messages, and every receipt names the first", () => {
    const prefix = freshPrefix()
    return Effect.gen(function*() {
      const receipts = (yield* Effect.all(
        Array.from({ length: processes }, (_, index) => publisher(prefix, index)),
        { concurrency: "unbounded" }
      )).flat()
      assert.lengthOf(receipts, publishes)
      const first = new Map<number, Line>()
      for (const line of receipts) if (line[1] === "Published") first.set(line[0], line)
      assert.strictEqual(receipts.filter(([, tag]) => tag === "Published").length, ids)
      assert.strictEqual(first.size, ids)
      for (const [n, tag, id, position] of receipts) {
        const [, , firstId, firstPosition] = first.get(n)!
        assert.deepStrictEqual([id, position], [firstId, firstPosition], tag)
        assert.strictEqual(id, `id-${n}`)
      }
      const broker = yield* Broker.Broker
      const info = yield* broker.info(Channel.selector(Work))
      assert.strictEqual(info.channels[0]?.length, ids)
      // Thrown in after them: the first of a throttle key is named too, though its id is another.
      const throttle = { key: "k", window: "1 minute" } as const
      const one = yield* Publisher.publish(Work, -1, { throttle })
      const two = yield* Publisher.publish(Work, -2, { throttle })
      assert.deepStrictEqual([two._tag, two.id, two.position], ["Duplicate", one.id, one.position])
    }).pipe(Effect.provide(Rotif.layer({ url, prefix })))
  }, 120_000)
})
