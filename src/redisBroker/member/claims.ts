/**
 * How a member comes to deliveries that were handed out before: those of others whose lease has expired, and its own whose answer
 * was lost. What it takes over and cannot report, because a later step failed, it finds again as lost.
 */
import { Effect } from "effect"
import type { Claimed, Membership } from "../../Broker.ts"
import type { Command, Connection } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import type { Keys } from "../keys.ts"
import type { RawEntries, RawPending } from "../replies.ts"
import { recover as recoverScript } from "../scripts/member/recover.ts"
import { charactersIn, Steps } from "../steps.ts"
import type { RedisAgreement } from "./groupSettings.ts"
import type { Lease, Source } from "./lease.ts"
import { fieldOf, kindOf, take } from "./lease.ts"
import type { Presence } from "./presence.ts"
import { silentLeases } from "./presence.ts"

/** How many pending entries of a stream are looked at in one go: for an expired lease, and for a lost answer. */
const pendingPage = 200
const recoveryPage = 1_000

/** A member of more streams than this reads and looks after them as many: at a measured pace, and not all each time. */
export const fewStreams = 16

/** Streams of which one look for expired leases takes note, where nobody seems lost. */
const streamsPerLook = 2

export interface RedisClaims {
  readonly claim: (count: number) => Effect.Effect<Claimed & { readonly deliveries: ReadonlyArray<Lease> }, RedisError>
  /**
   * Takes at most so many of those that were handed out to this member in answers that never arrived: pending for it, and not held.
   * Nothing may be being read meanwhile.
   */
  readonly recover: (
    count: number
  ) => Effect.Effect<{ readonly leases: ReadonlyArray<Lease>; readonly isMore: boolean }, RedisError>
}

export const make = (setup: {
  readonly membership: Membership
  readonly agreement: RedisAgreement
  readonly keys: Keys
  readonly connection: Connection
  readonly monotonic: () => number
  readonly sources: ReadonlyMap<string, Source>
  readonly presence: Presence
  readonly onNoGroup: () => void
}): RedisClaims => {
  const { connection, keys, monotonic, onNoGroup, presence, sources } = setup
  const { consumer, group, leaseMillis } = setup.membership
  const { claimMillis } = setup.agreement
  let everythingDue = true
  let looked = 0

  /** When a step fails, what the steps before it took is reported to nobody: it must not pass for held. */
  const orForget = <A>(take: (taken: Array<Lease>) => Effect.Effect<A, RedisError>) =>
    Effect.suspend(() => {
      const taken: Array<Lease> = []
      return Effect.onError(take(taken), () =>
        Effect.sync(() => {
          for (const lease of taken) lease.source.held.delete(lease.position)
        }))
    })

  const recoverInto = Effect.fnUntraced(function*(out: Array<Lease>, count: number) {
    let pages = [...sources.values()].map((source) => ({ source, from: "-" }))
    const recovering = new Steps(recoveryPage, 1)
    while (pages.length > 0) {
      const from = monotonic()
      const found = yield* connection.pipeline(
        pages.map((page): Command => ["xpending", page.source.key, group, page.from, "+", recoveryPage, consumer])
      )
      const next: typeof pages = []
      for (const [i, { source }] of pages.entries()) {
        const pending = found[i]
        if (!Array.isArray(pending)) {
          // Without the group nothing is pending; with any other answer it is not known, and asked again.
          if ((pending as RedisError).reason === "NoGroup") continue
          return yield* Effect.fail(pending as RedisError)
        }
        const positions = (pending as RawPending).map(([position]) => position)
        if (positions.length === recoveryPage) next.push({ source, from: `(${positions[positions.length - 1]!}` })
        const lost = positions.filter((position) => !source.held.has(position))
        if (lost.length === 0) continue
        if (out.length >= count) return { leases: out, isMore: true }
        const missing = lost.slice(0, count - out.length)
        if (missing.length < lost.length) next.push({ source, from: missing.at(-1)! })
        const entries: Array<readonly [string, ReadonlyArray<string>, number, string]> = []
        for (let at = 0; at < missing.length;) {
          const step = missing.slice(at, at + recovering.size)
          const some = (yield* connection.evaluate(
            recoverScript,
            [source.key, keys.trials(group, source.channel)],
            [group, consumer, kindOf(source), ...step],
            { idempotent: true }
          )) as typeof entries
          recovering.took(some.length, charactersIn(some))
          entries.push(...some)
          at += step.length
        }
        const counts = new Map(entries.map(([position, , count]) => [position, count]))
        const tried = new Map(entries.map(([position, , , tried]) => [position, tried]))
        out.push(
          ...take(
            source,
            entries.map(([position, fields]) => [position, fields] as const),
            counts,
            from,
            leaseMillis,
            [],
            tried
          )
        )
      }
      pages = next
    }
    return { leases: out, isMore: false }
  })

  /** What is known of the trials of these. Of a key that another program has written nothing is. */
  const triedOf = Effect.fnUntraced(function*(source: Source, entries: RawEntries) {
    const positions = entries.map(([position]) => position)
    if (positions.length === 0) return new Map<string, string>()
    const [values] = yield* connection.pipeline([
      ["hmget", keys.trials(group, source.channel), ...positions.map((position) => fieldOf(source, position))]
    ])
    if (values instanceof RedisError && !values.message.startsWith("WRONGTYPE ")) return yield* values
    return new Map(
      (values instanceof RedisError ? [] : values as ReadonlyArray<string | null>).map((value, i) => [
        positions[i]!,
        value ?? ""
      ])
    )
  })

  const claimInto = Effect.fnUntraced(function*(deliveries: Array<Lease>, count: number) {
    // A lease expires when its member is lost, and then it is silent. Of many streams only some are looked at until one is.
    const isMany = sources.size > fewStreams
    yield* setup.agreement.refresh
    const expiresMillis = claimMillis()
    const silent = yield* presence.sayAlive(isMany ? expiresMillis : silentLeases * expiresMillis)
    const isWhole = !isMany || everythingDue || silent.length > 0
    const all = [...sources.values()]
    const list = isWhole ? all : Array.from({ length: streamsPerLook }, () => all[looked++ % all.length]!)
    let isComplete = true
    const owners = new Set<string>()
    const from = monotonic()
    const pages = yield* connection.pipeline(
      list.map((source): Command => ["xpending", source.key, group, "-", "+", pendingPage])
    )
    let nextInMillis = isMany ? expiresMillis * 2 / 3 : expiresMillis
    let vanished = 0
    const claiming = new Steps(pendingPage)
    for (const [i, source] of list.entries()) {
      const page = pages[i]
      if (!Array.isArray(page)) {
        if ((page as RedisError).reason === "NoGroup") onNoGroup()
        else isComplete = false
        continue
      }
      let pending = page as RawPending
      if (pending.length === pendingPage) {
        // More than a page is pending: the server looks for the expired ones, and the rest is looked at again soon.
        pending = (yield* connection.send(
          ["xpending", source.key, group, "IDLE", expiresMillis, "-", "+", pendingPage],
          { idempotent: true }
        )) as RawPending
        nextInMillis = Math.min(nextInMillis, Math.max(1, expiresMillis / 4))
        isComplete = false
      }
      const expired: Array<string> = []
      const counts = new Map<string, number>()
      for (const [position, owner, age, handedOut] of pending) {
        if (owner === consumer && source.held.has(position)) continue
        owners.add(owner)
        if (age < expiresMillis) {
          if (owner !== consumer) nextInMillis = Math.min(nextInMillis, expiresMillis - age)
        } else if (deliveries.length + expired.length < count) {
          expired.push(position)
          counts.set(position, handedOut + 1)
        } else {
          nextInMillis = 1
          isComplete = false
        }
      }
      if (expired.length === 0) continue
      let taken = 0
      for (let at = 0; at < expired.length;) {
        const step = expired.slice(at, at + claiming.size)
        // The minimal idle time is judged again by the server: what its owner renewed meanwhile is not taken.
        const entries = (yield* connection.send(
          ["xclaim", source.key, group, consumer, expiresMillis, ...step],
          { idempotent: false }
        )) as RawEntries
        claiming.took(entries.length, charactersIn(entries))
        const leases = take(source, entries, counts, from, leaseMillis, [], yield* triedOf(source, entries))
        deliveries.push(...leases)
        taken += leases.length
        at += step.length
      }
      if (taken < expired.length) {
        const left = (yield* connection.send(
          ["xpending", source.key, group, expired[0]!, expired[expired.length - 1]!, pendingPage],
          { idempotent: true }
        )) as RawPending
        const still = new Set(left.map(([position]) => position))
        const missing = expired.filter((position) => !still.has(position) && !source.held.has(position))
        // What is still in the log was acknowledged by its owner meanwhile.
        const found = yield* connection.pipeline(
          missing.map((position): Command => ["xrange", source.key, position, position])
        )
        const lost = missing.filter((_, i) => Array.isArray(found[i]) && found[i].length === 0)
        vanished += lost.length
        if (lost.length > 0) {
          yield* connection.pipeline([
            ["hdel", keys.trials(group, source.channel), ...lost.map((position) => fieldOf(source, position))]
          ])
        }
      }
    }
    if (isWhole) {
      everythingDue = !isComplete
      if (isComplete) yield* presence.forget(silent.filter((name) => !owners.has(name)))
    }
    return {
      deliveries,
      nextInMillis: Math.max(1, Math.ceil(nextInMillis)),
      vanished,
      settings: setup.agreement.settings()
    }
  })

  return {
    claim: (count) => orForget((taken) => claimInto(taken, count)),
    recover: (count) => orForget((taken) => recoverInto(taken, count))
  }
}
