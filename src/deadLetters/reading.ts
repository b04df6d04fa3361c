/** Reads dead letters: lists them in pages, gets one, counts them. */
import { Effect, Option, Stream } from "effect"
import type { Broker, BrokerError } from "../Broker.ts"
import type { DeadLetter, Filter } from "../DeadLetter.ts"
import { fromLetter } from "../DeadLetter.ts"
import type { InvalidDeadLetterOption } from "../DeadLetter.ts"
import type { LetterCount } from "../broker/deadLetters.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Limits from "../internal/optionLimits.ts"
import * as Shape from "../internal/optionShape.ts"
import type { Page, PageOptions } from "./options.ts"
import { read } from "./options.ts"
import * as Query from "./query.ts"

const pageShape = Shape.shape<PageOptions>()({
  limit: Shape.count(Limits.pageSize),
  cursor: Shape.any,
  order: Shape.choice("newest", "oldest")
})

export const make = (broker: Broker["Service"]) => {
  const store = broker.letters

  const list = Effect.fnUntraced(function*(
    filter?: Filter,
    options?: PageOptions
  ): Effect.fn.Return<Page, InvalidDeadLetterOption | BrokerError> {
    const query = yield* Query.make(broker, filter)
    const { cursor, limit, order } = yield* read(pageShape.optional("the options", options))
    const from = cursor === undefined ? undefined : Query.parsePlace(cursor)
    if (cursor !== undefined && from === undefined) {
      return yield* read(Given.refuse("cursor", "the cursor of a page", cursor))
    }
    const next = Query.scan(store, query, { order, from, wanted: limit + 1 })
    const letters: Array<DeadLetter> = []
    while (true) {
      const found = yield* next
      if (found === undefined) return { letters, cursor: undefined }
      if (letters.length === limit) return { letters, cursor: letters[limit - 1]!.letterId }
      letters.push(fromLetter(found.shard, found.letter))
    }
  })

  const all = (
    filter?: Filter,
    options?: Pick<PageOptions, "order">
  ): Stream.Stream<DeadLetter, InvalidDeadLetterOption | BrokerError> =>
    Stream.paginate(undefined as string | undefined, (cursor) =>
      Effect.map(
        list(filter, { ...options, cursor }),
        (page) => [page.letters, page.cursor === undefined ? Option.none() : Option.some(page.cursor)] as const
      ))

  const countBy = Effect.fnUntraced(function*(filter?: Filter) {
    const { matches, shards } = yield* Query.make(broker, filter)
    const rows = yield* Effect.forEach(shards, (shard) => store.counts(shard), { concurrency: 8 })
    const sums = new Map<string, LetterCount>()
    for (const row of rows.flat()) {
      if (!matches({ ...row, failure: row, malformed: undefined })) continue
      const key = `${row.group}\n${row.channel}\n${row.reason}`
      sums.set(key, { ...row, count: row.count + (sums.get(key)?.count ?? 0) })
    }
    return [...sums.values()].sort((a, b) => b.count - a.count)
  })

  const count = Effect.fnUntraced(function*(filter: Filter = {}) {
    const query = yield* Query.make(broker, filter)
    const { errorTag, from, to } = filter
    if (errorTag === undefined && from === undefined && to === undefined) {
      const isAll = filter.channel === undefined && filter.group === undefined && filter.reason === undefined
      const sizes = isAll
        ? yield* Effect.forEach(query.shards, (shard) => store.size(shard), { concurrency: 8 })
        : (yield* countBy(filter)).map((row) => row.count)
      return sizes.reduce((sum, size) => sum + size, 0)
    }
    const next = Query.scan(store, query, { order: "oldest", wanted: 1000 })
    let found = 0
    while ((yield* next) !== undefined) found++
    return found
  })

  const get = Effect.fnUntraced(function*(letterId: string) {
    const place = yield* Query.placeOf(broker, letterId)
    const letter = place === undefined ? undefined : yield* store.get(place.shard, place.letterId)
    return letter === undefined ? Option.none<DeadLetter>() : Option.some(fromLetter(place!.shard, letter))
  })

  return { list, all, get, count, countBy }
}
