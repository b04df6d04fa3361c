/**
 * Rotif in batches: as many messages in a batch as others handle at a time.
 */
import { Effect, Exit, Scope } from "effect"
import { Subscription } from "../../src/index.ts"
import { Bench, makeOpen } from "./rotif.ts"

export const open = makeOpen(false, {}, 0, ({ concurrency, group, handle }) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const subscription = yield* Subscription.batch(Bench, {
      group: group ?? "g",
      size: concurrency,
      within: 20,
      handler: (messages) => Effect.sync(() => messages.forEach(({ payload }) => handle(payload)))
    }).pipe(Scope.provide(scope))
    return Effect.andThen(subscription.drain, Scope.close(scope, Exit.void))
  }))
