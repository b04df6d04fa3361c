/** The loops of a consumer: of each shard they read, claim, renew, settle, and begin by keys; of all shards they look after what waits. */
import type { Scope } from "effect"
import { Effect } from "effect"
import type { BrokerError, GroupRemoved } from "../Broker.ts"
import { supervise, superviseLoop } from "../internal/supervise.ts"
import type { Background, ConsumerEnd } from "./consumerEnd.ts"
import type { Dispatch } from "./dispatch.ts"
import type { ShardConsumer } from "./heldDelivery.ts"
import type { Intake } from "./intake.ts"

export const start = Effect.fnUntraced(function*<R>({ dispatch, end, intake, label, own, shards, ...bodies }: {
  readonly dispatch: Dispatch<R>
  readonly end: ConsumerEnd
  readonly intake: Intake
  readonly label: string
  /** The loops end with this scope. */
  readonly own: Scope.Scope
  readonly shards: ReadonlyArray<ShardConsumer>
  readonly renew: (shard: ShardConsumer) => Effect.Effect<void, BrokerError>
  readonly settlements: { readonly send: (shard: ShardConsumer) => Effect.Effect<void, BrokerError> }
  /** Follows the pauses of the group. */
  readonly follow: (shard: ShardConsumer) => Effect.Effect<void, BrokerError | GroupRemoved>
  /** Counts dead letters, if too many pause the group. */
  readonly watchStorm: Effect.Effect<void, BrokerError> | undefined
  readonly watchWaiting: Effect.Effect<void, BrokerError>
}): Effect.fn.Return<ReadonlyArray<Background>, never, R> {
  const loop = <R>(name: string, body: Effect.Effect<void, BrokerError, R>) =>
    Effect.forkIn(supervise(`${name} for ${label}`, body), own)
  for (const { member } of shards) yield* Effect.forkIn(end.whileGroup(member.awaitRemoval), own)
  yield* loop("beginning again", dispatch.beginSuspects)
  yield* loop("looking after what waits", bodies.watchWaiting)
  if (bodies.watchStorm !== undefined) yield* loop("counting dead letters", bodies.watchStorm)
  for (const shard of shards) yield* loop("following pauses", end.whileGroup(bodies.follow(shard)))
  if (dispatch.beginBatches !== undefined) yield* loop("beginning batches", dispatch.beginBatches)
  return yield* Effect.forEach(shards, (shard) =>
    Effect.gen(function*() {
      const reader = yield* Effect.forkIn(
        superviseLoop(`reading for ${label}`, (passed) => end.whileGroup(intake.read(shard, passed)), shard.heartbeat),
        own
      )
      const claimer = yield* loop(
        "claiming",
        Effect.flatMap(
          end.whileGroup(intake.claim(shard)),
          (millis) => millis === undefined ? shard.member.awaitLease : Effect.sleep(millis)
        )
      )
      const rest = [
        yield* loop("renewing", bodies.renew(shard)),
        yield* loop("settling", bodies.settlements.send(shard))
      ]
      const beginOnce = dispatch.beginOnce(shard)
      if (beginOnce !== undefined) rest.push(yield* loop("beginning", beginOnce))
      return { shard, reader, claimer, rest }
    }))
})
