/**
 * Ends the retention of dead letters: what is too old, and the oldest of what is too many. It goes to the archive first, if there is one; what
 * the archive does not take stays.
 */
import { Cause, Effect } from "effect"
import type { Broker, BrokerError } from "../Broker.ts"
import type { Letter, LetterStore } from "../broker/deadLetters.ts"
import { pretty } from "../internal/failure.ts"
import { isArchive } from "../internal/pattern.ts"
import { pause } from "../internal/pause.ts"
import * as Reports from "../internal/reports.ts"
import { supervise } from "../internal/supervise.ts"

export interface Options {
  readonly maxAgeMillis: number
  readonly maxCount: number
  readonly intervalMillis: number
  /** Takes letters that are about to be deleted. */
  readonly archive: (shard: number, letters: ReadonlyArray<Letter>) => Effect.Effect<void, unknown>
  /** The channel that the archive publishes to, if that is not one of the library's own. */
  readonly archiveChannel: string | undefined
  /** What was said of an archive that refuses: at rounds 1, 2, 4, 8, …. */
  readonly refusals: Reports.Repeating
}

export const makeRefusals = (): Reports.Repeating =>
  Reports.makeRepeating((round, cause) =>
    Effect.logError(
      `rotif: the archive of dead letters refused (${Reports.times(round)}); they stay and are offered to it again`,
      pretty(cause)
    )
  )

/** Letters archived and deleted in one go. */
const batch = 100

/** One look, for as long as `leads`; how many letters it deleted. */
export const pass = Effect.fnUntraced(function*(
  store: LetterStore,
  shards: number,
  options: Omit<Options, "intervalMillis">,
  leads: Effect.Effect<boolean, BrokerError>
): Effect.fn.Return<number, BrokerError> {
  const { archive, archiveChannel, maxAgeMillis, maxCount, refusals } = options
  let deleted = 0

  /** Whether the letters are gone. */
  const end = Effect.fnUntraced(function*(shard: number, letters: ReadonlyArray<Letter>): Effect.fn.Return<
    boolean,
    BrokerError
  > {
    // What came out of the archive does not go into it again: it would hold itself, deeper each time.
    const fresh = letters.filter(({ channel }) => !isArchive(channel) && channel !== archiveChannel)
    const archived = yield* Effect.exit(fresh.length === 0 ? Effect.void : archive(shard, fresh))
    if (archived._tag === "Failure") {
      if (Cause.hasInterruptsOnly(archived.cause)) return yield* Effect.interrupt
      yield* refusals.failed(archived.cause)
      return false
    }
    refusals.succeeded()
    deleted += (yield* store.remove(shard, letters.map(({ letterId }) => letterId))).length
    return true
  })

  if (!(yield* leads)) return deleted
  if (Number.isFinite(maxAgeMillis)) {
    for (let shard = 0; shard < shards; shard++) {
      while (true) {
        const old = yield* store.list(shard, { order: "oldest", limit: batch, minAgeMillis: maxAgeMillis })
        if (old.length === 0) break
        if (!(yield* end(shard, old)) || !(yield* leads)) return deleted
      }
    }
  }
  if (!Number.isFinite(maxCount)) return deleted
  while (true) {
    let excess = -maxCount
    for (let shard = 0; shard < shards; shard++) excess += yield* store.size(shard)
    if (excess <= 0) return deleted
    // The oldest of all shards are among the oldest of each.
    const oldest: Array<{ readonly shard: number; readonly letter: Letter }> = []
    for (let shard = 0; shard < shards; shard++) {
      const letters = yield* store.list(shard, { order: "oldest", limit: Math.min(excess, batch) })
      for (const letter of letters) oldest.push({ shard, letter })
    }
    oldest.sort((a, b) => a.letter.diedAtMillis - b.letter.diedAtMillis)
    const byShard = new Map<number, Array<Letter>>()
    for (const { letter, shard } of oldest.slice(0, Math.min(excess, batch))) {
      const same = byShard.get(shard)
      if (same === undefined) byShard.set(shard, [letter])
      else same.push(letter)
    }
    for (const [shard, letters] of byShard) {
      if (!(yield* end(shard, letters))) return deleted
    }
    if (byShard.size === 0 || !(yield* leads)) return deleted
  }
})

export const run = (
  { letters, rest, shards }: Pick<Broker["Service"], "letters" | "rest" | "shards">,
  options: Options
): Effect.Effect<never> =>
  supervise(
    "ending the retention of dead letters",
    Effect.andThen(
      pass(letters, shards, options, letters.lead(options.intervalMillis + 30_000)),
      // One that is there now is too old after this time, whether anything happens until then or not.
      Effect.raceFirst(rest(options.intervalMillis), pause(options.maxAgeMillis))
    )
  )
