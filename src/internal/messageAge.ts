/** The age of a message, by the clock of its publish: the clock of a process may be wrong, and must not end the retries of a message. */
import { Clock, Context, Effect } from "effect"
import type { BrokerError } from "../Broker.ts"

/** The time by the clock of the backend. A subscription provides it; the default is the clock of the process. */
export class BackendNow extends Context.Reference<Effect.Effect<number, BrokerError>>("rotif/internal/BackendNow", {
  defaultValue: () => Clock.currentTimeMillis
}) {}

/** The age of the message that a policy decides about. It is read at most once for each decision, and only by a policy that uses it. */
export class Age extends Context.Reference<Effect.Effect<number>>("rotif/internal/Age", {
  defaultValue: () => Effect.succeed(0)
}) {}

/** Reads the age at most once. A backend that does not answer ends no retries: the next failure asks again. */
export const ageSince = (publishedAtMillis: number): Effect.Effect<Effect.Effect<number>> =>
  Effect.cached(
    Effect.flatMap(BackendNow, (now) => now).pipe(
      Effect.map((now) => now - publishedAtMillis),
      Effect.catch(() => Effect.succeed(-Infinity))
    )
  )
