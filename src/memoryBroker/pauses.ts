/** The pauses of groups in memory, and the count of dead letters that may lead to one. */
import type { NewPause, Pause, RecentLetters } from "../Broker.ts"
import { restingOf } from "../internal/pauses.ts"
import { patternsOf } from "../internal/pattern.ts"

export const none: ReadonlyArray<Pause> = []

/** The pauses of one group. */
interface Paused {
  readonly pauses: Map<string, Pause>
  /** The pauses that were in force at the last look, and what they cover. They are made anew only when they change. */
  current: ReadonlyArray<Pause>
  resting: ((channel: string) => boolean) | undefined
}

const isInForce = ({ untilMillis }: Pause, nowMillis: number) => untilMillis === undefined || untilMillis > nowMillis

export class Pauses {
  private readonly byGroup = new Map<string, Paused>()
  /** The names of the last dead letters of each group, and their times. */
  private readonly letters = new Map<string, Map<string, number>>()

  private look(group: string, nowMillis: number): Paused | undefined {
    const paused = this.byGroup.get(group)
    if (paused === undefined) return undefined
    for (const [pattern, pause] of paused.pauses) if (!isInForce(pause, nowMillis)) paused.pauses.delete(pattern)
    if (paused.pauses.size === 0) {
      this.byGroup.delete(group)
      return undefined
    }
    if (
      paused.current.length !== paused.pauses.size ||
      !paused.current.every((one) => paused.pauses.get(one.pattern) === one)
    ) {
      paused.current = [...paused.pauses.values()]
      paused.resting = restingOf(paused.current)
    }
    return paused
  }

  /** The pauses of a group that are in force: the same list as long as they are the same. */
  of(group: string, nowMillis: number): ReadonlyArray<Pause> {
    return this.look(group, nowMillis)?.current ?? none
  }

  /** What of the group is paused; `undefined`: nothing. */
  resting(group: string, nowMillis: number): ((channel: string) => boolean) | undefined {
    return this.look(group, nowMillis)?.resting
  }

  groups(): Iterable<string> {
    return this.byGroup.keys()
  }

  /** Returns false if its time is over. */
  add({ by, group, id, onlyIfNone, reason, selector, untilMillis }: NewPause, nowMillis: number): boolean {
    if (untilMillis !== undefined && untilMillis <= nowMillis) return false
    const paused = this.look(group, nowMillis) ??
      { pauses: new Map<string, Pause>(), current: none, resting: undefined }
    this.byGroup.set(group, paused)
    for (const pattern of patternsOf(selector)) {
      if (onlyIfNone === true && paused.pauses.has(pattern)) continue
      paused.pauses.set(pattern, { id, group, pattern, reason, by, sinceMillis: nowMillis, untilMillis })
    }
    return true
  }

  /** Ends pauses, all without patterns, and returns those that were in force. */
  end(group: string, patterns: ReadonlyArray<string> | undefined, nowMillis: number): ReadonlyArray<Pause> {
    this.letters.delete(group)
    const ended = this.of(group, nowMillis).filter(({ pattern }) => patterns?.includes(pattern) ?? true)
    for (const { pattern } of ended) this.byGroup.get(group)!.pauses.delete(pattern)
    return ended
  }

  countLetters({ group, letters, most, withinMillis }: RecentLetters, nowMillis: number): number {
    const recent = this.letters.get(group) ?? new Map<string, number>()
    this.letters.set(group, recent)
    for (const letter of letters) if (!recent.has(letter)) recent.set(letter, nowMillis)
    for (const [letter, atMillis] of recent) {
      if (atMillis > nowMillis - withinMillis && recent.size <= most) break
      recent.delete(letter)
    }
    return recent.size
  }
}
