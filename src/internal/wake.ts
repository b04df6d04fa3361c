/** Signals between fibers. */
import { Effect } from "effect"

const none: ReadonlyArray<() => void> = []

/** Fibers that wait until something has happened. A wake resumes the fibers that wait at that moment, and no later ones. */
export class Signal {
  private readonly waiters = new Set<() => void>()

  /** Waits for the next wake, unless `isOver` says at once that there is nothing to wait for. */
  wait(isOver?: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (isOver?.() === true) return resume(Effect.void)
      const waiter = () => resume(Effect.void)
      this.waiters.add(waiter)
      return Effect.sync(() => void this.waiters.delete(waiter))
    })
  }

  /** Takes the fibers that wait out of the signal; calling each resumes it. */
  take(): ReadonlyArray<() => void> {
    if (this.waiters.size === 0) return none
    const waiters = [...this.waiters]
    this.waiters.clear()
    return waiters
  }

  wake(): void {
    for (const resume of this.take()) resume()
  }
}
