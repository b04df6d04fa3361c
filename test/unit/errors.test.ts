/** What holds of all errors: a tag names one class, and the errors of a store say whether trying again helps. */
import { assert, describe, it } from "@effect/vitest"
import { Broker, Publisher } from "rotif"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"

const source = join(import.meta.dirname, "../../src")

describe("errors", () => {
  it("no two classes have the same tag", async () => {
    const files = (await readdir(source, { recursive: true })).filter((file) => file.endsWith(".ts"))
    const texts = await Promise.all(files.map((file) => readFile(join(source, file), "utf8")))
    const tags = texts.flatMap((text) => Array.from(text.matchAll(/TaggedError\w*\("(\w+)"\)/g), ([, tag]) => tag!))
    assert.isAbove(tags.length, 20)
    assert.deepStrictEqual(tags.toSorted(), [...new Set(tags)].sort())
  })

  it("each store error of a publish says whether the same publish may succeed later", () => {
    const at = { channel: "orders", id: "o-1", message: "" }
    const receipt = { _tag: "Published", id: "o-1", channel: "orders", position: "1-0" } as const
    const found = ([
      new Publisher.Unavailable(at),
      new Publisher.PublishUncertain({ ...at, isLasting: false }),
      new Publisher.PublishUncertain({ ...at, isLasting: true }),
      new Publisher.DurabilityNotReached({ ...at, receipt, replicas: 0 }),
      new Broker.BrokerError({ reason: "Overloaded", operation: "append", message: "" }),
      new Broker.BrokerError({ reason: "Refused", operation: "append", message: "" })
    ] satisfies ReadonlyArray<Publisher.StoreError>).map(({ isRetryable }) => isRetryable)
    assert.deepStrictEqual(found, [true, true, false, true, true, false])
  })
})
