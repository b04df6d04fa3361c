/** How old a message is, by the clock that said when it was published: a process's own may be wrong, and must not end a message's retries. */
import { Clock, Context, Effect } from "effect"
import type { BrokerError } from "../Broker.ts"

/** The time by the clock of the backend. A subscription gives it; without one the clock of the process is all there is. */
export class BackendNow extends Context.Reference<Effect.Effect<number, BrokerError>>("rotif/internal/BackendNow", {
  defaultValue: () => Clock.currentTimeMillis
}) {}

/** The age of the message a policy decides about, asked once for a decision, and only by a policy that wants it. */
export class Age extends Context.Reference<Effect.Effect<number>>("rotif/internal/Age", {
  defaultValue: () => Effect.succeed(0)
}) {}

/** A backend that does not answer ends nothing: the next failure asks again. */
export const ageSince = (publishedAtMillis: number): Effect.Effect<Effect.Effect<number>> =>
  Effect.cached(
    Effect.flatMap(BackendNow, (now) => now).pipe(
      Effect.map((now) => now - publishedAtMillis),
      Effect.catch(() => Effect.succeed(-Infinity))
    )
  )
