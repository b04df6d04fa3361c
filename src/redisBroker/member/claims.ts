/**
 * How a member takes over deliveries: those whose lease expired at another member, and its own whose reply was lost.
 *
 * A takeover that fails before it is reported is forgotten, so that the member finds its deliveries again as lost.
 */
import { Effect, Semaphore } from "effect"
import type { Command } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import type { RawEntries, RawPending } from "../replies.ts"
import { findLostReplies as recoverScript } from "../scripts/member/findLostReplies.ts"
import { charactersIn, Steps } from "../stepSize.ts"
import type { MemberContext } from "./context.ts"
import type { SharedSettings } from "./groupSettings.ts"
import type { GroupStream, Lease } from "./lease.ts"
import { forget, isAnyExpiring, setExpiry, take, trialField, trialKind } from "./lease.ts"
import type { Presence } from "./presence.ts"
import { silentLeases } from "./presence.ts"
import type { Sources } from "./sources.ts"

/** Pending entries of one stream in one look: for expired leases, and for lost replies. */
const pendingPage = 200
const recoveryPage = 1_000

/** A member of more streams than this is one of many streams: it reads and checks them at a measured pace, and not all each time. */
export const fewStreams = 16

/** Of many streams, this many are checked for expired leases in one look while no member seems lost. */
const streamsPerLook = 2

/** The outcome of one look for expired leases. */
interface Look {
  nextInMillis: number
  /** Whether every expired lease of the streams that were looked at was seen and taken. */
  isComplete: boolean
  /** The members that have pending deliveries. */
  readonly owners: Set<string>
}

export const make = (
  { connection, keys, membership: { consumer, group, leaseMillis }, monotonic }: MemberContext,
  sources: Sources,
  presence: Presence,
  shared: SharedSettings
) => {
  let everythingDue = true
  let looked = 0
  // A delivery that one of both has been given and not yet recorded must not look lost to the other.
  const taking = Semaphore.makeUnsafe(1)

  /** When a step fails, the deliveries of the steps before it are not reported: they must not count as held. */
  const orForget = <A>(take: (taken: Array<Lease>) => Effect.Effect<A, RedisError>) =>
    taking.withPermit(Effect.suspend(() => {
      const taken: Array<Lease> = []
      return Effect.onError(take(taken), () => Effect.sync(() => forget(taken)))
    }))

  const recoverInto = Effect.fnUntraced(function*(out: Array<Lease>, count: number) {
    let pages = [...sources.streams.values()].map((stream) => ({ stream, from: "-" }))
    const recovering = new Steps(recoveryPage, 1)
    while (pages.length > 0) {
      const from = monotonic()
      const found = yield* connection.pipeline(
        pages.map((page): Command => ["xpending", page.stream.key, group, page.from, "+", recoveryPage, consumer])
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
        if (positions.length === recoveryPage) next.push({ stream, from: `(${positions[positions.length - 1]!}` })
        const lost = positions.filter((position) => !stream.held.has(position))
        if (lost.length === 0) continue
        if (out.length >= count) return { leases: out, isMore: true }
        const missing = lost.slice(0, count - out.length)
        if (missing.length < lost.length) next.push({ stream, from: missing.at(-1)! })
        const entries: Array<readonly [string, ReadonlyArray<string>, number, string]> = []
        for (let at = 0; at < missing.length;) {
          const step = missing.slice(at, at + recovering.size)
          const some = (yield* connection.evaluate(
            recoverScript,
            [stream.key, keys.trials(group, stream.channel)],
            [group, consumer, trialKind(stream), ...step]
          )) as typeof entries
          recovering.took(some.length, charactersIn(some))
          entries.push(...some)
          at += step.length
        }
        const counts = new Map(entries.map(([position, , count]) => [position, count]))
        const tried = new Map(entries.map(([position, , , tried]) => [position, tried]))
        take(
          stream,
          entries.map(([position, fields]) => [position, fields] as const),
          counts,
          from,
          leaseMillis,
          out,
          tried
        )
      }
      pages = next
    }
    return { leases: out, isMore: false }
  })

  /** The recorded trials of these entries; none where another program has written the key. */
  const trialsOf = Effect.fnUntraced(function*(stream: GroupStream, entries: RawEntries) {
    const positions = entries.map(([position]) => position)
    if (positions.length === 0) return new Map<string, string>()
    const [values] = yield* connection.pipeline([
      ["hmget", keys.trials(group, stream.channel), ...positions.map((position) => trialField(stream, position))]
    ])
    if (values instanceof RedisError && !values.message.startsWith("WRONGTYPE ")) return yield* values
    return new Map(
      (values instanceof RedisError ? [] : values as ReadonlyArray<string | null>).map((value, i) => [
        positions[i]!,
        value ?? ""
      ])
    )
  })

  /** The pending entries of a page whose lease has expired, at most `room`, and the count that their takeover gives each. */
  const expiredIn = (
    stream: GroupStream,
    pending: RawPending,
    expiresMillis: number,
    room: number,
    look: Look
  ): ReadonlyMap<string, number> => {
    const expired = new Map<string, number>()
    for (const [position, owner, age, handedOut] of pending) {
      if (owner === consumer && stream.held.has(position)) continue
      look.owners.add(owner)
      if (age < expiresMillis) {
        if (owner !== consumer) look.nextInMillis = Math.min(look.nextInMillis, expiresMillis - age)
      } else if (expired.size < room) {
        expired.set(position, handedOut + 1)
      } else {
        look.nextInMillis = 1
        look.isComplete = false
      }
    }
    return expired
  }

  /** Counts the entries whose message was removed from the stream, and removes their trials. */
  const endVanished = Effect.fnUntraced(function*(stream: GroupStream, expired: ReadonlyArray<string>) {
    const left = (yield* connection.send(
      ["xpending", stream.key, group, expired[0]!, expired[expired.length - 1]!, pendingPage],
      { idempotent: true }
    )) as RawPending
    const still = new Set(left.map(([position]) => position))
    const missing = expired.filter((position) => !still.has(position) && !stream.held.has(position))
    // An entry that is still in the log was acknowledged by its owner meanwhile.
    const found = yield* connection.pipeline(
      missing.map((position): Command => ["xrange", stream.key, position, position])
    )
    const lost = missing.filter((_, i) => Array.isArray(found[i]) && found[i].length === 0)
    if (lost.length > 0) {
      yield* connection.pipeline([
        ["hdel", keys.trials(group, stream.channel), ...lost.map((position) => trialField(stream, position))]
      ])
    }
    return lost.length
  })

  const claimInto = Effect.fnUntraced(function*(deliveries: Array<Lease>, count: number) {
    // A lease expires when its member is lost, and a lost member is silent. Of many streams only some are checked until one is silent.
    const isMany = sources.streams.size > fewStreams
    yield* shared.refresh
    const expiresMillis = shared.claimMillis()
    const silent = yield* presence.sayAlive(isMany ? expiresMillis : silentLeases * expiresMillis)
    const isWhole = !isMany || everythingDue || silent.length > 0
    const all = [...sources.streams.values()]
    const list = isWhole ? all : Array.from({ length: streamsPerLook }, () => all[looked++ % all.length]!)
    const look: Look = {
      nextInMillis: isMany ? expiresMillis * 2 / 3 : expiresMillis,
      isComplete: true,
      owners: new Set()
    }
    const from = monotonic()
    const pages = yield* connection.pipeline(
      list.map((stream): Command => ["xpending", stream.key, group, "-", "+", pendingPage])
    )
    let vanished = 0
    const claiming = new Steps(pendingPage)
    for (const [i, stream] of list.entries()) {
      const page = pages[i]
      if (!Array.isArray(page)) {
        if ((page as RedisError).reason === "NoGroup") sources.markStale()
        else look.isComplete = false
        continue
      }
      let pending = page as RawPending
      if (pending.length === pendingPage) {
        // More than a page is pending: the server finds the expired entries, and the rest is checked again soon.
        pending = (yield* connection.send(
          ["xpending", stream.key, group, "IDLE", expiresMillis, "-", "+", pendingPage],
          { idempotent: true }
        )) as RawPending
        look.nextInMillis = Math.min(look.nextInMillis, Math.max(1, expiresMillis / 4))
        look.isComplete = false
      }
      const counts = expiredIn(stream, pending, expiresMillis, count - deliveries.length, look)
      const expired = [...counts.keys()]
      if (expired.length === 0) continue
      const before = deliveries.length
      for (let at = 0; at < expired.length;) {
        const step = expired.slice(at, at + claiming.size)
        // The server compares the idle time again: a lease that its owner renewed meanwhile is not taken.
        const entries = (yield* connection.send(
          ["xclaim", stream.key, group, consumer, expiresMillis, ...step],
          { idempotent: false }
        )) as RawEntries
        claiming.took(entries.length, charactersIn(entries))
        take(stream, entries, counts, from, leaseMillis, deliveries, yield* trialsOf(stream, entries))
        at += step.length
      }
      if (deliveries.length - before < expired.length) vanished += yield* endVanished(stream, expired)
    }
    if (isWhole) {
      everythingDue = !look.isComplete
      if (look.isComplete) yield* presence.forget(silent.filter((name) => !look.owners.has(name)))
    }
    if (isAnyExpiring(deliveries)) yield* setExpiry(connection, deliveries)
    return {
      deliveries,
      nextInMillis: Math.max(1, Math.ceil(look.nextInMillis)),
      vanished,
      settings: shared.settings()
    }
  })

  return {
    /** Takes over at most `count` deliveries whose lease has expired. */
    claim: (count: number) => orForget((taken) => claimInto(taken, count)),

    /**
     * Takes at most `count` deliveries that were handed out to this member in replies that never arrived: they are pending for it, and
     * not held. No read may be running meanwhile.
     */
    recover: (count: number) => orForget((taken) => recoverInto(taken, count))
  }
}

export type Claims = ReturnType<typeof make>
