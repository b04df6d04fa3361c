/**
 * Pub/Sub mode in memory: every listener has the message before its publish returns.
 */
import { Effect } from "effect"
import type { BroadcastListener, BroadcastPort } from "../broker/broadcast.ts"
import { matcherOf } from "../internal/pattern.ts"

interface Listener {
  readonly matches: (channel: string) => boolean
  readonly handler: BroadcastListener
}

export const make = (): BroadcastPort => {
  const listeners = new Set<Listener>()
  return {
    publish: (casts) =>
      Effect.sync(() => {
        for (const cast of casts) {
          for (const { handler, matches } of listeners) if (matches(cast.channel)) handler.onMessage(cast)
        }
      }),
    listen: (selector, handler) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.sync(() => {
          const listener: Listener = { matches: matcherOf(selector), handler }
          listeners.add(listener)
          return listener
        }),
        (listener) => Effect.sync(() => listeners.delete(listener))
      ))
  }
}
