/**
 * Retention: deletes dead letters that are too old, and the oldest of those that are too many. They go through the archive first, if there is
 * one; letters that the archive refuses stay.
 */
import { Cause, Effect, Result } from "effect"
import type { Broker, BrokerError } from "../Broker.ts"
import { fromLetter } from "../DeadLetter.ts"
import type { Letter, LetterStore } from "../broker/deadLetters.ts"
import { pretty } from "../internal/failure.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Shape from "../internal/optionShape.ts"
import { isArchive } from "../internal/pattern.ts"
import { pause } from "../internal/pause.ts"
import * as Reports from "../internal/reports.ts"
import { supervise } from "../internal/supervise.ts"
import type { Retention } from "./options.ts"

export interface Options {
  readonly maxAgeMillis: number
  readonly maxCount: number
  readonly intervalMillis: number
  /** Archives letters that are about to be deleted. */
  readonly archive: (shard: number, letters: ReadonlyArray<Letter>) => Effect.Effect<void, unknown>
  /** The channel that the archive publishes to, if it is not an archive channel by its name. */
  readonly archiveChannel: string | undefined
  /** Logs an archive that refuses, at rounds 1, 2, 4, 8, …. */
  readonly refusals: Reports.Repeating
}

const makeRefusals = (): Reports.Repeating =>
  Reports.makeRepeating((round, cause) =>
    Effect.logError(
      `rotif: the archive of dead letters refused (${Reports.times(round)}); they stay and are offered to it again`,
      pretty(cause)
    )
  )

const shape = Shape.shape<Retention>()({
  // A value that is no number must not count as 0 here: that would delete every letter.
  maxAge: Shape.span({ usual: 7_776_000_000, least: 0, most: Infinity }),
  maxCount: (option, value) =>
    value === Infinity
      ? Result.succeed(value)
      : Given.count(option, value as number | undefined, { usual: 100_000, least: 0, most: Number.MAX_SAFE_INTEGER }),
  // The bounds prevent a busy loop, and a lease without an end.
  interval: Shape.span({ usual: 60_000, least: 10, most: 86_400_000 }),
  enabled: Shape.any,
  archive: Shape.func,
  archiveChannel: Shape.any
})

/** Reads the options of the retention; dies of one that cannot be used. */
export const optionsOf = (options: Retention | undefined): Effect.Effect<Options> =>
  Effect.map(
    Given.orDie(shape.optional("deadLetters", options, "deadLetters.")),
    ({ archive, archiveChannel, interval, maxAge, maxCount }): Options => ({
      maxAgeMillis: maxAge,
      maxCount,
      intervalMillis: interval,
      archive: (shard, letters) =>
        archive === undefined
          ? Effect.void
          // Within the lease of the process that applies the limits: another one would archive the same letters.
          : Given.prompt(
            "it",
            Given.effect("deadLetters.archive", () => archive(letters.map((letter) => fromLetter(shard, letter)))),
            Given.longestWorkMillis
          ),
      archiveChannel,
      refusals: makeRefusals()
    })
  )

/** At most this many letters are archived and deleted at a time. */
const batch = 100

/** Applies the limits once, for as long as `leads` holds. Returns the number of deleted letters. */
export const pass = Effect.fnUntraced(function*(
  store: LetterStore,
  shards: number,
  options: Omit<Options, "intervalMillis">,
  leads: Effect.Effect<boolean, BrokerError>
): Effect.fn.Return<number, BrokerError> {
  const { archive, archiveChannel, maxAgeMillis, maxCount, refusals } = options
  let deleted = 0

  /** Archives and deletes letters. Returns whether they are gone. */
  const end = Effect.fnUntraced(function*(shard: number, letters: ReadonlyArray<Letter>): Effect.fn.Return<
    boolean,
    BrokerError
  > {
    // Letters of the archive's own channel are not archived again: each would contain the one before.
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
    const byShard = Map.groupBy(oldest.slice(0, Math.min(excess, batch)), ({ shard }) => shard)
    for (const [shard, found] of byShard) {
      if (!(yield* end(shard, found.map(({ letter }) => letter)))) return deleted
    }
    if (byShard.size === 0 || !(yield* leads)) return deleted
  }
})

/** Applies the limits at every interval; one process of a namespace does it at a time. */
export const run = (
  { letters, rest, shards }: Pick<Broker["Service"], "letters" | "rest" | "shards">,
  options: Options
): Effect.Effect<never> =>
  supervise(
    "ending the retention of dead letters",
    Effect.andThen(
      pass(letters, shards, options, letters.lead(options.intervalMillis + Given.longestWorkMillis)),
      // A letter that exists now is too old after this span, whether anything happens until then or not.
      Effect.raceFirst(rest(options.intervalMillis), pause(options.maxAgeMillis))
    )
  )
