/** How a member recovers deliveries that were handed out to it in replies which never arrived: they are pending for it, and not held. */
import { Effect } from "effect"
import type { Command, RedisError } from "../../Redis.ts"
import type { RawPending } from "../replies.ts"
import { findLostReplies } from "../scripts/member/findLostReplies.ts"
import { charactersIn, Steps } from "../stepSize.ts"
import type { MemberContext } from "./context.ts"
import type { Gate } from "./gate.ts"
import type { GroupStream, Lease } from "./lease.ts"
import { take, trialKind } from "./lease.ts"
import type { Sources } from "./sources.ts"
import type { Takeover } from "./takeover.ts"

/** Pending entries of one stream in one look. */
const pendingPage = 1_000

type Entries = ReadonlyArray<
  readonly [position: string, fields: ReadonlyArray<string>, count: number, tried: string]
>

export const make = (
  { connection, keys, membership: { consumer, group, leaseMillis }, monotonic }: MemberContext,
  { streams }: Pick<Sources, "streams">,
  takeover: Takeover,
  gate: Gate
) => {
  /** Takes lost deliveries of one stream. `from`: when they were seen to be pending. */
  const takeLost = Effect.fnUntraced(function*(
    stream: GroupStream,
    lost: ReadonlyArray<string>,
    steps: Steps,
    from: number,
    out: Array<Lease>
  ) {
    const entries: Array<Entries[number]> = []
    for (let at = 0; at < lost.length;) {
      const step = lost.slice(at, at + steps.size)
      const some = (yield* connection.evaluate(
        findLostReplies,
        [stream.key, keys.trials(group, stream.channel)],
        [group, consumer, trialKind(stream), ...step]
      )) as Entries
      steps.took(some.length, charactersIn(some))
      entries.push(...some)
      at += step.length
    }
    const counts = new Map(entries.map(([position, , count]) => [position, count]))
    const tried = new Map(entries.map(([position, , , tried]) => [position, tried]))
    const found = entries.map(([position, fields]) => [position, fields] as const)
    out.push(...(yield* gate.admit(stream, take(stream, found, counts, from, leaseMillis, [], tried))))
  })

  const recoverInto = Effect.fnUntraced(function*(out: Array<Lease>, count: number) {
    let pages = [...streams.values()].map((stream) => ({ stream, from: "-" }))
    const steps = new Steps(pendingPage, 1)
    while (pages.length > 0) {
      const from = monotonic()
      const found = yield* connection.pipeline(
        pages.map((page): Command => ["xpending", page.stream.key, group, page.from, "+", pendingPage, consumer])
      )
      const next: typeof pages = []
      for (const [i, { stream }] of pages.entries()) {
        const pending = found[i]
        if (!Array.isArray(pending)) {
          // Without the group nothing is pending. With any other answer it is not known, and asked again.
          if ((pending as RedisError).reason === "NoGroup") continue
          return yield* Effect.fail(pending as RedisError)
        }
        const positions = (pending as RawPending).map(([position]) => position)
        if (positions.length === pendingPage) next.push({ stream, from: `(${positions[positions.length - 1]!}` })
        const lost = positions.filter((position) => !stream.held.has(position))
        if (lost.length === 0) continue
        if (out.length >= count) return { leases: out, isMore: true }
        const missing = lost.slice(0, count - out.length)
        if (missing.length < lost.length) next.push({ stream, from: missing.at(-1)! })
        yield* takeLost(stream, missing, steps, from, out)
      }
      pages = next
    }
    return { leases: out, isMore: false }
  })

  /** Recovers at most `count` deliveries. No read may be running meanwhile. */
  return (count: number) => takeover((taken) => recoverInto(taken, count))
}

export type Recover = ReturnType<typeof make>
