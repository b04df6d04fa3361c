/** What became of every message, for each group, and whether the numbers add up. */
import type { DeadLetter } from "rotif"

export interface Group {
  readonly name: string
  /** The message ids that were published to the channels of this group. */
  readonly published: ReadonlySet<string>
  /** The messages whose handler succeeded; a set, because "at least once" may be twice. */
  readonly handled: Set<string>
  /** The messages it had to try again after a failure. */
  readonly retried: Set<string>
  /** The messages it took over from a consumer that was lost. */
  readonly recovered: Set<string>
}

export const makeGroup = (name: string, published: ReadonlySet<string>): Group => ({
  name,
  published,
  handled: new Set(),
  retried: new Set(),
  recovered: new Set()
})

export interface Row {
  readonly name: string
  readonly published: number
  readonly handled: number
  readonly dead: number
  readonly retried: number
  readonly recovered: number
  /** Whether every published message was either handled or given up, and no other message was. */
  readonly addsUp: boolean
}

export const rowOf = (group: Group, letters: ReadonlyArray<DeadLetter.DeadLetter>): Row => {
  const dead = new Set(letters.filter((letter) => letter.group === group.name).map((letter) => letter.id))
  const settled = new Set([...group.handled, ...dead])
  return {
    name: group.name,
    published: group.published.size,
    handled: group.handled.size,
    dead: dead.size,
    retried: group.retried.size,
    recovered: group.recovered.size,
    addsUp: settled.size === group.handled.size + dead.size
      && settled.size === group.published.size
      && [...settled].every((id) => group.published.has(id))
  }
}

const columns = ["published", "handled", "dead", "retried", "recovered"] as const

/** The closing table. */
export const table = (rows: ReadonlyArray<Row>): ReadonlyArray<string> => [
  `  ${"group".padEnd(10)}${columns.map((column) => column.padStart(11)).join("")}   handled + dead = published`,
  ...rows.map((row) =>
    `  ${row.name.padEnd(10)}${columns.map((column) => String(row[column]).padStart(11)).join("")}   ` +
    `${row.handled} + ${row.dead} ${row.addsUp ? "=" : "≠"} ${row.published}${row.addsUp ? "" : "   DOES NOT ADD UP"}`
  )
]

/** The dead letters of each group, counted by the tag of the failure. */
export const causes = (letters: ReadonlyArray<DeadLetter.DeadLetter>): ReadonlyArray<string> => {
  const counts = new Map<string, number>()
  for (const { failure, group } of letters) {
    const cause = `${group.padEnd(10)} ${failure.errorTag ?? failure.reason}: ${failure.message}`
    counts.set(cause, (counts.get(cause) ?? 0) + 1)
  }
  return [...counts].sort(([a], [b]) => a < b ? -1 : 1).map(([cause, count]) => `  ${cause} (${count})`)
}
