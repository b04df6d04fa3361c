/**
 * Events of a shard: Pub/Sub messages by which scripts tell all processes of a change, and the fibers that each event wakes.
 *
 * A lost event costs time and nothing else: a waiter looks by itself now
 * and then, and after a gap in the connection everyone is woken.
 */
import { Effect } from "effect"
import { Signal } from "../internal/wake.ts"
import type { Redis } from "../Redis.ts"
import type { SignalEvent } from "./eventNames.ts"
import { memberEvents, signalEvents } from "./eventNames.ts"
import type { Shards } from "./shards.ts"

const signalNames = Object.values(signalEvents)

/** A member, as far as events concern it. */
export interface Listener {
  /** A stream may have appeared that this member has to read. */
  readonly notify: (channel: string, group: string | undefined) => void
  readonly notifyRemoved: (group: string) => void
  readonly notifyPaused: (group: string) => void
  /** Events may have been missed. */
  readonly notifyGap: () => void
}

export const listen = Effect.fnUntraced(function*({ all, fail }: Shards, redis: Redis["Service"]) {
  const listeners = all.map(() => new Set<Listener>())
  const signals = new Map<string, ReadonlyArray<Signal>>(signalNames.map((name) => [name, all.map(() => new Signal())]))
  const shardByEvents = new Map(all.map((keys) => [keys.events, keys.shard]))

  yield* redis.listen([...shardByEvents.keys()], {
    onMessage: (events, message) => {
      const shard = shardByEvents.get(events)
      if (shard === undefined) return
      const [event, first = "", second] = message.split("\n")
      switch (event) {
        case memberEvents.channel:
          for (const listener of listeners[shard]!) listener.notify(first, undefined)
          return
        case memberEvents.retry:
          if (second !== undefined) { for (const listener of listeners[shard]!) listener.notify(second, first) }
          return
        case memberEvents.removed:
          for (const listener of listeners[shard]!) listener.notifyRemoved(first)
          return
        case memberEvents.paused:
          for (const listener of listeners[shard]!) listener.notifyPaused(first)
          return
        default:
          signals.get(event!)?.[shard]!.wake()
      }
    },
    onGap: () => {
      for (const { shard } of all) {
        for (const listener of listeners[shard]!) listener.notifyGap()
        for (const each of signals.values()) each[shard]!.wake()
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
    wait: (event: SignalEvent, shard: number): Effect.Effect<void> => signals.get(signalEvents[event])![shard]!.wait()
  }
})
