/** How a member takes over deliveries whose lease has expired at another member. */
import { Effect } from "effect"
import type { Claimed } from "../../Broker.ts"
import type { Command } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import { gateKeys } from "../keys.ts"
import type { RawEntries, RawPending } from "../replies.ts"
import { brokenGate } from "../scripts/checks/brokenGate.ts"
import { takeOver } from "../scripts/member/takeOver.ts"
import { gateConsumer } from "../scripts/parts/gate.ts"
import { charactersIn, Steps } from "../stepSize.ts"
import type { MemberContext } from "./context.ts"
import type { Gate } from "./gate.ts"
import type { SharedSettings } from "./groupSettings.ts"
import type { GroupStream, Lease } from "./lease.ts"
import { isAnyExpiring, setExpiry, take, trialField } from "./lease.ts"
import type { Presence } from "./presence.ts"
import { silentLeases } from "./presence.ts"
import type { Sources } from "./sources.ts"
import { fewStreams } from "./sources.ts"
import type { Takeover } from "./takeover.ts"

/** Pending entries of one stream in one look. */
const pendingPage = 200

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
  shared: SharedSettings,
  takeover: Takeover,
  gate: Gate
) => {
  let everythingDue = true
  let pauses = sources.pauses.current()
  let looked = 0
  /** The channels in which a head may have been gone from its stream when it was taken over: its ordering key is not known, and has to be freed. */
  const unfreed = new Set<string>()

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
      if (owner === consumer && stream.held.has(position) || owner === gateConsumer) continue
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

  /** Takes over these entries, unless their lease is renewed meanwhile; returns how many of them have no message any more. */
  const takeExpired = Effect.fnUntraced(function*(
    stream: GroupStream,
    counts: ReadonlyMap<string, number>,
    expiresMillis: number,
    steps: Steps,
    from: number,
    out: Array<Lease>
  ) {
    const expired = [...counts.keys()]
    let found = 0
    // Before the first step: if one fails, it is not known what was found.
    const isNew = gate.isOrdering() && !unfreed.has(stream.channel)
    if (isNew) unfreed.add(stream.channel)
    for (let at = 0; at < expired.length;) {
      const step = expired.slice(at, at + steps.size)
      // The server compares the idle time again.
      const entries = (yield* gate.isOrdering()
        ? connection.evaluate(takeOver, [stream.key, keys.taken(group)], [group, consumer, expiresMillis, ...step])
        : connection.send(["xclaim", stream.key, group, consumer, expiresMillis, ...step], {
          idempotent: false
        })) as RawEntries
      steps.took(entries.length, charactersIn(entries))
      found += entries.length
      const taken = take(stream, entries, counts, from, leaseMillis, [], yield* trialsOf(stream, entries))
      out.push(...(yield* gate.admit(stream, taken)))
      at += step.length
    }
    const vanished = found < expired.length ? yield* endVanished(stream, expired) : 0
    if (isNew && vanished === 0) unfreed.delete(stream.channel)
    return vanished
  })

  /** The pending entries of a stream without those that wait for their ordering keys, at most a page of each consumer. */
  const pendingByConsumer = Effect.fnUntraced(function*(stream: GroupStream, expiresMillis: number) {
    const consumers = (yield* connection.send(["xinfo", "consumers", stream.key, group], {
      idempotent: true
    })) as ReadonlyArray<ReadonlyArray<string | number>>
    const names = consumers.filter(([, name, , pending]) => name !== gateConsumer && Number(pending) > 0)
      .map(([, name]) => String(name))
    const all: Array<RawPending[number]> = []
    let isComplete = true
    const pages = yield* connection.pipeline(
      names.map((name): Command => ["xpending", stream.key, group, "-", "+", pendingPage, name])
    )
    for (const [i, name] of names.entries()) {
      const page = pages[i]
      if (page instanceof RedisError) return yield* page
      const isFull = (page as RawPending).length === pendingPage
      if (isFull) isComplete = false
      const pending = isFull
        ? yield* connection.send(
          ["xpending", stream.key, group, "IDLE", expiresMillis, "-", "+", pendingPage, name],
          { idempotent: true }
        )
        : page
      all.push(...pending as RawPending)
    }
    return { pending: all, isComplete }
  })

  /**
   * Frees the ordering keys of a channel whose heads are gone, and returns how many that waited are gone, too; `undefined` when it cannot be
   * told yet. The next claim takes over what waited.
   */
  const freeOrphans = (channel: string) => {
    return Effect.map(
      connection.evaluate(
        brokenGate,
        [keys.log(channel), keys.retry(group, channel), keys.bodies(group, channel), ...gateKeys(keys, group, channel)],
        ["repair", group, consumer]
      ),
      (reply) => {
        const [isTold, problems = [], gone = 0] = reply as readonly [number, ReadonlyArray<unknown>?, number?]
        return isTold === 0 ? undefined : problems.length === 0 ? 0 : gone
      }
    )
  }

  /** Frees what is known to be unfreed; returns how many messages that waited are gone. */
  const freeAll = Effect.fnUntraced(function*() {
    let gone = 0
    for (const channel of unfreed) {
      const found = yield* freeOrphans(channel)
      if (found !== undefined) unfreed.delete(channel)
      gone += found ?? 0
    }
    return gone
  })

  /** Finds the channels that have a gate: a lost member may have had heads there that are gone from their stream, and from what is pending. */
  const suspectGates = Effect.fnUntraced(function*() {
    const channels = [...new Set([...sources.streams.values()].map(({ channel }) => channel))]
    const found = yield* connection.pipeline(
      channels.map((channel): Command => ["exists", keys.reached(group, channel)])
    )
    for (const [i, channel] of channels.entries()) if (found[i] !== 0) unfreed.add(channel)
  })

  /** Forgets lost members, once nothing of theirs keeps an ordering key closed. Returns how many messages that waited are gone. */
  const forgetMembers = Effect.fnUntraced(function*(names: ReadonlyArray<string>) {
    let gone = 0
    if (names.length > 0 && gate.isOrdering()) {
      yield* suspectGates()
      gone = yield* freeAll()
      if (unfreed.size > 0) return gone
      yield* connection.send(["hdel", keys.taken(group), ...names], { idempotent: true })
    }
    yield* presence.forget(names)
    return gone
  })

  const claimInto = Effect.fnUntraced(function*(deliveries: Array<Lease>, count: number) {
    // A lease expires when its member is lost, and a lost member is silent. Of many streams only some are checked until one is silent.
    const isMany = sources.streams.size > fewStreams
    yield* shared.refresh
    const expiresMillis = shared.claimMillis()
    const silent = yield* presence.sayAlive(isMany ? expiresMillis : silentLeases * expiresMillis)
    // Deliveries of a paused group are not taken over. After a change all streams are checked once.
    if (pauses !== sources.pauses.current()) everythingDue = true
    pauses = sources.pauses.current()
    const all = [...sources.streams.values()].filter(({ channel }) => !sources.pauses.covers(channel))
    const isWhole = !isMany || all.length < streamsPerLook || everythingDue || silent.length > 0
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
      stream.isGated ||= gate.isOrdering() && pending.some(([, owner]) => owner === gateConsumer)
      if (stream.isGated) {
        const found = yield* pendingByConsumer(stream, expiresMillis)
        pending = found.pending
        if (!found.isComplete) {
          look.nextInMillis = Math.min(look.nextInMillis, Math.max(1, expiresMillis / 4))
          look.isComplete = false
        }
      } else if (pending.length === pendingPage) {
        // More than a page is pending: the server finds the expired entries, and the rest is checked again soon.
        pending = (yield* connection.send(
          ["xpending", stream.key, group, "IDLE", expiresMillis, "-", "+", pendingPage],
          { idempotent: true }
        )) as RawPending
        look.nextInMillis = Math.min(look.nextInMillis, Math.max(1, expiresMillis / 4))
        look.isComplete = false
      }
      const counts = expiredIn(stream, pending, expiresMillis, count - deliveries.length, look)
      if (counts.size > 0) vanished += yield* takeExpired(stream, counts, expiresMillis, claiming, from, deliveries)
    }
    if (unfreed.size > 0) {
      vanished += yield* freeAll()
      look.nextInMillis = Math.min(look.nextInMillis, Math.max(1, expiresMillis / 4))
    }
    if (isWhole) {
      everythingDue = !look.isComplete
      const lost = silent.filter((name) => !look.owners.has(name))
      if (look.isComplete && all.length === sources.streams.size && lost.length > 0) {
        vanished += yield* forgetMembers(lost)
        if (gate.isOrdering()) look.nextInMillis = Math.min(look.nextInMillis, Math.max(1, expiresMillis / 4))
      }
    }
    vanished += gate.takeVanished()
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
    claim: (count: number): Effect.Effect<Claimed, RedisError> => takeover((taken) => claimInto(taken, count)),

    /** Whether ordering keys are still to be freed. */
    isFreeing: () => unfreed.size > 0
  }
}
