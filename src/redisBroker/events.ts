/**
 * Events of a shard: Pub/Sub messages by which scripts tell all processes of a change, and the fibers that each event wakes.
 *
 * An event is its name, and its parts behind line feeds. A lost event costs time and nothing else: a waiter looks by itself now
 * and then, and after a gap in the connection everyone is woken.
 */
import { Effect } from "effect"
import { Signal } from "../internal/wake.ts"
import type { Redis } from "../Redis.ts"
import type { Shards } from "./shards.ts"

/** The events that members of a shard are told of. */
export const memberEvents = [
  /** A channel was registered. Part: channel. */
  "channel",
  /** A group has a new retry stream. Parts: group, channel. */
  "retry",
  /** A group was removed, from some of its channels at least. Part: group. */
  "removed"
] as const

/** The events that wake the duties of a shard. They have no parts. */
export const signalEvents = [
  /** A message waits for an earlier time than all others. */
  "due",
  /** A recurring message has changed. */
  "tick",
  /** A dead letter may be offered. */
  "letter",
  /** The outbox has a message. */
  "outbox"
] as const

/** A member, as far as events concern it. */
export interface Listener {
  /** A stream may have appeared that this member has to read. */
  readonly notify: (channel: string, group: string | undefined) => void
  readonly notifyRemoved: (group: string) => void
  /** Events may have been missed. */
  readonly notifyGap: () => void
}

export const listen = Effect.fnUntraced(function*({ all, fail }: Shards, redis: Redis["Service"]) {
  const listeners = all.map(() => new Set<Listener>())
  const signalsOfAll = () => all.map(() => new Signal())
  const signals = { due: signalsOfAll(), tick: signalsOfAll(), letter: signalsOfAll(), outbox: signalsOfAll() }
  const shardByEvents = new Map(all.map((keys) => [keys.events, keys.shard]))

  yield* redis.listen([...shardByEvents.keys()], {
    onMessage: (events, message) => {
      const shard = shardByEvents.get(events)
      if (shard === undefined) return
      const [event, first = "", second] = message.split("\n")
      switch (event as (typeof memberEvents | typeof signalEvents)[number]) {
        case "channel":
          for (const listener of listeners[shard]!) listener.notify(first, undefined)
          return
        case "retry":
          if (second !== undefined) { for (const listener of listeners[shard]!) listener.notify(second, first) }
          return
        case "removed":
          for (const listener of listeners[shard]!) listener.notifyRemoved(first)
          return
        case "due":
        case "tick":
        case "letter":
        case "outbox":
          return signals[event as (typeof signalEvents)[number]][shard]!.wake()
      }
    },
    onGap: () => {
      for (const { shard } of all) {
        for (const listener of listeners[shard]!) listener.notifyGap()
        for (const event of signalEvents) signals[event][shard]!.wake()
      }
    }
  }).pipe(Effect.mapError(fail("open")))

  return {
    /** Tells a member of the events of its shard, until the scope closes. */
    subscribe: (shard: number, listener: Listener) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          listeners[shard]!.add(listener)
          // Events between its first look and now did not reach it.
          listener.notifyGap()
        }),
        () => Effect.sync(() => void listeners[shard]!.delete(listener))
      ),
    /** Waits for the next event of this name in a shard. */
    wait: (event: (typeof signalEvents)[number], shard: number): Effect.Effect<void> => signals[event][shard]!.wait()
  }
})
