/** Checks of the gates of ordering keys: whether each is as the messages of its group and channel say. */
import { Effect } from "effect"
import type { Command } from "../../Redis.ts"
import type { Page, Suspect } from "../../broker/inspection.ts"
import { reading } from "../../internal/pattern.ts"
import { gateKeys } from "../keys.ts"
import { brokenGate } from "../scripts/checks/brokenGate.ts"
import type { Checks } from "./check.ts"
import { chunks } from "./check.ts"
import type { Registry } from "./registry.ts"

/** Gates in one step. */
const gatesPerStep = 100

/** A new head is pending for this consumer, which is nobody: the next claim takes it over. */
const nobody = "~repair"

const words: Readonly<Record<string, string>> = {
  closed: "is closed, and nothing of it may run",
  open: "has a message that may run, and is not closed",
  unlinked: "waits in no line",
  link: "stands in a line, and does not wait"
}

type Reply = readonly [isTold: number, problems?: ReadonlyArray<readonly [name: string, text: string]>]

export const gates = (checks: Checks, { channels, registrations }: Registry) => {
  const { ask, keys, report, run } = checks
  const reads = registrations.map(({ group, pattern }) => ({ group, matches: reading(pattern) }))
  const pairs = [
    ...new Map(
      reads.flatMap(({ group, matches }) =>
        [...channels.keys()].filter(matches).map((channel) => [`${group}\n${channel}`, { group, channel }] as const)
      )
    ).values()
  ]

  const problemsOf = (group: string, channel: string, step: "check" | "repair") =>
    Effect.map(
      run(
        brokenGate,
        [
          keys.log(channel),
          keys.retry(group, channel),
          keys.bodies(group, channel),
          ...gateKeys(keys, group, channel)
        ],
        [step, group, nobody]
      ),
      (reply) => ((reply ?? [0]) as Reply)[1] ?? []
    )

  const suspectOf = Effect.fnUntraced(function*(group: string, channel: string) {
    const problems = yield* problemsOf(group, channel, "check")
    if (problems.length === 0) return []
    const [name, text] = problems[0]!
    const isKey = name === "closed" || name === "open"
    const isSo = (step: "check" | "repair") => Effect.map(problemsOf(group, channel, step), (found) => found.length > 0)
    const suspect: Suspect = report(
      {
        kind: "BrokenGate",
        key: isKey ? keys.busy(group, channel) : keys.lines(group, channel),
        group,
        channel,
        id: isKey ? undefined : text.slice(1),
        message: `${isKey ? "an ordering key" : "a message"} ${words[name] ?? name}` +
          (problems.length === 1 ? "" : ` (and ${problems.length - 1} more)`),
        repair: "builds it again from the messages"
      },
      isSo("check"),
      isSo("repair")
    )
    return [suspect]
  })

  return chunks(pairs, gatesPerStep, (some) =>
    Effect.gen(function*() {
      const found = yield* ask(
        some.map(({ channel, group }): Command => ["exists", ...gateKeys(keys, group, channel)])
      )
      const suspects = yield* Effect.forEach(
        some.filter((_, i) => Number(found[i] ?? 0) > 0),
        ({ channel, group }) => suspectOf(group, channel)
      )
      const page: Page = { suspects: suspects.flat() }
      return page
    }))
}
