/** Dead letters on Redis: one stream for each shard, and a sorted set and a hash of the offers to each subscription. */
import { Effect } from "effect"
import type { Failure } from "../Broker.ts"
import type { Command } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import type { Letter, LetterCount, LetterStore, Offer } from "../broker/deadLetters.ts"
import { isPosition } from "../broker/position.ts"
import { portioned } from "./batches.ts"
import * as Entry from "./entry.ts"
import type { Keys } from "./keys.ts"
import { lead } from "./leadership.ts"
import { millisOfTime } from "./replies.ts"
import { concludeLetters } from "./scripts/deadLetters/conclude.ts"
import { offerLetters } from "./scripts/deadLetters/offer.ts"
import { removeLetters } from "./scripts/deadLetters/remove.ts"
import { requeueLetters } from "./scripts/deadLetters/requeue.ts"
import type { Shards } from "./shards.ts"
import { charactersIn, Steps } from "./stepSize.ts"

/** At most this many letters in one script call, and in one step of reading. */
const lettersPerCall = 100

type RawEntries = ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>

/** `me` is unique among the processes that are alive. */
export const make = (
  { connectionOf, fail, keysOf }: Shards,
  me: string,
  awaitLetter: LetterStore["awaitLetter"]
): LetterStore => {
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

  /** Letters of one group on one channel, to be requeued. */
  interface Target {
    readonly group: string
    readonly channel: string
    readonly letters: Array<
      { readonly letterId: string; readonly reason: Failure["reason"]; readonly payload: string; readonly body: string }
    >
  }

  const requeueTo = Effect.fnUntraced(function*(keys: Keys, { channel, group, letters }: Target, moved: Array<string>) {
    for (const portion of portioned(letters, lettersPerCall)) {
      const reply = yield* connectionOf(keys.shard).evaluate(
        requeueLetters,
        [keys.dead, keys.counts, keys.meta, keys.retry(group, channel), keys.retries(group)],
        [
          keys.events,
          1,
          group,
          channel,
          ...portion.flatMap(({ body, letterId, reason }) => [letterId, 1, reason, body])
        ]
      )
      moved.push(...reply as ReadonlyArray<string>)
    }
  })

  const requeue: LetterStore["requeue"] = Effect.fnUntraced(function*(shard, items) {
    const keys = keysOf(shard)
    const moved: Array<string> = []
    const wanted = items.filter(({ letterId }) => isPosition(letterId))
    let failure: RedisError | undefined
    const reading = new Steps(lettersPerCall)
    for (let from = 0; from < wanted.length;) {
      const step = wanted.slice(from, from + reading.size)
      from += step.length
      // A letter never changes: this description is right if the letter is still there when the script runs.
      const found = yield* connectionOf(shard).pipeline(
        step.map(({ letterId }): Command => ["xrange", keys.dead, letterId, letterId])
      )
      const targets = new Map<string, Target>()
      let chars = 0
      for (const [i, { letterId, payload: replacement }] of step.entries()) {
        const reply = found[i]
        if (reply instanceof RedisError) return yield* reply
        chars += charactersIn(reply as RawEntries)
        const fields = (reply as RawEntries)[0]?.[1]
        if (fields === undefined) continue
        const letter = Entry.decodeLetter(letterId, fields)
        if (letter.malformed !== undefined) continue
        const { channel, group } = letter
        const key = keys.retry(group, channel)
        const target = targets.get(key) ?? { group, channel, letters: [] }
        targets.set(key, target)
        const payload = replacement ?? letter.payload
        target.letters.push({
          letterId,
          reason: letter.failure.reason,
          payload,
          body: Entry.encodeRequeued(letterId, Entry.decode(letterId, fields), letter.failure, payload)
        })
      }
      reading.took(step.length, chars)
      for (const target of targets.values()) {
        // A retry stream that refuses does not hold up the other groups.
        yield* Effect.catchIf(requeueTo(keys, target, moved), ({ reason }) => reason === "Refused", (error) => {
          failure ??= error
          return Effect.logWarning(
            `rotif: dead letters of group "${target.group}" on channel "${target.channel}" stay: ${error.message}`
          )
        })
      }
    }
    return failure !== undefined && moved.length === 0 ? yield* failure : moved
  }, Effect.mapError(fail("letters.requeue")))

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
    requeue,
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
