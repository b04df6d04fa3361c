/** Checks of pending deliveries and of retry streams: ghosts, and messages in two states. */
import { Effect } from "effect"
import { isPosition } from "../../broker/position.ts"
import type { Command } from "../../Redis.ts"
import type { Suspect } from "../../broker/inspection.ts"
import { counterField } from "../counters.ts"
import * as Entry from "../entry.ts"
import { waitingMember } from "../keys.ts"
import type { RawEntries, RawPending } from "../replies.ts"
import { ghostDelivery } from "../scripts/checks/ghostDelivery.ts"
import { readyInTwoStates } from "../scripts/checks/readyInTwoStates.ts"
import { scanDeliveries } from "../scripts/checks/scanDeliveries.ts"
import { settledCount } from "../scripts/checks/settledCount.ts"
import { charactersIn, Steps } from "../stepSize.ts"
import type { Checks } from "./check.ts"
import { paged } from "./check.ts"

const leasesPerStep = 500
const entriesPerStep = 100

/** At most this many messages of retry streams are remembered, to be looked for among the dead letters. */
const mostRemembered = 100_000

/** A log or a retry stream, with one of its groups. */
export interface GroupChannel {
  readonly key: string
  readonly group: string
  readonly channel: string
  readonly isRetry: boolean
}

/** Finds deliveries whose message is gone, and that were last touched longer ago than the tolerance. */
export const ghosts = (checks: Checks, { channel, group, isRetry, key }: GroupChannel, toleranceMillis: number) => {
  const { keys, run, suspect } = checks
  return paged(
    "-",
    Effect.fnUntraced(function*(from) {
      const reply = yield* run(scanDeliveries, [key], [group, from, leasesPerStep, toleranceMillis])
      const [count, next, stray] = (reply ?? [0, "", []]) as readonly [number, string, ReadonlyArray<string>]
      const suspects = stray.map((id) =>
        suspect(
          {
            kind: "GhostDelivery",
            key,
            group,
            channel,
            id,
            message: "it is handed out, and its message was removed from the stream: there is nothing left to handle",
            repair: "ends the delivery"
          },
          ghostDelivery,
          [key, keys.counts, keys.taken(group)],
          [group, channel, id, toleranceMillis, isRetry ? 1 : 0]
        )
      )
      return [{ looked: { pending: count }, suspects }, next === "" ? undefined : next] as const
    })
  )
}

/**
 * The suspect of a retry stream of which a wrong number of messages counts as settled. The right number is known only while nothing of
 * the stream is left to be read.
 */
export const settled = ({ keys, suspect }: Checks, { channel, group, key }: GroupChannel): Suspect =>
  suspect(
    {
      kind: "Miscounted",
      key: keys.counts,
      group,
      channel,
      id: counterField("settledRetries", group, channel),
      message: "more or fewer of the messages that were ready again count as settled than were: statistics are wrong",
      repair: "writes the right count"
    },
    settledCount,
    [key, keys.counts],
    [group, channel]
  )

/**
 * Finds entries of a retry stream that are not settled and whose message is elsewhere, too. `remembered` collects their positions, by
 * the member that the message would have in `waiting`.
 */
export const ready = (
  checks: Checks,
  { channel, group, key }: GroupChannel,
  at: string,
  remembered: Map<string, string>
) => {
  const { ask, keys, statesOf, suspect } = checks
  type State = { readonly unread: boolean; readonly from: string }
  const steps = new Steps(entriesPerStep)
  return paged<State>(
    { unread: false, from: "-" },
    Effect.fnUntraced(function*({ from, unread }) {
      let entries: RawEntries
      let last: string | undefined
      if (unread) {
        const [reply] = yield* ask([["xrange", key, from, "+", "COUNT", steps.size]])
        entries = (reply ?? []) as RawEntries
        last = entries.at(-1)?.[0]
      } else {
        const [reply] = yield* ask([["xpending", key, group, from, "+", steps.size]])
        const leases = (reply ?? []) as RawPending
        last = leases.at(-1)?.[0]
        const found = yield* ask(leases.map(([position]): Command => ["xrange", key, position, position]))
        entries = found.flatMap((some) => (some ?? []) as RawEntries)
      }
      steps.took(entries.length, charactersIn(entries))
      const isLast = last === undefined
      const messages = entries.flatMap(([position, fields]) => {
        const { malformed, origin } = Entry.decode(position, fields ?? [])
        return malformed === undefined && isPosition(origin) ? [{ group, channel, origin, position }] : []
      })
      const states = yield* statesOf(messages)
      const suspects: Array<Suspect> = []
      for (const [i, { origin, position }] of messages.entries()) {
        const member = waitingMember(group, channel, origin)
        if (remembered.size < mostRemembered) remembered.set(member, position)
        const { isLeased, waits } = states[i]!
        const twice = (where: "waiting" | "log", message: string, repair: string) =>
          suspects.push(suspect(
            { kind: "TwoStates", key, group, channel, id: origin, message, repair },
            readyInTwoStates,
            [key, keys.waiting, keys.bodies(group, channel), keys.log(channel), keys.counts],
            [where, group, channel, position, member, origin]
          ))
        if (waits) {
          twice(
            "waiting",
            "it waits for its retry and is ready again as well: it will be handled twice",
            "removes what waits; the retry stream still has the message"
          )
        }
        if (isLeased) {
          twice(
            "log",
            "it is ready again, and handed out in the log as well: it will be handled twice",
            "removes what is ready, unless somebody has it already; the log still has the message"
          )
        }
      }
      const next = unread
        ? isLast ? undefined : { unread, from: `(${last}` }
        : isLast
        ? { unread: true, from: `(${at}` }
        : { unread, from: `(${last}` }
      return [{ looked: { ready: entries.length }, suspects }, next] as const
    })
  )
}
