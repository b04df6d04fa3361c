/**
 * Settings that the consumers of a group have to share, and the warnings where they differ. Leases differ most often, while a new version is
 * rolled out.
 */
import { Duration } from "effect"
import type { GroupSettings } from "./member.ts"

/** Writes settings for the consumers of other processes. */
export const encode = ({ doneMillis, leaseMillis, maxCrashes }: GroupSettings): string =>
  [leaseMillis, doneMillis ?? "-", maxCrashes ?? "-"].join(" ")

/** Reads settings; `undefined` when another program wrote them. */
export const decode = (text: string): GroupSettings | undefined => {
  const [, lease, done, crashes] = /^(\d{1,15}(?:\.\d+)?) (\d{1,15}(?:\.\d+)?|-) (\d{1,15}|-)$/.exec(text) ?? []
  const numberOf = (part: string | undefined) => part === undefined || part === "-" ? undefined : Number(part)
  const leaseMillis = numberOf(lease)
  return leaseMillis === undefined
    ? undefined
    : { leaseMillis, doneMillis: numberOf(done), maxCrashes: numberOf(crashes) }
}

const span = (millis: number) => Duration.format(Duration.millis(millis))

/** Describes each setting that differs: its values here and there, and the consequence. */
const differences: ReadonlyArray<(mine: GroupSettings, other: GroupSettings) => string | undefined> = [
  (mine, other) =>
    mine.leaseMillis === other.leaseMillis
      ? undefined
      : `a lease of ${span(mine.leaseMillis)} here and of ${
        span(other.leaseMillis)
      } in another one: what a lost consumer held is taken ` +
        "over after the longer one",
  (mine, other) =>
    mine.doneMillis === other.doneMillis
      ? undefined
      : mine.doneMillis === undefined || other.doneMillis === undefined
      ? `exactlyOnce ${
        mine.doneMillis === undefined ? "in another one and not here" : "here and not in another one"
      }: the one without ` +
        "it neither looks whether a message was handled nor remembers it"
      : `exactlyOnce with a ttl of ${span(mine.doneMillis)} here and of ${
        span(other.doneMillis)
      } in another one: a message is ` +
        "remembered for as long as the one says that handled it",
  (mine, other) =>
    mine.maxCrashes === other.maxCrashes
      ? undefined
      : `maxCrashes ${mine.maxCrashes} here and ${other.maxCrashes} in another one: each gives up by its own`
]

/** Remembers the differences that were reported. */
export const make = (group: string, mine: GroupSettings) => {
  const told = new Set<string>()
  return {
    /** Returns the warnings about the settings of others: each difference once. */
    heard: (others: ReadonlyArray<GroupSettings>): ReadonlyArray<string> =>
      others.flatMap((other) =>
        differences.flatMap((difference) => {
          const words = difference(mine, other)
          if (words === undefined || told.has(words)) return []
          told.add(words)
          return [`rotif: the consumers of group "${group}" have ${words}. Give all of them the same`]
        })
      )
  }
}
