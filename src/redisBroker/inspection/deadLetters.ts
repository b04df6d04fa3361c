/** Checks of dead letters, of their counts, and of the offers to subscriptions. */
import { Effect, Stream } from "effect"
import type { BrokerError } from "../../Broker.ts"
import { isPosition } from "../../broker/position.ts"
import type { Command } from "../../Redis.ts"
import type { Page, Suspect } from "../../broker/inspection.ts"
import { letterCounter } from "../counters.ts"
import * as Entry from "../entry.ts"
import { waitingMember } from "../keys.ts"
import type { RawEntries } from "../replies.ts"
import { pairsOf } from "../replies.ts"
import { letterCount } from "../scripts/checks/letterCount.ts"
import { letterInTwoStates } from "../scripts/checks/letterInTwoStates.ts"
import { lostOffer } from "../scripts/checks/lostOffer.ts"
import { charactersIn, Steps } from "../stepSize.ts"
import type { Checks } from "./check.ts"
import { paged } from "./check.ts"

const lettersPerStep = 100

/** The number of letters, and the number ever added: while both stay the same, the letters do. */
interface Extent {
  readonly length: number
  readonly added: number
}

const extentOf = ({ ask, keys }: Checks): Effect.Effect<Extent, BrokerError> =>
  Effect.map(ask([["exists", keys.dead], ["xinfo", "STREAM", keys.dead]]), ([exists, info]) => {
    const fields = new Map(exists === 1 && Array.isArray(info) ? pairsOf(info as ReadonlyArray<unknown>) : [])
    return { length: Number(fields.get("length") ?? 0), added: Number(fields.get("entries-added") ?? 0) }
  })

/** Finds letters whose message is still to be handled, and wrong counts of letters. */
export const letters = (checks: Checks, remembered: ReadonlyMap<string, string>): Stream.Stream<Page, BrokerError> => {
  const { ask, keys, report, run, statesOf, suspect } = checks
  const counted = new Map<string, number>()
  const compare = Effect.fnUntraced(function*(before: Extent): Effect.fn.Return<Page, BrokerError> {
    const after = yield* extentOf(checks)
    // Letters came or went during the walk: the next walk counts them again.
    if (after.length !== before.length || after.added !== before.added) return { suspects: [] }
    const [reply] = yield* ask([["hgetall", keys.counts]])
    const stored = new Map(
      Object.entries((reply ?? {}) as Record<string, string>).filter(([field]) =>
        field.startsWith(`${letterCounter}\n`)
      )
    )
    const fields = new Set([...stored.keys(), ...counted.keys()])
    return {
      suspects: [...fields].filter((field) => Number(stored.get(field) ?? 0) !== (counted.get(field) ?? 0)).map(
        (field) => {
          const [, group, channel] = field.split("\n")
          const right = counted.get(field) ?? 0
          return suspect(
            {
              kind: "LetterCount",
              key: keys.counts,
              group,
              channel,
              id: field,
              message: `${stored.get(field) ?? 0} dead letters are counted, and there are ${right}`,
              repair: "writes the right count"
            },
            letterCount,
            [keys.dead, keys.counts],
            [after.added, after.length, field, right]
          )
        }
      )
    }
  })
  const steps = new Steps(lettersPerStep)
  return Stream.unwrap(Effect.map(extentOf(checks), (before) =>
    Stream.concat(
      paged(
        "-",
        Effect.fnUntraced(function*(from) {
          const count = steps.size
          const [reply] = yield* ask([["xrange", keys.dead, from, "+", "COUNT", count]])
          const entries = (reply ?? []) as RawEntries
          steps.took(entries.length, charactersIn(entries))
          const known = entries.flatMap(([id, fields]) => {
            const key = Entry.letterKeyIn(fields ?? [])
            if (key !== undefined) {
              const field = `${letterCounter}\n${key}`
              counted.set(field, (counted.get(field) ?? 0) + 1)
            }
            const { channel, group, malformed, origin } = Entry.decode(id, fields ?? [])
            return malformed === undefined && group !== undefined && channel !== undefined && isPosition(origin)
              ? [{ id, group, channel, origin, member: waitingMember(group, channel, origin) }]
              : []
          })
          const states = yield* statesOf(known)
          const suspects: Array<Suspect> = []
          for (const [i, { channel, group, id, member, origin }] of known.entries()) {
            const { isLeased, waits } = states[i]!
            const position = remembered.get(member)
            if (!waits && !isLeased && position === undefined) continue
            const names = [keys.dead, keys.waiting, keys.log(channel), keys.retry(group, channel)]
            suspects.push(report(
              {
                kind: "TwoStates",
                key: keys.dead,
                group,
                channel,
                id: `${keys.shard}:${id}`,
                message: "the group has given it up, and is still to handle it: remove the letter if it is not wanted"
              },
              Effect.map(
                run(letterInTwoStates, names, [id, group, member, origin, position ?? ""]),
                (answer) => answer === 1
              )
            ))
          }
          const last = entries.at(-1)?.[0]
          return [
            { looked: { letters: entries.length }, suspects },
            last === undefined || entries.length < count ? undefined : `(${last}`
          ] as const
        })
      ),
      Stream.fromEffect(compare(before))
    )))
}

/** Finds letters that count as offered to a subscription and would never be offered again. */
export const offers = ({ ask, keys, scan, suspect }: Checks, name: string): Stream.Stream<Page, BrokerError> =>
  scan(
    "hscan",
    keys.offered(name),
    lettersPerStep,
    Effect.fnUntraced(function*(some) {
      const ids = some.map(([id]) => id).filter((id) => id !== "cursor")
      const scores = yield* ask(ids.map((id): Command => ["zscore", keys.offers(name), id]))
      return {
        suspects: ids.filter((_, i) => scores[i] === null).map((id) =>
          suspect(
            {
              kind: "LostOffer",
              key: keys.offered(name),
              id: `${keys.shard}:${id}`,
              message:
                `the dead letter counts as offered to the subscription "${name}", and would never be offered again`,
              repair: "offers it again, or forgets it where the letter is gone"
            },
            lostOffer,
            [keys.dead, keys.offers(name), keys.offered(name)],
            [id, keys.events]
          )
        )
      }
    })
  )
