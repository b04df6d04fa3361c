/** Shared by the tests of statistics on Redis. */
import { assert } from "@effect/vitest"
import { Effect, References } from "effect"
import { type Channel, Stats } from "rotif"

export const quiet = Effect.provideService(References.MinimumLogLevel, "None")

/** Reads the totals of a group, and asserts that they add up and that no message is lost. */
export const account = (source: Channel.Source, group: string) =>
  Effect.map(Stats.channels(source), (channels) => {
    const found = Stats.ofGroup(channels, group)!
    const { dead, due, lag, pending, published, ready, removed, skipped, totals } = found
    const text = JSON.stringify(found)
    assert.strictEqual(published, skipped! + totals.acked + pending + ready + due + dead + removed + lag!, text)
    assert.strictEqual(found.lost, 0, text)
    return found
  })
