/** The deliveries of a member as a Stream of the replies of its reads. */
import { Effect, Stream } from "effect"
import type { Delivery } from "./delivery.ts"
import type { BrokerError, GroupRemoved } from "./error.ts"
import type { Member } from "./member.ts"

/**
 * The room for one read: at most `count` deliveries, waited for at most `blockMillis`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Room {
  readonly count: number
  readonly blockMillis: number
}

/**
 * Makes the Stream of the deliveries of a member: one element for each reply of `read`, with all that came in it.
 *
 * **Details**: it is pulled: before each read `room` says how many deliveries may come, and it may wait until there is room. Nothing is read
 * ahead. An element is empty after a wait without messages, and after `wake`. A message costs nothing here; a reply costs an array.
 *
 * An interruption between a reply and its use strands what is in the reply until its leases expire. So run the Stream uninterruptibly, and
 * let only `room` be interrupted.
 *
 * **Errors**: those of `read` and of `room`; the Stream ends with them.
 *
 * @category constructors
 * @since 0.1.0
 */
export const deliveries = <E, R>(
  member: Pick<Member, "read">,
  room: Effect.Effect<Room, E, R>
): Stream.Stream<ReadonlyArray<Delivery>, BrokerError | GroupRemoved | E, R> =>
  Stream.fromPull(Effect.succeed(
    Effect.flatMap(room, ({ blockMillis, count }) =>
      Effect.map(member.read(count, blockMillis), (reply): [ReadonlyArray<Delivery>] => [reply]))
  ))
