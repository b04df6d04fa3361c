/** Checks of the account of each group: its totals, and the messages that were removed before the group had handled them. */
import { Effect } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Command } from "../../Redis.ts"
import type { Finding, Page } from "../../broker/inspection.ts"
import type { ChannelStats, GroupStats } from "../../broker/statistics.ts"
import type { Checks } from "./check.ts"
import { groupsIn } from "../replies.ts"
import { limitsIn } from "./registry.ts"

/** Finds statistics that do not add up, and messages that were removed although no limit did it. */
export const accounts = (
  { ask, keys, report }: Checks,
  channels: ReadonlyArray<string>,
  look: (channels: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<ChannelStats>, BrokerError>
): Effect.Effect<Page, BrokerError> => {
  type Problem = Pick<Finding, "kind" | "group" | "channel" | "message">
  const problemOf = (
    { channel, dead, due, group, lost = 0, pending, ready, removed, totals }: GroupStats,
    limits: string
  ): ReadonlyArray<Problem> => {
    const wrong = Object.entries({ pending, ready, due, "dead now": dead, removed, lost, ...totals })
      .filter(([, count]) => count < 0)
    if (wrong.length > 0) {
      const message = `${
        wrong.map(([name, count]) => `${name} is ${count}`).join(", ")
      }: statistics are wrong until the ` +
        "group is removed"
      return [{ kind: "Miscounted", group, channel, message }]
    }
    if (lost <= 0 || Object.keys(limitsIn(limits) ?? {}).length > 0) return []
    const message = `${lost} messages were removed before the group had handled them, and the channel has no limits: ` +
      "another program removed them, or the channel had limits once"
    return [{ kind: "LostMessages", group, channel, message }]
  }
  const problems = (names: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      const stats = yield* look(names)
      const replies = yield* ask(stats.flatMap(({ channel }): ReadonlyArray<Command> => [
        ["hget", keys.channels, channel],
        ["xinfo", "GROUPS", keys.log(channel)]
      ]))
      return stats.flatMap(({ groups }, i) => {
        // A group that is lost begins a new account when it is created again.
        const present = groupsIn(replies[2 * i + 1])
        return groups.flatMap((one) => present.has(one.group) ? problemOf(one, (replies[2 * i] ?? "") as string) : [])
      })
    })
  return Effect.map(problems(channels), (found) => ({
    suspects: found.map((problem) =>
      report(
        { key: keys.counts, ...problem },
        Effect.map(
          problems([problem.channel!]),
          (now) => now.some(({ group, kind }) => group === problem.group && kind === problem.kind)
        )
      )
    )
  }))
}
