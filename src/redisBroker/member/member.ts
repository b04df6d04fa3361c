/**
 * One consumer of one group in one shard on Redis Streams: what its rooms do together.
 *
 * `sources.ts` knows its streams, `reads.ts` reads them, `claims.ts` takes over expired deliveries and `lostReplies.ts` lost ones,
 * `settlement.ts` ends leases and `renewal.ts` renews them.
 */
import { Clock, Effect } from "effect"
import type { BrokerError, Member, Membership } from "../../Broker.ts"
import type { OrderingConflict } from "../../broker/ordering.ts"
import type { BlockingConnection, RedisError } from "../../Redis.ts"
import { chunked } from "../batches.ts"
import type { Channels } from "../channels.ts"
import type { Listener } from "../events.ts"
import { leaveGroup } from "../scripts/member/leaveGroup.ts"
import type { Shards } from "../shards.ts"
import { streamsPerCall } from "./attach.ts"
import * as Claims from "./claims.ts"
import * as Commit from "./commit.ts"
import type { MemberContext } from "./context.ts"
import * as Gate from "./gate.ts"
import * as SharedSettings from "./groupSettings.ts"
import * as LostReplies from "./lostReplies.ts"
import * as Once from "./once.ts"
import * as Pauses from "./pauses.ts"
import * as Presence from "./presence.ts"
import * as Readiness from "./readiness.ts"
import * as Reads from "./reads.ts"
import * as Renewal from "./renewal.ts"
import * as Settlement from "./settlement.ts"
import type { Selection } from "./sources.ts"
import * as Sources from "./sources.ts"
import * as Takeover from "./takeover.ts"
import * as Trials from "./trials.ts"
import * as Wakeup from "./wakeup.ts"

export interface Options extends Selection {
  readonly membership: Membership
  readonly reader: BlockingConnection
  /** Called with each stream in which a delivery was settled. */
  readonly onSettled: (stream: string) => void
}

export interface RedisMember extends Member, Listener {
  readonly close: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(
  { connectionOf, fail, keysOf, shardOf }: Shards,
  channels: Channels,
  options: Options
): Effect.fn.Return<RedisMember, BrokerError | OrderingConflict> {
  const { matches, membership, onSettled, reader } = options
  const { consumer, group, leaseMillis, shard } = membership
  const connection = connectionOf(shard)
  const clock = yield* Clock.Clock
  const runFork = Effect.runForkWith(yield* Effect.context())
  const monotonic = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)

  const context: MemberContext = { membership, keys: keysOf(shard), connection, monotonic, fail }
  const readiness = Readiness.make(context, reader)
  const sources = Sources.make(context, options, readiness)
  const presence = Presence.make(context, options.patterns)
  const shared = SharedSettings.make(context)
  // It takes over no message of an ordering key either before it knows of the pauses of this time.
  const isTaking = () => membership.isTaking?.() === true && sources.isCurrent()
  const gated: MemberContext = { ...context, membership: { ...membership, isTaking } }
  const gate = Gate.make(gated, reader, sources.streams, () => sources.ordering() === "block")
  const once = Once.make(context, gate)
  const takeover = Takeover.make()
  const { claim, isFreeing } = Claims.make(context, sources, presence, shared, takeover, gate)
  const recover = LostReplies.make(context, sources, takeover, gate)
  const wakeup = Wakeup.make(reader, monotonic)
  const { awaitReady, markLost, read } = Reads.make(context, reader, sources, readiness, wakeup, recover, gate)
  const renew = Renewal.make(context, once)
  const { giveBack, ...settlement } = Settlement.make(context, once, gate, onSettled)

  const failOr = (operation: string) => (error: RedisError) => sources.removed() ?? fail(operation)(error)

  const lookAgain = () => {
    sources.markStale()
    runFork(wakeup.nudge)
  }

  /** Makes a read find what is pending for this member and not held. */
  const recoverSoon = Effect.sync(() => {
    markLost()
    runFork(wakeup.nudge)
  })
  gate.onLost(recoverSoon)

  /** Looks at once, also while the reader rests. */
  const lookNow = () => {
    runFork(Effect.andThen(Effect.ignore(sources.sync(false)), wakeup.nudge))
  }

  // Before the first read: a member that falls silent later has been heard of.
  yield* Effect.mapError(
    Effect.andThen(sources.sync(false), presence.sayAlive(leaseMillis)),
    (error) => sources.conflict() ?? fail("join")(error)
  )

  return {
    read: (count, blockMillis) => Effect.mapError(read(count, blockMillis), failOr("read")),
    awaitReady: (blockMillis) => Effect.mapError(awaitReady(blockMillis), failOr("read")),
    wake: wakeup.wake,
    shared: (names) => Effect.mapError(presence.shared(names), fail("shared")),
    takeNext: gate.takeNext,
    ...settlement,
    // A member that is full claims nothing, and has to know all the same how long its lease is.
    // One that was frozen has to know of a pause before it begins anything again.
    renew: (deliveries) =>
      Effect.andThen(
        Effect.mapError(Effect.andThen(shared.refresh, sources.checkIfDue), fail("renew")),
        renew(deliveries)
      ),
    ...Trials.make(context),
    begin: once.begin,
    commit: Commit.make(context, channels, shardOf, once, gate, giveBack, onSettled),
    claim: (count) =>
      // A removal is not always announced: once in a lease it is checked whether everything is there.
      Effect.andThen(sources.checkIfDue, claim(count)).pipe(
        // Deliveries that a failed claim has taken are pending for this member and not held: a read recovers them.
        Effect.tapError(() => recoverSoon),
        Effect.mapError(failOr("claim"))
      ),
    // A claim always says when the next one is due.
    awaitLease: Effect.never,
    ...Pauses.make(context, sources, wakeup.nudge, failOr),
    awaitRemoval: sources.awaitRemoval,
    awaitJoin: Effect.never,
    notify: (channel, forGroup) => {
      if ((forGroup === undefined || forGroup === group) && matches(channel)) lookAgain()
    },
    notifyRemoved: (name) => {
      if (name === group) lookNow()
    },
    notifyPaused: (name) => {
      if (name === group) lookNow()
    },
    notifyGap: () => {
      lookAgain()
      sources.pauses.changed.wake()
    },
    close: Effect.gen(function*() {
      const all = sources.listed()
      let left = 0
      for (const chunk of chunked(all, streamsPerCall)) {
        left += (yield* connection.evaluate(leaveGroup, chunk, [group, consumer])) as number
      }
      // A member that leaves deliveries or closed ordering keys behind falls silent instead, and others take them over.
      const isClean = left === all.length && !isFreeing()
      if (isClean) yield* presence.leave
      if (isClean && gate.isOrdering()) {
        yield* connection.send(["hdel", context.keys.taken(group), consumer], { idempotent: true })
      }
    }).pipe(
      Effect.tapError((error) => Effect.logDebug(`rotif: the consumer ${consumer} was not removed: ${error.message}`)),
      Effect.ignore
    )
  }
})
