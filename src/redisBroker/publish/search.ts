/**
 * The search in a log for messages whose publish got no reply.
 *
 * Each step is bounded in entries and bytes. One search at a time goes through a log, and looks for all missed messages there: when a
 * connection breaks, many publishes are in flight at once.
 */
import { Effect, Semaphore } from "effect"
import type { Connection, RedisError } from "../../Redis.ts"
import { isHigher } from "../../broker/position.ts"
import type { Evidence } from "../callOutcome.ts"
import { search } from "../scripts/publish/search.ts"

/** How far a search has come. */
export type Reached = Pick<Extract<Evidence, { readonly _tag: "Log" }>, "since" | "from" | "isGone">

interface Missed {
  readonly since: string
  from: string
  isGone: boolean | undefined
  position: string | undefined
}

interface Seeker {
  readonly turn: Semaphore.Semaphore
  readonly missed: Map<string, Missed>
}

/** One step looks for at most this many ids. */
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
      const [at, isEnd, isGone, ...found] = (yield* connection.evaluate(
        search,
        [log],
        [from, mine.isGone === undefined ? mine.since : "", id, ...others.map(([other]) => other)]
      )) as readonly [string, number, number, ...ReadonlyArray<string>]
      for (let i = 0; i < found.length; i += 2) {
        const one = found[i] === id ? mine : missed.get(found[i]!)
        if (one !== undefined) one.position ??= found[i + 1]!
      }
      for (const [, other] of others) {
        if (mine.isGone === undefined && other.since === mine.since) other.isGone ??= isGone === 1
        // Entries before the first position of the step were not searched for the others.
        if (!isHigher(from, other.from) && isHigher(at, other.from)) other.from = at
      }
      mine.isGone ??= isGone === 1
      mine.from = at
      if (isEnd === 1) return
    }
  })

  /** Returns the position of the message; `undefined`: it is not in the log, which ended at the position that `onReached` gets. */
  return Effect.fnUntraced(function*(
    log: string,
    connection: Connection,
    id: string,
    { from, isGone, since }: Reached,
    onReached: (reached: Reached) => void
  ): Effect.fn.Return<string | undefined, RedisError> {
    let seeker = seekers.get(log)
    if (seeker === undefined) seekers.set(log, seeker = { turn: Semaphore.makeUnsafe(1), missed: new Map() })
    const { missed, turn } = seeker
    const mine: Missed = { since, from, isGone, position: undefined }
    missed.set(id, mine)
    yield* Effect.ensuring(
      turn.withPermit(run(seeker, log, connection, id, mine)),
      Effect.sync(() => {
        onReached({ since, from: mine.from, isGone: mine.isGone })
        if (missed.get(id) === mine) missed.delete(id)
        if (missed.size === 0) seekers.delete(log)
      })
    )
    return mine.position
  })
}
