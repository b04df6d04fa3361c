/** Dead letters on Redis: one stream for each shard, and a sorted set and a hash of the offers to each subscription. */
import { Effect } from "effect"
import type { Failure } from "../Broker.ts"
import { RedisError } from "../Redis.ts"
import type { Letter, LetterCount, LetterStore, Offer } from "../broker/deadLetters.ts"
import { isPosition } from "../broker/position.ts"
import * as Entry from "./entry.ts"
import { lead } from "./leadership.ts"
import type { RawEntries } from "./letterRequeue.ts"
import * as LetterRequeue from "./letterRequeue.ts"
import { lettersPerCall } from "./letterRequeue.ts"
import { millisOfTime } from "./replies.ts"
import { concludeLetters } from "./scripts/deadLetters/conclude.ts"
import { offerLetters } from "./scripts/deadLetters/offer.ts"
import { removeLetters } from "./scripts/deadLetters/remove.ts"
import type { Shards } from "./shards.ts"
import { charactersIn, Steps } from "./stepSize.ts"

/** `me` is unique among the processes that are alive. */
export const make = (
  shards: Shards,
  me: string,
  awaitLetter: LetterStore["awaitLetter"]
): LetterStore => {
  const { connectionOf, fail, keysOf } = shards
  let tokens = 0

  const list: LetterStore["list"] = Effect.fnUntraced(function*(shard, range) {
    const { after, before, limit, minAgeMillis = 0, order } = range
    const bounds = order === "oldest"
      ? ["-", before === undefined ? "+" : `(${before}`] as const
      : [before === undefined ? "+" : `(${before}`, after === undefined ? "-" : `(${after}`] as const
    let from: string = order === "oldest" && after !== undefined ? `(${after}` : bounds[0]
    let newest = Infinity
    const letters: Array<Letter> = []
    const reading = new Steps(lettersPerCall)
    while (letters.length < limit) {
      const count = Math.min(reading.size, limit - letters.length)
      const [time, page] = yield* connectionOf(shard).pipeline([
        ["time"],
        [order === "oldest" ? "xrange" : "xrevrange", keysOf(shard).dead, from, bounds[1], "COUNT", count]
      ])
      for (const reply of [time, page]) if (reply instanceof RedisError) return yield* reply
      newest = millisOfTime(time) - minAgeMillis
      const entries = page as RawEntries
      reading.took(entries.length, charactersIn(entries))
      for (const [id, fields] of entries) letters.push(Entry.decodeLetter(id, fields))
      if (entries.length < count) break
      from = `(${entries.at(-1)![0]}`
    }
    return minAgeMillis <= 0 ? letters : letters.filter(({ diedAtMillis }) => diedAtMillis <= newest)
  }, Effect.mapError(fail("letters.list")))

  const get: LetterStore["get"] = (shard, letterId) =>
    isPosition(letterId)
      ? connectionOf(shard).send(["xrange", keysOf(shard).dead, letterId, letterId], { idempotent: true }).pipe(
        Effect.map((reply) => (reply as RawEntries).map(([id, fields]) => Entry.decodeLetter(id, fields))[0]),
        Effect.mapError(fail("letters.get"))
      )
      : Effect.undefined

  /** Calls a script until it has processed all items, and returns the ids it reports. */
  const inSteps = Effect.fnUntraced(function*<A>(
    items: ReadonlyArray<A>,
    call: (some: ReadonlyArray<A>) => Effect.Effect<unknown, RedisError>
  ) {
    const told: Array<string> = []
    for (let from = 0; from < items.length;) {
      const [done, ...ids] = (yield* call(items.slice(from, from + lettersPerCall))) as [number, ...Array<string>]
      told.push(...ids)
      from += done
    }
    return told
  })

  const remove: LetterStore["remove"] = (shard, letterIds) => {
    const keys = keysOf(shard)
    return inSteps(
      letterIds.filter(isPosition),
      (some) => connectionOf(shard).evaluate(removeLetters, [keys.dead, keys.counts], some)
    )
      .pipe(Effect.mapError(fail("letters.remove")))
  }

  const counts: LetterStore["counts"] = (shard) =>
    connectionOf(shard).send(["hgetall", keysOf(shard).counts], { idempotent: true }).pipe(
      Effect.map((reply) => {
        const out: Array<LetterCount> = []
        for (const [field, value] of Object.entries(reply as Readonly<Record<string, string>>)) {
          const [kind, group, channel, reason] = field.split("\n")
          const count = Number(value)
          if (kind !== "d" || group === undefined || channel === undefined || !(count > 0)) continue
          out.push({ group, channel, reason: reason as Failure["reason"], count })
        }
        return out
      }),
      Effect.mapError(fail("letters.counts"))
    )

  const offer: LetterStore["offer"] = Effect.fnUntraced(function*(shard, { leaseMillis, limit, name, start }) {
    const keys = keysOf(shard)
    const token = `${me}.${(tokens++).toString(36)}`
    const [letters, next] = (yield* connectionOf(shard).evaluate(
      offerLetters,
      [keys.dead, keys.offers(name), keys.offered(name)],
      [limit, Math.ceil(leaseMillis), token, start]
    )) as readonly [ReadonlyArray<readonly [string, number, ReadonlyArray<string>]>, number]
    return {
      offers: letters.map(([letterId, offerCount, fields]): Offer => ({
        letter: Entry.decodeLetter(letterId, fields),
        token,
        offerCount
      })),
      nextInMillis: next < 0 ? undefined : next
    }
  }, Effect.mapError(fail("letters.offer")))

  const conclude: LetterStore["conclude"] = (shard, name, conclusions) => {
    const keys = keysOf(shard)
    return inSteps(conclusions, (some) =>
      connectionOf(shard).evaluate(
        concludeLetters,
        [keys.dead, keys.counts, keys.offers(name), keys.offered(name)],
        [
          keys.events,
          ...some.flatMap(({ letterId, millis = 0, outcome, token }) => [letterId, token, outcome, Math.ceil(millis)])
        ]
      )).pipe(Effect.mapError(fail("letters.conclude")))
  }

  return {
    list,
    get,
    requeue: LetterRequeue.make(shards),
    remove,
    counts,
    offer,
    conclude,
    forget: (shard, name) =>
      connectionOf(shard).send(["del", keysOf(shard).offers(name), keysOf(shard).offered(name)], { idempotent: true })
        .pipe(Effect.asVoid, Effect.mapError(fail("letters.forget"))),
    size: (shard) =>
      connectionOf(shard).send(["xlen", keysOf(shard).dead], { idempotent: true }).pipe(
        Effect.map(Number),
        Effect.mapError(fail("letters.size"))
      ),
    awaitLetter,
    lead: (leaseMillis) =>
      Effect.mapError(lead(connectionOf(0), keysOf(0).retention, me, leaseMillis), fail("letters.lead"))
  }
}
