/** Dead letters on Redis: one stream a shard, and for each subscription to them a sorted set and a hash of what it was offered. */
import { Effect } from "effect"
import type { BrokerError, Failure } from "../Broker.ts"
import type { LetterCount, LetterStore, Offer } from "../LetterStore.ts"
import type { Command, Connection } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import * as Entry from "./entry.ts"
import type { Keys } from "./keys.ts"
import { concludeLetters } from "./scripts/concludeLetters.ts"
import { offerLetters } from "./scripts/offerLetters.ts"
import { removeLetters } from "./scripts/removeLetters.ts"
import { requeueLetters } from "./scripts/requeueLetters.ts"

/** Letters in one script call. */
const lettersPerCall = 100

type RawEntries = ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>

const chunked = <A>(items: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> => {
  const out: Array<ReadonlyArray<A>> = []
  for (let i = 0; i < items.length; i += lettersPerCall) out.push(items.slice(i, i + lettersPerCall))
  return out
}

const isId = (letterId: string) => /^\d{1,16}-\d{1,20}$/.test(letterId)

export interface Setup {
  /** Unique among the processes that are alive. */
  readonly me: string
  readonly keysOf: (shard: number) => Keys
  readonly connectionOf: (shard: number) => Connection
  readonly fail: (operation: string) => (error: RedisError) => BrokerError
  readonly awaitLetter: LetterStore["awaitLetter"]
}

export const make = ({ awaitLetter, connectionOf, fail, keysOf, me }: Setup): LetterStore => {
  let tokens = 0

  const list: LetterStore["list"] = Effect.fnUntraced(function*(shard, range) {
    const { after, before, limit, minAgeMillis = 0, order } = range
    const least = after === undefined ? "-" : `(${after}`
    const most = before === undefined ? "+" : `(${before}`
    const command: Command = order === "oldest"
      ? ["xrange", keysOf(shard).dead, least, most, "COUNT", limit]
      : ["xrevrange", keysOf(shard).dead, most, least, "COUNT", limit]
    const [time, entries] = yield* connectionOf(shard).pipeline([["time"], command])
    for (const reply of [time, entries]) if (reply instanceof RedisError) return yield* reply
    const [seconds, micros] = time as readonly [string, string]
    const newest = Number(seconds) * 1000 + Math.floor(Number(micros) / 1000) - minAgeMillis
    const letters = (entries as RawEntries).map(([id, fields]) => Entry.decodeLetter(id, fields))
    return minAgeMillis <= 0 ? letters : letters.filter(({ diedAtMillis }) => diedAtMillis <= newest)
  }, Effect.mapError(fail("letters.list")))

  const get: LetterStore["get"] = (shard, letterId) =>
    isId(letterId)
      ? connectionOf(shard).send(["xrange", keysOf(shard).dead, letterId, letterId], { idempotent: true }).pipe(
        Effect.map((reply) => (reply as RawEntries).map(([id, fields]) => Entry.decodeLetter(id, fields))[0]),
        Effect.mapError(fail("letters.get"))
      )
      : Effect.undefined

  const requeue: LetterStore["requeue"] = Effect.fnUntraced(function*(shard, items) {
    const keys = keysOf(shard)
    const moved: Array<string> = []
    for (const chunk of chunked(items.filter(({ letterId }) => isId(letterId)))) {
      // A letter never changes, so what is written now is right if it is still there when the script runs.
      const found = yield* connectionOf(shard).pipeline(
        chunk.map(({ letterId }): Command => ["xrange", keys.dead, letterId, letterId])
      )
      const targets = new Map<string, { readonly index: number; readonly group: string; readonly channel: string }>()
      const args: Array<string | number> = []
      for (const [i, { letterId, payload }] of chunk.entries()) {
        const reply = found[i]
        if (reply instanceof RedisError) return yield* reply
        const fields = (reply as RawEntries)[0]?.[1]
        if (fields === undefined) continue
        const letter = Entry.decodeLetter(letterId, fields)
        if (letter.malformed !== undefined) continue
        const { channel, group } = letter
        const key = keys.retry(group, channel)
        const target = targets.get(key) ?? { index: targets.size + 1, group, channel }
        targets.set(key, target)
        args.push(
          letterId,
          target.index,
          Entry.requeuedMeta(letterId, Entry.decode(letterId, fields), letter.failure),
          payload ?? letter.payload
        )
      }
      if (args.length === 0) continue
      const all = [...targets.values()]
      const reply = yield* connectionOf(shard).evaluate(
        requeueLetters,
        [
          keys.dead,
          keys.counts,
          keys.meta,
          ...all.flatMap(({ channel, group }) => [keys.retry(group, channel), keys.retries(group)])
        ],
        [keys.events, all.length, ...all.flatMap(({ channel, group }) => [group, channel]), ...args],
        // A second run would find them gone and say that nothing was moved.
        { idempotent: false }
      )
      moved.push(...reply as ReadonlyArray<string>)
    }
    return moved
  }, Effect.mapError(fail("letters.requeue")))

  const remove: LetterStore["remove"] = Effect.fnUntraced(function*(shard, letterIds) {
    const keys = keysOf(shard)
    const removed: Array<string> = []
    for (const chunk of chunked(letterIds.filter(isId))) {
      const reply = yield* connectionOf(shard).evaluate(removeLetters, [keys.dead, keys.counts], chunk, {
        idempotent: false
      })
      removed.push(...reply as ReadonlyArray<string>)
    }
    return removed
  }, Effect.mapError(fail("letters.remove")))

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
      [limit, Math.ceil(leaseMillis), token, start],
      { idempotent: false }
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

  const conclude: LetterStore["conclude"] = Effect.fnUntraced(function*(shard, name, conclusions) {
    const keys = keysOf(shard)
    const refused: Array<string> = []
    for (const chunk of chunked(conclusions)) {
      const reply = yield* connectionOf(shard).evaluate(
        concludeLetters,
        [keys.dead, keys.counts, keys.offers(name), keys.offered(name)],
        [
          keys.events,
          ...chunk.flatMap(({ letterId, millis = 0, outcome, token }) => [letterId, token, outcome, Math.ceil(millis)])
        ],
        { idempotent: false }
      )
      refused.push(...reply as ReadonlyArray<string>)
    }
    return refused
  }, Effect.mapError(fail("letters.conclude")))

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
    lead: Effect.fnUntraced(function*(leaseMillis) {
      const key = keysOf(0).undertaker
      const millis = Math.ceil(leaseMillis)
      const connection = connectionOf(0)
      const take = (isNew: boolean) =>
        connection.send(["set", key, me, "PX", millis, ...(isNew ? ["NX"] : []), "GET"], { idempotent: true }).pipe(
          // Another program's: without it nobody would lead.
          Effect.catchIf(
            ({ message }) => message.startsWith("WRONGTYPE "),
            () => Effect.as(connection.send(["del", key], { idempotent: true }), null)
          ),
          // Without memory nobody can take the lead, and who deletes is needed most: whoever finds nobody leads.
          Effect.catchIf(
            ({ reason }) => reason === "OutOfMemory",
            () => connection.send(["get", key], { idempotent: true })
          )
        )
      const owner = yield* take(true)
      if (owner !== null && owner !== me) return false
      yield* take(false)
      return true
    }, Effect.mapError(fail("letters.lead")))
  }
}
