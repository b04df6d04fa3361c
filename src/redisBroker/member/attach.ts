/**
 * Attaching a group to streams: creates the consumer group on each stream where it is missing.
 *
 * A group that was on a stream before goes on at its stored floor. The position where a new one starts is that of its start option.
 */
import { Effect } from "effect"
import { lastOf } from "../../broker/position.ts"
import type { RedisError } from "../../Redis.ts"
import type { Attachment, Removals } from "../attachment.ts"
import { callOf, ofLog, ofRetryStream } from "../attachment.ts"
import { chunked } from "../batches.ts"
import { registrationsOf } from "../keys.ts"
import { attachGroup } from "../scripts/member/attachGroup.ts"
import type { MemberContext } from "./context.ts"

/** Streams in one script call. */
export const streamsPerCall = 100

export interface Attached {
  /** The streams on which the group was created. */
  readonly created: ReadonlyArray<string>
  /** The keys that are not streams: nothing was done there. */
  readonly wrong: ReadonlyArray<string>
}

const none: Attached = { created: [], wrong: [] }

/** The sum of several steps; `undefined` if the group was removed before one of them. */
export const together = (steps: ReadonlyArray<Attached | undefined>): Attached | undefined =>
  steps.every((step) => step !== undefined)
    ? { created: steps.flatMap(({ created }) => created), wrong: steps.flatMap(({ wrong }) => wrong) }
    : undefined

/** Every operation gives `undefined` when the group was removed since `removals` was read. */
export const make = (
  { connection, keys, membership: { group, start } }: MemberContext,
  patterns: ReadonlyArray<string>
) => {
  /** Where a new group starts on a log; see the script. */
  const startPosition = (): string => {
    switch (start._tag) {
      case "Earliest":
        return "settled"
      case "Latest":
        return "$"
      case "Position":
        return start.position
      case "Time":
        return start.atMillis <= 0 ? "0" : lastOf(Math.ceil(start.atMillis) - 1)
    }
  }

  const attach = (
    streams: ReadonlyArray<Attachment>,
    position: string,
    removals: Removals
  ): Effect.Effect<Attached | undefined, RedisError> =>
    Effect.map(
      Effect.forEach(chunked(streams, streamsPerCall), (chunk) =>
        Effect.map(
          connection.evaluate(attachGroup, ...callOf(keys, group, position, removals, chunk)),
          (reply): Attached | undefined => {
            if (reply === null) return undefined
            const [created = [], wrong = []] = (reply as ReadonlyArray<ReadonlyArray<number>>).map((indexes) =>
              indexes.map((index) => chunk[index - 1]!.keys[0]!)
            )
            return { created, wrong }
          }
        )),
      together
    )

  const logs = (channels: ReadonlyArray<string>, removals: Removals) =>
    attach(channels.map((channel) => ofLog(keys, group, channel)), "0", removals)

  return {
    /** Attaches the group to logs, from the beginning where it has no floor. */
    logs,

    /** Attaches the group to retry streams, which it always reads from the beginning. */
    retryStreams: (channels: ReadonlyArray<string>, removals: Removals) =>
      attach(channels.map((channel) => ofRetryStream(keys, group, channel)), "0", removals),

    /** Attaches the group to logs by its start option. */
    logsAtStart: Effect.fnUntraced(function*(
      channels: ReadonlyArray<string>,
      removals: Removals
    ): Effect.fn.Return<Attached | undefined, RedisError> {
      if (channels.length === 0) return none
      const registered = registrationsOf(yield* connection.send(["hkeys", keys.groups], { idempotent: true }))
      const others = registered.filter((one) => one.group !== group)
      // Another registration of the group keeps its place on the channels it reaches: the group is not new there.
      const earlier = registered.filter((one) => one.group === group && !patterns.includes(one.pattern))
      const isKept = (channel: string) => earlier.some(({ reads }) => reads(channel))
      return together([
        yield* logs(channels.filter(isKept), removals),
        yield* attach(
          channels.filter((channel) => !isKept(channel)).map((channel) =>
            ofLog(keys, group, channel, others.filter(({ reads }) => reads(channel)).map(({ group }) => group))
          ),
          startPosition(),
          removals
        )
      ])
    })
  }
}
