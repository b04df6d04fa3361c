/**
 * The numbers of the hash `counts`: which letter stands for which, for the scripts that count and for the code that reads.
 *
 * A total of a group on a channel has the field letter, group and channel; the dead letters of a group that are there now have `d`,
 * group, channel and reason. Line feeds stand between the parts.
 */
import type { Failure } from "../Broker.ts"

/** Each total and its letter. */
export const counters = {
  acked: "a",
  /** Those of the acked that were duplicates. */
  duplicates: "u",
  failed: "f",
  retried: "r",
  /** Dead letters there ever were. */
  buried: "b",
  /** Deliveries that were lost with their consumer. */
  crashed: "c",
  /** Dead letters that were deleted, and not requeued. */
  removed: "x",
  /** Deliveries of the retry stream that were settled. */
  settledRetries: "z",
  /** Messages stored before the group began, less those it has from an earlier life. */
  storedBefore: "s"
} as const

export type Counter = keyof typeof counters

/** The totals in the order in which `statistics` replies with them. */
export const reported = [
  "storedBefore",
  "acked",
  "duplicates",
  "failed",
  "retried",
  "buried",
  "crashed",
  "removed"
] as const satisfies ReadonlyArray<Counter>

/** The letter before the numbers of dead letters that are there now. */
export const letterCounter = "d"

/** Why a message became a dead letter: each reason has a number of its own. */
export const reasons: ReadonlyArray<Failure["reason"]> = ["exhausted", "term", "decode", "crashed", "expired"]

/** The field of a total. */
export const counterField = (counter: Counter, group: string, channel: string): string =>
  `${counters[counter]}\n${group}\n${channel}`
