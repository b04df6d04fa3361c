/**
 * Looks for messages in their logs whose publish got no answer.
 *
 * Each step is bounded in entries and bytes. One search at a time goes through a log, and looks for all that are missed there: when a
 * connection breaks, many publishes are in flight at once.
 */
import { Effect, Semaphore } from "effect"
import type { Connection, RedisError } from "../Redis.ts"
import { isAfter } from "./entry.ts"
import { search } from "./scripts/search.ts"

/** How far a message was looked for. */
export interface Reached {
  readonly from: string
  /** Something may have been removed behind its first position before it was looked at. */
  readonly isGap: boolean
}

interface Missed extends Reached {
  from: string
  isGap: boolean
  position: string | undefined
}

interface Seeker {
  readonly turn: Semaphore.Semaphore
  readonly missed: Map<string, Missed>
}

/** Ids that one search looks for. */
const idsPerSearch = 500

export const make = () => {
  const seekers = new Map<string, Seeker>()

  const run = Effect.fnUntraced(function*(
    { missed }: Seeker,
    log: string,
    connection: Connection,
    id: string,
    mine: Missed
  ) {
    while (mine.position === undefined) {
      const { from } = mine
      const others = [...missed].filter(([other]) => other !== id).slice(0, idsPerSearch)
      const [at, isWhole, isEnd, ...found] = (yield* connection.evaluate(
        search,
        [log],
        [from, id, ...others.map(([other]) => other)],
        { idempotent: true }
      )) as readonly [string, number, number, ...ReadonlyArray<string>]
      for (let i = 0; i < found.length; i += 2) {
        const one = found[i] === id ? mine : missed.get(found[i]!)
        if (one !== undefined) one.position ??= found[i + 1]!
      }
      for (const one of [mine, ...others.map(([, other]) => other)]) {
        // What lies before the step's first position was not looked at for this one.
        if (one !== mine && isAfter(from, one.from)) continue
        if (isWhole === 0) one.isGap = true
        if (one === mine || isAfter(at, one.from)) one.from = at
      }
      if (isEnd === 1) return
    }
  })

  /** The position of the message, or how far the log was looked through: to its end, as it was then. `missed` tells so meanwhile. */
  return Effect.fnUntraced(function*(
    log: string,
    connection: Connection,
    id: string,
    { from, isGap }: Reached,
    onReached: (reached: Reached) => void
  ): Effect.fn.Return<string | undefined, RedisError> {
    let seeker = seekers.get(log)
    if (seeker === undefined) seekers.set(log, seeker = { turn: Semaphore.makeUnsafe(1), missed: new Map() })
    const { missed, turn } = seeker
    const mine: Missed = { from, isGap, position: undefined }
    missed.set(id, mine)
    yield* Effect.ensuring(
      turn.withPermit(run(seeker, log, connection, id, mine)),
      Effect.sync(() => {
        onReached({ from: mine.from, isGap: mine.isGap })
        if (missed.get(id) === mine) missed.delete(id)
        if (missed.size === 0) seekers.delete(log)
      })
    )
    return mine.position
  })
}
