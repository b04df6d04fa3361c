/** The dead letters of all shards as one list: the same letter id may be there in several shards. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import type { Broker } from "rotif"
import * as Query from "../../src/deadLetters/query.ts"

const Item = Schema.Struct({
  shard: Schema.Literals([0, 1, 2]),
  millis: Schema.Literals([1, 2, 3]),
  sequence: Schema.Literals([0, 1, 2]),
  isWanted: Schema.Boolean
})
type Item = typeof Item.Type

const idOf = ({ millis, sequence }: Item) => `${millis}-${sequence}`
const nameOf = (item: Item) => `${item.shard}:${idOf(item)}`
const inOrder = (a: Item, b: Item) => a.millis - b.millis || a.sequence - b.sequence || a.shard - b.shard
const isAfter = (id: string, other: string) => {
  const [millis = 0, sequence = 0] = id.split("-").map(Number)
  const [otherMillis = 0, otherSequence = 0] = other.split("-").map(Number)
  return millis > otherMillis || (millis === otherMillis && sequence > otherSequence)
}

/** A store that knows how to list. */
const storeOf = (items: ReadonlyArray<Item>) =>
  ({
    list: (shard: number, { after, before, limit, order }: Broker.LetterRange) =>
      Effect.sync(() => {
        const found = items.filter((item) =>
          item.shard === shard
          && (after === undefined || isAfter(idOf(item), after))
          && (before === undefined || isAfter(before, idOf(item)))
        ).toSorted(inOrder)
        return (order === "oldest" ? found : found.toReversed()).slice(0, limit).map((item) => ({
          letterId: idOf(item),
          group: item.isWanted ? "wanted" : "other"
        }))
      })
  }) as unknown as Broker.LetterStore

const query: Query.Query = {
  shards: [0, 1, 2],
  after: undefined,
  before: undefined,
  matches: ({ group }) => group === "wanted"
}

describe("letterQuery.scan", () => {
  it.effect.prop(
    "walks over all letters that match, each once, in the order of death, wherever a page ends",
    { items: Schema.Array(Item), page: Schema.Literals([1, 2, 3, 5]), order: Schema.Literals(["oldest", "newest"]) },
    ({ items, order, page }) =>
      Effect.gen(function*() {
        const all = [...new Map(items.map((item) => [nameOf(item), item])).values()].toSorted(inOrder)
        const wanted = all.filter(({ isWanted }) => isWanted).map(nameOf)
        const store = storeOf(all)
        const walked: Array<string> = []
        let from: Query.Place | undefined
        let ended = false
        while (!ended) {
          const next = Query.scan(store, query, { order, from, wanted: page })
          for (let i = 0; i < page && !ended; i++) {
            const found = yield* next
            if (found === undefined) {
              ended = true
            } else {
              walked.push(`${found.shard}:${found.letter.letterId}`)
              from = { shard: found.shard, letterId: found.letter.letterId }
            }
          }
        }
        assert.deepStrictEqual(walked, order === "oldest" ? wanted : wanted.toReversed())
      }),
    { arbitrary: { runs: 300 } }
  )

  it("reads an id of a letter, and nothing else", () => {
    assert.deepStrictEqual(Query.parsePlace("7:1700000000000-3"), { shard: 7, letterId: "1700000000000-3" })
    for (const text of ["", "7", "7:", "7:1", "-1:1-0", "7:1-0 ", "7:1-0\n", "99999:1-0", "7:1-x"]) {
      assert.isUndefined(Query.parsePlace(text))
    }
  })
})
