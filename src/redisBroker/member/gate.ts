/**
 * Ordering keys in a member of a group that orders: which deliveries may run, and which messages settlements hand over.
 *
 * The gate in Redis (`scripts/parts/gate.ts`) decides. A member enters what it has read before it delivers it. That needs nothing for streams
 * in which this member has not seen an ordering key.
 *
 * A stamp tells whether the member still holds what it held: it changes when something is taken over from it. It counts only on the connections
 * on which it was learned. After a reconnection the server may be another one, with an earlier state: each delivery that is held is checked.
 */
import { Effect } from "effect"
import type { BlockingConnection, RedisError } from "../../Redis.ts"
import { chunked } from "../batches.ts"
import { gateKeys } from "../keys.ts"
import { enter as enterScript } from "../scripts/member/enter.ts"
import type { MemberContext } from "./context.ts"
import type { GroupStream, Lease, Stamp } from "./lease.ts"
import { forget, isAnyExpiring, setExpiry, take, trialKind } from "./lease.ts"

/** Deliveries in one script call. */
const deliveriesPerCall = 1_000

/** The pause before the next call, where another member has read messages and not entered them, and the number of such pauses. */
const pauseMillis = 1
const mostPauses = 3

/** Messages that a script has handed over; see `leave`. */
export type HandedOver = ReadonlyArray<readonly [kind: "l" | "r", position: string, fields?: ReadonlyArray<string>]>

const none: ReadonlyArray<never> = []

export const make = (
  { connection, keys, membership: { consumer, group, isTaking, leaseMillis } }: MemberContext,
  reader: BlockingConnection,
  streams: ReadonlyMap<string, GroupStream>,
  isOrdering: () => boolean
) => {
  const generation = () => connection.generation() + reader.generation()
  let known: Stamp | undefined
  let next: Array<Lease> = []
  let vanished = 0
  /** Leases whose entry is on its way, and those handed over meanwhile. */
  const entering = new Map<Lease, Lease | undefined>()
  let onLost: Effect.Effect<void> = Effect.void

  const learn = (value: string | null, since: number): Stamp | undefined => {
    if (value === null) return undefined
    if (known?.value !== value || known.generation !== since) known = { value, generation: since }
    return known
  }

  /** The stamp to send with deliveries: empty when they are to be looked at. */
  const stampOf = (leases: ReadonlyArray<Lease>): string => {
    const stamp = leases[0]?.stamp
    if (stamp === undefined || stamp.generation !== generation()) return ""
    return leases.every((lease) => lease.stamp === stamp) ? stamp.value : ""
  }

  /** Enters deliveries of one stream, in order; returns those that may run. Without `since` they are claimed or recovered. */
  const enter = Effect.fnUntraced(function*(
    stream: GroupStream,
    leases: ReadonlyArray<Lease>,
    since: Stamp | undefined,
    isInterval: boolean
  ): Effect.fn.Return<ReadonlyArray<Lease>, RedisError> {
    const keyed = leases.filter((lease) => lease.orderingKey !== undefined && !lease.isHead)
    if (keyed.length > 0) stream.isGated = true
    const gate = [
      stream.key,
      ...gateKeys(keys, group, stream.channel),
      keys.taken(group)
    ]
    let first = isInterval ? leases[0]!.position : ""
    const last = leases.at(-1)!.position
    let stamp: Stamp | undefined
    let pauses = 0
    while (true) {
      const from = generation()
      const before = since !== undefined && since.generation === from ? since.value : ""
      const [value, outcome, waiting = none, gone = none] = (yield* connection.evaluate(
        enterScript,
        gate,
        [
          group,
          consumer,
          trialKind(stream),
          before,
          before === "" ? "" : first,
          last,
          pauses >= mostPauses ? 1 : 0,
          keyed.length,
          ...keyed.map(({ position }) => position),
          ...keyed.map(({ orderingKey }) => orderingKey!)
        ]
      )) as readonly [string, number, ReadonlyArray<number>?, ReadonlyArray<number>?]
      if (outcome === 1) {
        pauses++
        yield* Effect.sleep(pauseMillis)
      } else if (outcome === 2) {
        // A part is entered: what was read joins on to nothing that this call knows.
        first = ""
      } else {
        stamp = learn(value, from)
        // Those without an ordering key were not looked at: they are surely held while nothing was taken over since before the read.
        for (const lease of before === value ? leases : keyed) lease.stamp = stamp
        if (waiting.length === 0 && gone.length === 0) return leases
        const others = new Set([...waiting, ...gone].map((index) => keyed[index - 1]!))
        return leases.filter((lease) => !others.has(lease))
      }
    }
  })

  /**
   * Enters deliveries that were handed out, which are recorded as held; returns those that may run. The others are not held any more. If it
   * fails, none is held, and they are found again as lost.
   */
  const admit = (
    stream: GroupStream,
    leases: ReadonlyArray<Lease>,
    since?: Stamp,
    isInterval = false
  ): Effect.Effect<ReadonlyArray<Lease>, RedisError> => {
    if (!isOrdering() || leases.length === 0) return Effect.succeed(leases)
    const isNeeded = isInterval && stream.isGated && !stream.isRetry
      || leases.some((lease) => lease.orderingKey !== undefined && !lease.isHead)
    if (!isNeeded) {
      if (since !== undefined) { for (const lease of leases) lease.stamp = since }
      return Effect.succeed(leases)
    }
    for (const lease of leases) entering.set(lease, undefined)
    const chunks = chunked(leases, deliveriesPerCall)
    return Effect.forEach(chunks, (chunk) => enter(stream, chunk, since, isInterval)).pipe(
      Effect.map((admitted) => {
        const mine = new Set(admitted.flat())
        const out: Array<Lease> = []
        for (const lease of leases) {
          // A settlement of this member has handed it over meanwhile.
          const handed = entering.get(lease)
          entering.delete(lease)
          if (handed !== undefined) {
            stream.held.set(handed.position, handed)
            out.push(handed)
          } else if (mine.has(lease)) out.push(lease)
          else if (stream.held.get(lease.position) === lease) stream.held.delete(lease.position)
        }
        return out
      }),
      Effect.onError(() =>
        Effect.sync(() => {
          for (const lease of leases) entering.delete(lease)
          forget(leases)
        })
      )
    )
  }

  /** Enters what a read has brought, of one stream or of several; returns what may run. */
  const admitRead = (leases: ReadonlyArray<Lease>, since: Stamp | undefined) => {
    const { stream } = leases[0]!
    if (leases.every((lease) => lease.stream === stream)) return admit(stream, leases, since, true)
    return Effect.forEach(
      Map.groupBy(leases, (lease) => lease.stream),
      ([each, some]) => admit(each, some, since, true),
      { concurrency: "unbounded" }
    ).pipe(
      Effect.map((admitted) => admitted.flat()),
      Effect.onError(() => Effect.sync(() => forget(leases)))
    )
  }

  /** Takes what a settlement has handed over, as held since `from`. What is held already is not taken again. */
  const handOver = Effect.fnUntraced(function*(
    channel: string,
    messages: HandedOver,
    gone: number,
    from: number,
    stamp?: Stamp
  ): Effect.fn.Return<ReadonlyArray<Lease>> {
    vanished += gone
    if (messages.length === 0) return none
    const out: Array<Lease> = []
    let isComplete = true
    for (const [kind, position, fields] of messages) {
      const stream = streams.get(kind === "r" ? keys.retry(group, channel) : keys.log(channel))
      if (stream === undefined || fields === undefined) {
        isComplete = false
        continue
      }
      const held = stream.held.get(position)
      if (held !== undefined && !entering.has(held)) continue
      stream.held.delete(position)
      const [lease] = take(stream, [[position, fields]], undefined, from, leaseMillis)
      if (lease === undefined) continue
      lease.stamp = stamp
      if (held === undefined) {
        out.push(lease)
      } else {
        stream.held.set(position, held)
        entering.set(held, lease)
      }
    }
    if (!isComplete) yield* onLost
    if (isAnyExpiring(out)) {
      const isDated = yield* Effect.isSuccess(setExpiry(connection, out))
      if (!isDated) {
        forget(out)
        yield* onLost
        return none
      }
    }
    if (isTaking?.() !== true) return out
    next.push(...out)
    return none
  })

  return {
    isOrdering,

    /** Whether the end of any of these frees an ordering key. */
    counts: (leases: ReadonlyArray<Lease>): boolean =>
      isOrdering() && leases.some(({ orderingKey }) => orderingKey !== undefined),

    /** After a lost answer to a settlement, what it has handed over is pending for this member and not held. */
    orLost: <A>(settlement: Effect.Effect<A, RedisError>) =>
      Effect.tapError(settlement, ({ reason }) => reason === "ConnectionLost" && isOrdering() ? onLost : Effect.void),

    admit,
    admitRead: (leases: ReadonlyArray<Lease>, since: Stamp | undefined) =>
      Effect.onError(admitRead(leases, since), () => onLost),
    handOver,
    stampOf,
    learn,
    generation,

    /** The stamp as it is known now; asked before a read. */
    known: () => known,

    /** The keys of the gate of a channel, as the scripts that free ordering keys take them. */
    keysOf: (channel: string) =>
      [
        keys.log(channel),
        keys.retry(group, channel),
        keys.busy(group, channel),
        keys.lines(group, channel),
        keys.behind(group, channel)
      ] as const,

    /** Returns what was handed over since the last call. */
    takeNext: (): ReadonlyArray<Lease> => {
      if (next.length === 0) return none
      const out = next
      next = []
      return out
    },

    /** Returns the number of messages that waited and were gone when it was their turn, since the last call. */
    takeVanished: (): number => {
      const out = vanished
      vanished = 0
      return out
    },

    /** Runs when messages may be pending for this member that it does not hold. */
    onLost: (effect: Effect.Effect<void>) => {
      onLost = effect
    },
    lost: Effect.suspend(() => onLost)
  }
}

export type Gate = ReturnType<typeof make>
