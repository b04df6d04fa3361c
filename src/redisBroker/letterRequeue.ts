/** Requeueing dead letters: the messages go back into the retry streams of the groups that failed. */
import { Effect } from "effect"
import type { LetterStore } from "../broker/deadLetters.ts"
import type { Failure } from "../broker/delivery.ts"
import { isPosition } from "../broker/position.ts"
import type { Command } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import { portioned } from "./batches.ts"
import * as Entry from "./entry.ts"
import type { Keys } from "./keys.ts"
import { requeueLetters } from "./scripts/deadLetters/requeue.ts"
import type { Shards } from "./shards.ts"
import { charactersIn, Steps } from "./stepSize.ts"

/** At most this many letters in one script call, and in one step of reading. */
export const lettersPerCall = 100

export type RawEntries = ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>

/** Letters of one group on one channel, to be requeued. */
interface Target {
  readonly group: string
  readonly channel: string
  readonly letters: Array<
    { readonly letterId: string; readonly reason: Failure["reason"]; readonly payload: string; readonly body: string }
  >
}

export const make = ({ connectionOf, fail, keysOf }: Shards): LetterStore["requeue"] => {
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

  return Effect.fnUntraced(function*(shard, items) {
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
}
