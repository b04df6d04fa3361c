/** Groups as the Promise API shows them; see `docs/groups.md`. */
import { Effect } from "effect"
import * as Core from "../Groups.ts"

/**
 * Options of `pauseGroup`.
 *
 * @category models
 * @since 0.1.0
 */
export interface PauseGroupOptions {
  /** Why it is paused: it is in logs, health and lists. */
  readonly reason: string
  /** Who asked for it. */
  readonly by?: string | undefined
  /** A channel or a pattern: only these channels are paused. Default: all that the group reads. */
  readonly pattern?: string | undefined
  /** When the pause ends by itself, by the clock of Redis: a `Date` or milliseconds since 1970. Default: it ends with `resumeGroup`. */
  readonly until?: Date | number | undefined
}

/**
 * Options of `resumeGroup` and `isGroupQuiet`.
 *
 * @category models
 * @since 0.1.0
 */
export interface SelectGroupOptions {
  /** The channel or the pattern of the pause. Default: all. */
  readonly pattern?: string | undefined
}

/**
 * A pause of a group.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupPause {
  readonly group: string
  /** The channel or pattern that is paused; `**` is everything. */
  readonly pattern: string
  readonly reason: string
  readonly by: string | undefined
  /** In milliseconds since 1970, by the clock of Redis. */
  readonly since: number
  /** When it ends by itself, likewise; `undefined`: with `resumeGroup`. */
  readonly until: number | undefined
}

/**
 * A group, over all channels and processes.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupInfo {
  readonly group: string
  /** The channels and patterns it subscribed to. */
  readonly patterns: ReadonlyArray<string>
  /** The channels among them that exist. */
  readonly channels: ReadonlyArray<string>
  /** Its consumers; empty if it has none. */
  readonly consumers: ReadonlyArray<{ readonly id: string; readonly isAlive: boolean }>
  /** Messages that it has not been given yet; `undefined` if that is not known. */
  readonly lag: number | undefined
  /** Messages that are handed out and not settled. */
  readonly pending: number
  /** Messages that wait for the time of their retry. */
  readonly due: number
  /** Its dead letters. */
  readonly dead: number
  /** Whether all that it reads is paused. */
  readonly isPaused: boolean
  readonly pauses: ReadonlyArray<GroupPause>
}

const pauseOf = ({ by, group, pattern, reason, sinceMillis, untilMillis }: Core.Pause): GroupPause => ({
  group,
  pattern,
  reason,
  by,
  since: sinceMillis,
  until: untilMillis
})

/** The options as the core names them. */
const selecting = <O extends { readonly pattern?: string | undefined }>(options: O) => {
  const { pattern, ...rest } = options
  return pattern === undefined ? rest : { ...rest, selector: pattern }
}

/** @internal */
export const pause = (group: string, options: PauseGroupOptions) => Core.pause(group, selecting(options))

/** @internal */
export const resume = (group: string, options: SelectGroupOptions = {}) =>
  Effect.map(Core.resume(group, selecting(options)), (pauses) => pauses.map(pauseOf))

/** @internal */
export const isQuiet = (group: string, options: SelectGroupOptions = {}) => Core.isQuiet(group, selecting(options))

/** @internal */
export const list = Effect.map(
  Core.list,
  (groups) =>
    groups.map(({ channels, dead, due, group, isPaused, lag, members, pauses, pending, sources }): GroupInfo => ({
      group,
      patterns: sources,
      channels,
      consumers: members.map(({ consumer, isAlive }) => ({ id: consumer, isAlive })),
      lag,
      pending,
      due,
      dead,
      isPaused,
      pauses: pauses.map(pauseOf)
    }))
)

/** @internal */
export const remove = Core.remove
