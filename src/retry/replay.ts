/** Replaying: the delay of a schedule after the n-th attempt. */
import { DateTime, Duration, Effect, Pull, Random, Schedule } from "effect"
import { Age, ageSince } from "../internal/messageAge.ts"
import type { Attempt, Verdict } from "./verdict.ts"
import { spanOf } from "./verdict.ts"

const exhausted: Verdict = { _tag: "Exhausted" }

/** The random numbers of `Random.withSeed`. They are seeded when the first one is asked for: that takes about 15 µs, and most schedules ask for none. */
const seeded = (seed: string) => {
  let made: typeof Random.Random.Service | undefined
  const random = () => made ??= Effect.runSync(Random.withSeed(Effect.service(Random.Random), seed))
  return {
    nextIntUnsafe: () => random().nextIntUnsafe(),
    nextDoubleUnsafe: () => random().nextDoubleUnsafe()
  }
}

/**
 * Finds the delay after an attempt: steps the schedule up to it, on a clock that advances by the delays themselves, with random numbers that
 * depend only on the message. So the answer is the same in every process.
 */
export const replay = Effect.fnUntraced(
  function*(
    schedule: Schedule.Schedule<unknown, unknown>,
    { attempt, error, message }: Attempt<unknown>
  ): Effect.fn.Return<Verdict> {
    const step = yield* Schedule.toStep(schedule)
    let now = DateTime.toEpochMillis(message.publishedAt)
    const age = yield* ageSince(now)
    let delay = Duration.zero
    for (let i = 0; i < attempt; i++) {
      const next = yield* Pull.catchDone(step(now, error), () => Effect.undefined).pipe(Effect.provideService(Age, age))
      if (next === undefined) return exhausted
      delay = next[1]
      now += Duration.toMillis(delay)
    }
    return { _tag: "Retry", delay: spanOf("the delay of the schedule", delay), isScheduled: true }
  },
  (effect, _, { message }) => Effect.provideService(effect, Random.Random, seeded(`${message.channel}\n${message.id}`))
)
