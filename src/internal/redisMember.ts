/**
 * One consumer of one group in one shard on Redis Streams.
 *
 * A lease is an entry of the group's pending list: its owner and delivery count are the token, its idle time the age of the
 * lease. What this member holds is remembered here too, so that after a lost connection the difference tells which answers
 * never arrived.
 */
import { Clock, Effect, Semaphore } from "effect"
import type { BrokerError, Claimed, Delivery, Member, Membership } from "../Broker.ts"
import type { BlockingConnection, Command, Connection } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import * as Entry from "./entry.ts"
import type { Keys } from "./keys.ts"
import { attach } from "./scripts/attach.ts"
import { beat } from "./scripts/beat.ts"
import { channel as channelScript } from "./scripts/channel.ts"
import { leave } from "./scripts/leave.ts"
import { recover as recoverScript } from "./scripts/recover.ts"
import { register } from "./scripts/register.ts"
import { renew } from "./scripts/renew.ts"
import { settle } from "./scripts/settle.ts"
import { sources as sourcesScript } from "./scripts/sources.ts"

/** A read that has had no answer this long after its block time is given up and its connection replaced. */
const readGraceMillis = 3_000

/** A plain XACK is sent only while the lease has at least this part of its time left; otherwise the fenced script. */
const surelyHeld = 0.5

/** Streams named in one script call, deliveries settled in one. */
const streamsPerCall = 100
const deliveriesPerCall = 200

/** How many pending entries of a stream are looked at in one go: for an expired lease, and for a lost answer. */
const pendingPage = 200
const recoveryPage = 1_000

/** A member of more streams than this reads and looks after them as many: at a measured pace, and not all each time. */
const fewStreams = 16

/** What a read of so many streams costs Redis, in ms (measured: 61 µs for 1, 120 for 100, 710 for 1,000). */
const readCostMillis = (streams: number) => 0.06 + 0.00065 * streams

/** A read of many streams takes no more than this part of Redis's time, however often there is something. */
const readShare = 1 / 15

/** So many messages are taken from a busy stream among many before it is the turn of the next. */
const busyBatch = 8

/** Streams of which one look for expired leases takes note, where nobody seems lost. */
const streamsPerLook = 2

type RawEntries = ReadonlyArray<readonly [position: string, fields: ReadonlyArray<string> | null]>
type RawPending = ReadonlyArray<readonly [position: string, consumer: string, idle: number, count: number]>

interface Source {
  readonly key: string
  readonly channel: string
  readonly isRetry: boolean
  readonly held: Map<string, Lease>
}

class Lease implements Delivery {
  readonly id: string
  readonly channel: string
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly publishedAtMillis: number
  readonly attempt: number
  readonly deliveryCount: number
  readonly crashes: number
  readonly malformed: string | undefined
  readonly source: Source
  readonly position: string
  readonly origin: string
  /** How often this very entry was handed out: the token, together with the owner. */
  readonly count: number
  /** Until when nobody else can have it, on this process's monotonic clock. */
  heldUntil: number
  /** A settlement was sent that is not known to have failed: if the next one is refused, that one did it. */
  uncertain = false

  constructor(source: Source, position: string, entry: Entry.Entry, count: number, heldUntil: number) {
    this.id = entry.id
    this.channel = source.channel
    this.payload = entry.payload
    this.headers = entry.headers
    this.params = entry.params
    this.publishedAtMillis = entry.publishedAtMillis
    this.attempt = entry.attempt
    this.deliveryCount = entry.deliveries + count
    this.crashes = entry.crashes + count - 1
    this.malformed = entry.malformed
    this.source = source
    this.position = position
    this.origin = entry.origin
    this.count = count
    this.heldUntil = heldUntil
  }
}

const describe = (lease: Lease, attempt: number): Entry.Meta => ({
  id: lease.id,
  headers: lease.headers,
  params: lease.params,
  publishedAtMillis: lease.publishedAtMillis,
  attempt,
  deliveries: lease.deliveryCount,
  crashes: lease.crashes,
  origin: lease.origin
})

const chunked = <A>(items: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> => {
  const out: Array<ReadonlyArray<A>> = []
  for (let i = 0; i < items.length; i += size) out.push(items.slice(i, i + size))
  return out
}

export interface Setup {
  readonly membership: Membership
  readonly keys: Keys
  readonly connection: Connection
  readonly reader: BlockingConnection
  /** The names and patterns the group reads in this shard. */
  readonly patterns: ReadonlyArray<string>
  /** The names among them: these channels are created when they do not exist. */
  readonly names: ReadonlyArray<string>
  readonly matches: (channel: string) => boolean
  /** Something was settled in this stream. */
  readonly onSettled: (stream: string) => void
  readonly fail: (operation: string) => (error: RedisError) => BrokerError
}

export interface RedisMember extends Member {
  /** Told of every event of the shard: something may have appeared that this member has to read. */
  readonly notify: (channel: string, group: string | undefined) => void
  /** Told that events may have been missed. */
  readonly notifyGap: () => void
  readonly close: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(setup: Setup): Effect.fn.Return<RedisMember, BrokerError> {
  const { connection, fail, keys, matches, membership, names, onSettled, patterns, reader } = setup
  const { consumer, group, leaseMillis } = membership
  const clock = yield* Clock.Clock
  // It measures how old a lease is, never what time it is: a wall clock that is set back must not make a lease last longer.
  const monotonic = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)

  const sources = new Map<string, Source>()
  let retryKeys: Array<string> = []
  let allKeys: Array<string> = []
  let version = ""
  let established = false
  let stale = true
  let lost = false
  // What one of them has been given and not yet recorded must not look lost to the other.
  const taking = yield* Semaphore.make(1)
  let onlyRetries = true
  let active = 1
  // Streams that gave all that was asked of them: they have more, most likely.
  const busy = new Set<string>()
  let nextWideAt = 0
  let isHeard = false
  let everythingDue = true
  let looked = 0
  let waking = false
  let reading = false

  const addSource = (key: string, channel: string, isRetry: boolean) => {
    if (!sources.has(key)) sources.set(key, { key, channel, isRetry, held: new Map() })
  }

  const evaluate = (...args: Parameters<Connection["evaluate"]>) => connection.evaluate(...args)

  /** Creates the group where it is missing. */
  const attachTo = (channels: ReadonlyArray<string>, streams: ReadonlyArray<string>, position: string) =>
    Effect.forEach(
      chunked(streams.map((key, i) => [key, channels[i]!] as const), streamsPerCall),
      (chunk) =>
        evaluate(
          attach,
          [keys.floors(group), ...chunk.map(([key]) => key)],
          [group, position, ...chunk.map(([, channel]) => channel)],
          { idempotent: true }
        ),
      { discard: true }
    )

  const startPosition = (): string => {
    const start = membership.start
    switch (start._tag) {
      case "Earliest":
        return "0"
      case "Latest":
        return "$"
      case "Position":
        return start.position
      case "Time":
        return start.atMillis <= 0 ? "0" : `${Math.ceil(start.atMillis) - 1}-18446744073709551615`
    }
  }

  /**
   * Brings the list of streams up to date and creates the group where it is missing. `heal`: also where it was there before.
   * The group is attached before it is registered: a crash in between leaves it unregistered, and the next start repeats both.
   */
  const sync = (heal: boolean): Effect.Effect<void, RedisError> =>
    Effect.suspend(() => {
      // What is announced while this looks makes it look again.
      stale = false
      return Effect.onError(look(heal), () =>
        Effect.sync(() => {
          stale = true
        }))
    })

  /** Tells the other members that this one lives; who has been silent for a lease. */
  const sayAlive = Effect.suspend(() => {
    isHeard = true
    return evaluate(beat, [keys.members(group)], [consumer, leaseMillis], { idempotent: true })
  })

  const look = Effect.fnUntraced(function*(heal: boolean) {
    const fields = patterns.map((pattern) => `${group}\n${pattern}`)
    const ask = (known: string) =>
      Effect.map(
        evaluate(sourcesScript, [keys.meta, keys.channels, keys.groups, keys.retries(group)], [known, ...fields], {
          idempotent: true
        }),
        (reply) => reply as readonly [string, Array<string>?, Array<string>?, Array<number>?]
      )
    let reply = yield* ask(heal ? "" : version)
    if (reply[1] === undefined) return
    const missing = names.filter((name) => !reply[1]!.includes(name))
    if (missing.length > 0) {
      for (const name of missing) {
        yield* evaluate(channelScript, [keys.meta, keys.channels, keys.log(name)], [name, "", keys.events], {
          idempotent: true
        })
      }
      reply = yield* ask("")
    }
    const [seen, channels = [], retries = [], registered = []] = reply
    const matching = channels.filter(matches)
    const logs = matching.map(keys.log)
    const fresh = new Set<string>()
    if (!established && registered.includes(0)) {
      // The start option is for channels that were there before the group: those that no registered pattern of it reaches.
      const old = new Set(missing)
      const unregistered = patterns.filter((_, i) => registered[i] === 0)
      const isNew = registered.includes(1) ? new Set(unregistered) : undefined
      for (const channel of matching) {
        if (!old.has(channel) && (isNew === undefined || isNew.has(channel))) fresh.add(channel)
      }
    }
    const isKnown = (key: string) => !heal && sources.has(key)
    const attaching = (wanted: boolean) =>
      matching.filter((name) => fresh.has(name) === wanted && !isKnown(keys.log(name)))
    const starting = attaching(true)
    const following = attaching(false)
    if (starting.length > 0) yield* attachTo(starting, starting.map(keys.log), startPosition())
    if (following.length > 0) yield* attachTo(following, following.map(keys.log), "0")
    const waiting = retries.filter(matches)
    const retryStreams = waiting.map((channel) => keys.retry(group, channel))
    const missingRetries = retryStreams.filter((key) => !isKnown(key))
    if (missingRetries.length > 0) yield* attachTo(missingRetries.map(() => ""), missingRetries, "0")
    // A registration that is gone went with a flush of the namespace.
    if (!established || heal || registered.includes(0)) {
      yield* evaluate(register, [keys.meta, keys.groups], fields, { idempotent: true })
    }
    established = true
    for (const [i, key] of retryStreams.entries()) addSource(key, waiting[i]!, true)
    for (const [i, key] of logs.entries()) addSource(key, matching[i]!, false)
    const current = new Set([...retryStreams, ...logs])
    // A stream that is gone from the registry stays known while something of it is held.
    for (const [key, source] of sources) {
      if (!current.has(key) && source.held.size === 0) sources.delete(key)
    }
    for (const key of busy) if (!current.has(key)) busy.delete(key)
    retryKeys = retryStreams
    allKeys = [...retryStreams, ...logs]
    // Before the first read: whoever falls silent later has been heard of.
    if (allKeys.length > fewStreams && !isHeard) yield* sayAlive
    version = seen
  })

  const take = (source: Source, entries: RawEntries, counts: ReadonlyMap<string, number> | undefined, from: number) => {
    const out: Array<Lease> = []
    for (const [position, fields] of entries) {
      // Trimmed between the hand-out and now: nothing is left to deliver.
      if (fields === null) continue
      const lease = new Lease(
        source,
        position,
        Entry.decode(position, fields),
        counts?.get(position) ?? 1,
        from + leaseMillis * surelyHeld
      )
      source.held.set(position, lease)
      out.push(lease)
    }
    return out
  }

  /**
   * Takes what was handed out to this member in answers that never arrived: pending for it, and not held. Nothing may be
   * being read meanwhile.
   */
  const recover = Effect.fnUntraced(function*() {
    const out: Array<Lease> = []
    let pages = [...sources.values()].map((source) => ({ source, from: "-" }))
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
        const missing = positions.filter((position) => !source.held.has(position))
        if (missing.length === 0) continue
        const entries = (yield* evaluate(recoverScript, [source.key], [group, consumer, ...missing], {
          idempotent: true
        })) as ReadonlyArray<readonly [string, ReadonlyArray<string>, number]>
        const counts = new Map(entries.map(([position, , count]) => [position, count]))
        out.push(...take(source, entries.map(([position, fields]) => [position, fields] as const), counts, from))
      }
      pages = next
    }
    return out
  })

  const readStreams = Effect.fnUntraced(function*(streams: ReadonlyArray<string>, each: number, blockMillis: number) {
    const command: Command = [
      "xreadgroup",
      "GROUP",
      group,
      consumer,
      "COUNT",
      each,
      ...(blockMillis > 0 ? ["BLOCK", Math.ceil(blockMillis)] : []),
      "STREAMS",
      ...streams,
      ...streams.map(() => ">")
    ]
    const from = monotonic()
    const reply = (yield* reader.send(command, blockMillis + readGraceMillis)) as
      | ReadonlyArray<readonly [string, RawEntries]>
      | null
    const out: Array<Lease> = []
    // Those with more go to the end of the line.
    for (const key of busy.size === 0 ? [] : streams) busy.delete(key)
    if (reply === null) return out
    active = Math.max(1, reply.length)
    for (const [key, entries] of reply) {
      if (entries.length >= each) busy.add(key)
      const source = sources.get(key)
      if (source !== undefined) out.push(...take(source, entries, undefined, from))
    }
    return out
  })

  const share = (count: number, among: number) => Math.max(1, Math.ceil(count / among))

  /**
   * Every stream that a blocking read names costs Redis something each time the read is woken. So many streams are read at
   * intervals, and those that are known to have more in between.
   */
  const readMany = Effect.fnUntraced(function*(count: number, blockMillis: number) {
    const isWideDue = () => monotonic() >= nextWideAt
    const readWide = (streams: ReadonlyArray<string>, millis: number) =>
      Effect.ensuring(
        // Two: a stream that gives one has no more.
        readStreams(streams, Math.max(2, share(count, streams.length)), millis),
        Effect.sync(() => {
          nextWideAt = monotonic() + readCostMillis(streams.length) / readShare
        })
      )
    if (busy.size > 0) {
      if (isWideDue()) {
        const quiet = allKeys.filter((key) => !busy.has(key))
        const out = quiet.length === 0 ? [] : yield* readWide(quiet, 0)
        if (out.length > 0) return out
      }
      // Several from each of a few: the acknowledgements of a stream go in one command.
      const streams = [...busy].slice(0, share(count, busyBatch))
      const out = yield* readStreams(streams, share(count, streams.length), 0)
      if (out.length > 0) return out
    }
    if (!isWideDue()) yield* idle(nextWideAt - monotonic())
    return waking || busy.size > 0 ? [] : yield* readWide(allKeys, blockMillis)
  })

  const readOnce = Effect.fnUntraced(function*(count: number, blockMillis: number) {
    if (lost) {
      // A new socket first: it ends the old one at the server, so that nothing more is handed out to it.
      yield* reader.send(["ping"], readGraceMillis)
      lost = false
      const out = yield* Effect.onError(taking.withPermit(recover()), () =>
        Effect.sync(() => {
          lost = true
        }))
      if (out.length > 0) return out
    }
    if (stale) yield* sync(false)
    if (onlyRetries) {
      // What another member gave back when it left comes before what it had not read yet.
      const out = retryKeys.length === 0 ? [] : yield* readStreams(retryKeys, share(count, retryKeys.length), 0)
      if (out.length > 0) return out
      onlyRetries = false
    }
    if (waking) return []
    if (allKeys.length === 0) {
      // A pattern without any channel: there is nothing to block on, `wake` and `notify` end the wait.
      yield* idle(blockMillis)
      return []
    }
    if (allKeys.length > fewStreams) return yield* readMany(count, blockMillis)
    return yield* readStreams(allKeys, share(count, active), blockMillis)
  })

  let endIdle: (() => void) | undefined
  const idle = (millis: number) =>
    Effect.raceFirst(
      Effect.sleep(millis),
      Effect.callback<void>((resume) => {
        endIdle = () => resume(Effect.void)
      })
    )

  const read = (count: number, blockMillis: number): Effect.Effect<ReadonlyArray<Delivery>, BrokerError> =>
    Effect.suspend(() => {
      waking = false
      reading = true
      const generation = reader.generation()
      return readOnce(count, blockMillis).pipe(
        Effect.tapError((error) =>
          Effect.suspend(() => {
            if (error.reason === "NoGroup") return sync(true)
            lost = lost || error.reason === "ConnectionLost" || reader.generation() !== generation
            return Effect.void
          })
        ),
        Effect.mapError(fail("read")),
        // An interrupted read leaves an answer behind that nobody takes; the next one recovers it.
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            lost = true
          })
        ),
        Effect.ensuring(Effect.sync(() => {
          reading = false
        }))
      )
    })

  const wake = Effect.suspend(() => {
    if (!reading) return Effect.void
    waking = true
    endIdle?.()
    // The read may be on its way and not blocked yet when the first one arrives.
    let pause = 1
    return Effect.whileLoop({
      while: () => reading && waking,
      body: () =>
        Effect.andThen(reader.unblock, Effect.suspend(() => reading && waking ? Effect.sleep(pause) : Effect.void)),
      step: () => {
        pause = Math.min(pause * 2, 100)
      }
    })
  })

  const bySource = (deliveries: ReadonlyArray<Delivery>): Map<Source, Array<Lease>> => {
    const out = new Map<Source, Array<Lease>>()
    for (const delivery of deliveries) {
      if (!(delivery instanceof Lease)) continue
      const same = out.get(delivery.source)
      if (same === undefined) out.set(delivery.source, [delivery])
      else same.push(delivery)
    }
    return out
  }

  /** Sends a settlement; what it refuses although an earlier one may have done it counts as done. */
  const fenced = Effect.fnUntraced(function*(
    operation: string,
    source: Source,
    leases: ReadonlyArray<Lease>,
    describeItem: (lease: Lease) => ReadonlyArray<string | number>
  ) {
    const refused: Array<Delivery> = []
    for (const chunk of chunked(leases, deliveriesPerCall)) {
      const reply = (yield* evaluate(
        settle,
        [
          source.key,
          keys.retry(group, source.channel),
          keys.waiting,
          keys.bodies,
          keys.dead,
          keys.retries(group),
          keys.meta
        ],
        [
          group,
          consumer,
          source.channel,
          keys.events,
          ...chunk.flatMap((lease) => [lease.position, lease.count, ...describeItem(lease)])
        ],
        { idempotent: false }
      ).pipe(
        // The group is gone and with it every delivery of it; there is nothing left to settle.
        Effect.catchIf(
          (error) => error.reason === "NoGroup",
          () => Effect.succeed(chunk.map((lease) => lease.position))
        ),
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (error.reason === "ConnectionLost") { for (const lease of chunk) lease.uncertain = true }
          })
        ),
        Effect.mapError(fail(operation))
      )) as ReadonlyArray<string>
      const positions = new Set(reply)
      onSettled(source.key)
      for (const lease of chunk) {
        if (positions.has(lease.position) && !lease.uncertain) refused.push(lease)
        // Done, and told so when the whole call is: if the rest of it fails, it comes once more.
        else lease.uncertain = true
      }
    }
    return refused
  })

  const nothing = () => ["ack", "", "", ""]

  /** What this member holds, by stream; all else goes to `refused` without asking. */
  const holding = (deliveries: ReadonlyArray<Delivery>, refused: Array<Delivery>) => {
    const mine = new Map<Source, ReadonlyArray<Lease>>()
    for (const [source, leases] of bySource(deliveries)) {
      mine.set(source, leases.filter((lease) => source.held.get(lease.position) === lease))
      for (const lease of leases) if (source.held.get(lease.position) !== lease) refused.push(lease)
    }
    return mine
  }

  const letGo = (settled: ReadonlyMap<Source, ReadonlyArray<Lease>>) => {
    for (const [source, leases] of settled) for (const lease of leases) source.held.delete(lease.position)
  }

  const ack = Effect.fnUntraced(function*(deliveries: ReadonlyArray<Delivery>) {
    const refused: Array<Delivery> = []
    const now = monotonic()
    const plain: Array<Command> = []
    const plainLeases: Array<ReadonlyArray<Lease>> = []
    const mine = holding(deliveries, refused)
    for (const [source, leases] of mine) {
      const sure = leases.filter((lease) => now < lease.heldUntil && !lease.uncertain)
      if (sure.length > 0) {
        plain.push(["xack", source.key, group, ...sure.map((lease) => lease.position)])
        plainLeases.push(sure)
      }
      if (sure.length < leases.length) {
        const others = sure.length === 0 ? leases : leases.filter((lease) => !sure.includes(lease))
        refused.push(...(yield* fenced("ack", source, others, nothing)))
      }
    }
    if (plain.length > 0) {
      const replies = yield* (plain.length === 1
        ? Effect.map(
          Effect.result(connection.send(plain[0]!, { idempotent: false })),
          (reply): ReadonlyArray<unknown> => [reply._tag === "Success" ? reply.success : reply.failure]
        )
        : Effect.catch(connection.pipeline(plain), (error) => Effect.succeed(plain.map((): unknown => error))))
      let failure: RedisError | undefined
      for (const [i, leases] of plainLeases.entries()) {
        const reply = replies[i]
        if (reply instanceof RedisError) failure = reply
        if (reply instanceof RedisError && reply.reason !== "ConnectionLost") continue
        for (const lease of leases) lease.uncertain = true
        onSettled(leases[0]!.source.key)
      }
      if (failure !== undefined) return yield* Effect.fail(fail("ack")(failure))
    }
    letGo(mine)
    return refused
  })

  const settleAll = Effect.fnUntraced(function*(
    operation: string,
    deliveries: ReadonlyArray<Delivery>,
    describeItem: (lease: Lease) => ReadonlyArray<string | number>
  ) {
    const refused: Array<Delivery> = []
    const mine = holding(deliveries, refused)
    for (const [source, leases] of mine) {
      if (leases.length > 0) refused.push(...(yield* fenced(operation, source, leases, describeItem)))
    }
    letGo(mine)
    return refused
  })

  const requeue: Member["requeue"] = (items) => {
    const wanted = new Map(items.map((item) => [item.delivery, item]))
    return settleAll("requeue", items.map((item) => item.delivery), (lease) => {
      const { attempt, delayMillis } = wanted.get(lease)!
      const description = Entry.encodeMeta(describe(lease, attempt))
      return delayMillis > 0
        ? ["wait", `${Math.ceil(delayMillis)}\n${group}\n${lease.channel}\n${lease.origin}`, description, lease.payload]
        : ["ready", "", description, lease.payload]
    })
  }

  const bury: Member["bury"] = (items) => {
    const wanted = new Map(items.map((item) => [item.delivery, item]))
    return settleAll("bury", items.map((item) => item.delivery), (lease) => [
      "dead",
      "",
      Entry.encodeMeta({
        ...describe(lease, lease.attempt),
        channel: lease.channel,
        group,
        failure: wanted.get(lease)!.failure
      }),
      lease.payload
    ])
  }

  const renewAll = Effect.fnUntraced(function*(deliveries: ReadonlyArray<Delivery>) {
    const refused: Array<Delivery> = []
    for (const [source, leases] of bySource(deliveries)) {
      refused.push(...leases.filter((lease) => source.held.get(lease.position) !== lease))
      for (const mine of chunked(leases.filter((lease) => source.held.get(lease.position) === lease), 1000)) {
        const from = monotonic()
        const reply = (yield* evaluate(
          renew,
          [source.key],
          [group, consumer, ...mine.flatMap((lease) => [lease.position, lease.count])],
          { idempotent: true }
        ).pipe(
          Effect.catchIf(
            (error) => error.reason === "NoGroup",
            () => Effect.succeed(mine.map((lease) => lease.position))
          ),
          Effect.mapError(fail("renew"))
        )) as ReadonlyArray<string>
        const positions = new Set(reply)
        for (const lease of mine) {
          // Whether it was settled or lost, the repetition of its settlement will tell.
          if (lease.uncertain) continue
          if (positions.has(lease.position)) {
            source.held.delete(lease.position)
            refused.push(lease)
          } else {
            lease.heldUntil = from + leaseMillis * surelyHeld
          }
        }
      }
    }
    return refused
  })

  const claim = Effect.fnUntraced(function*(count: number): Effect.fn.Return<Claimed, RedisError> {
    if (stale) yield* sync(false)
    // A lease expires when its member is lost, and then it is silent. Of many streams only some are looked at until one is.
    const isMany = sources.size > fewStreams
    const silent = isMany
      ? (yield* sayAlive) as Array<string>
      : []
    const isWhole = !isMany || everythingDue || silent.length > 0
    const all = [...sources.values()]
    const list = isWhole ? all : Array.from({ length: streamsPerLook }, () => all[looked++ % all.length]!)
    let isComplete = true
    const owners = new Set<string>()
    const from = monotonic()
    const pages = yield* connection.pipeline(
      list.map((source): Command => ["xpending", source.key, group, "-", "+", pendingPage])
    )
    const deliveries: Array<Lease> = []
    let nextInMillis = isMany ? leaseMillis * 2 / 3 : leaseMillis
    let vanished = 0
    for (const [i, source] of list.entries()) {
      const page = pages[i]
      if (!Array.isArray(page)) {
        if ((page as RedisError).reason === "NoGroup") stale = true
        else isComplete = false
        continue
      }
      let pending = page as RawPending
      if (pending.length === pendingPage) {
        // More than a page is pending: the server looks for the expired ones, and the rest is looked at again soon.
        pending = (yield* connection.send(
          ["xpending", source.key, group, "IDLE", leaseMillis, "-", "+", pendingPage],
          { idempotent: true }
        )) as RawPending
        nextInMillis = Math.min(nextInMillis, Math.max(1, leaseMillis / 4))
        isComplete = false
      }
      const expired: Array<string> = []
      const counts = new Map<string, number>()
      for (const [position, owner, age, handedOut] of pending) {
        if (owner === consumer && source.held.has(position)) continue
        owners.add(owner)
        if (age < leaseMillis) {
          if (owner !== consumer) nextInMillis = Math.min(nextInMillis, leaseMillis - age)
        } else if (deliveries.length + expired.length < count) {
          expired.push(position)
          counts.set(position, handedOut + 1)
        } else {
          nextInMillis = 1
          isComplete = false
        }
      }
      if (expired.length === 0) continue
      // The minimal idle time is judged again by the server: what its owner renewed meanwhile is not taken.
      const entries = (yield* connection.send(
        ["xclaim", source.key, group, consumer, leaseMillis, ...expired],
        { idempotent: false }
      )) as RawEntries
      const taken = take(source, entries, counts, from)
      deliveries.push(...taken)
      if (taken.length < expired.length) {
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
        for (const reply of found) if (Array.isArray(reply) && reply.length === 0) vanished++
      }
    }
    if (isMany && isWhole) {
      everythingDue = !isComplete
      const gone = isComplete ? silent.filter((name) => !owners.has(name)) : []
      if (gone.length > 0) yield* connection.send(["zrem", keys.members(group), ...gone], { idempotent: true })
    }
    return { deliveries, nextInMillis: Math.max(1, Math.ceil(nextInMillis)), vanished }
  })

  yield* Effect.mapError(sync(false), fail("join"))

  return {
    read,
    wake,
    ack,
    requeue,
    bury,
    renew: renewAll,
    claim: (count) =>
      taking.withPermit(claim(count)).pipe(
        // A claim whose answer was lost is pending for this member and held by nobody.
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (error.reason === "ConnectionLost") lost = true
          })
        ),
        Effect.mapError(fail("claim"))
      ),
    notify: (channel, forGroup) => {
      if ((forGroup !== undefined && forGroup !== group) || !matches(channel)) return
      stale = true
      Effect.runFork(wake)
    },
    notifyGap: () => {
      stale = true
      Effect.runFork(wake)
    },
    close: Effect.gen(function*() {
      let left = 0
      for (const chunk of chunked(allKeys, streamsPerCall)) {
        left += (yield* evaluate(leave, chunk, [group, consumer], { idempotent: true })) as number
      }
      // One that leaves something behind falls silent, and is looked for.
      if (allKeys.length > fewStreams && left === allKeys.length) {
        yield* connection.send(["zrem", keys.members(group), consumer], { idempotent: true })
      }
    }).pipe(
      Effect.tapError((error) => Effect.logDebug(`rotif: the consumer ${consumer} was not removed: ${error.message}`)),
      Effect.ignore
    )
  }
})
