/**
 * Groups across all processes: pause and resume them, list them, remove them.
 *
 * A pause of this module is durable and of the whole group. It is another thing than the pause of a subscription (`subscription.pause`), which is of
 * one process and ends with it. Both hold together: a consumer takes messages when neither is there.
 *
 * @since 0.1.0
 */
import type { DateTime } from "effect"
import { Context, Effect, Layer, Result, Schema } from "effect"
import type { BrokerError, GroupMember, GroupState, Pause, Selector } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import type { GroupSum } from "./Stats.ts"
import { ofGroup } from "./Stats.ts"
import * as Given from "./internal/optionChecks.ts"
import { patternsOf } from "./internal/pattern.ts"
import { covering, everything } from "./internal/pauses.ts"
import { lastMillis } from "./internal/times.ts"
import { uniqueName } from "./internal/uniqueName.ts"

export type { GroupMember, Pause } from "./Broker.ts"

/**
 * Some of the channels of a group: a channel, a pattern or a union, or a name or pattern as a text.
 *
 * @category models
 * @since 0.1.0
 */
export type Selection = Channel.Source | string

/**
 * Options of `pause`.
 *
 * @category models
 * @since 0.1.0
 */
export interface PauseOptions {
  /** Why it is paused. It is in the log of every process, in `Health`, `Stats` and `list`. At most 1,024 bytes. */
  readonly reason: string
  /** Who asked for it. At most 256 bytes. */
  readonly by?: string | undefined
  /** The channels that are paused. Default: all that the group reads, now and in future. */
  readonly selector?: Selection | undefined
  /** When the pause ends by itself, by the clock of the backend. Default: it ends with `resume`. */
  readonly until?: DateTime.DateTime.Input | undefined
}

/**
 * Options of `resume` and `isQuiet`.
 *
 * @category models
 * @since 0.1.0
 */
export interface SelectOptions {
  readonly selector?: Selection | undefined
}

/**
 * A group, over all channels and processes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Group extends Omit<GroupSum, "published"> {
  /** The names and patterns for which it is registered; empty for one that nobody has registered. */
  readonly sources: ReadonlyArray<string>
  /** Its consumers that were heard of. Empty if it has none: then its messages wait. */
  readonly members: ReadonlyArray<GroupMember>
  /** Whether it is paused on all that it reads. */
  readonly isPaused: boolean
}

/**
 * An option cannot be used. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidGroupOption extends Schema.TaggedError<InvalidGroupOption>()("InvalidGroupOption", {
  option: Schema.String,
  message: Schema.String
}) {}

/**
 * The service behind the functions of this module.
 *
 * @category services
 * @since 0.1.0
 */
export class Groups extends Context.Service<Groups, {
  readonly pause: (group: string, options: PauseOptions) => Effect.Effect<void, InvalidGroupOption | BrokerError>
  readonly resume: (
    group: string,
    options?: SelectOptions
  ) => Effect.Effect<ReadonlyArray<Pause>, InvalidGroupOption | BrokerError>
  readonly isQuiet: (group: string, options?: SelectOptions) => Effect.Effect<boolean, InvalidGroupOption | BrokerError>
  readonly list: Effect.Effect<ReadonlyArray<Group>, BrokerError>
  readonly remove: (
    group: string,
    source?: Selection
  ) => Effect.Effect<ReadonlyArray<string>, InvalidGroupOption | BrokerError>
}>()("rotif/Groups") {}

const pauseNames: ReadonlySet<string> = new Set<keyof PauseOptions>(["reason", "by", "selector", "until"])
const selectNames: ReadonlySet<string> = new Set<keyof SelectOptions>(["selector"])

const option = <A>(found: Result.Result<A, Given.Problem>): Effect.Effect<A, InvalidGroupOption> =>
  Effect.fromResult(Result.mapError(found, (problem) => new InvalidGroupOption(problem)))

const anything = { payload: Schema.Unknown }

/** A name or a pattern that is registered. */
const selectorOf = (text: string): Selector =>
  text.includes("*") ? { _tag: "Pattern", pattern: text } : { _tag: "Channels", names: [text] }

const selection = (
  name: string,
  value: Selection | undefined
): Effect.Effect<Selector | undefined, InvalidGroupOption> =>
  value === undefined
    ? Effect.succeed(undefined)
    : Channel.isSource(value)
    ? Effect.succeed(Channel.selector(value))
    : option(Given.made(
      name,
      () => typeof value === "string" ? Channel.pattern(value, anything) : undefined,
      (made) =>
        made === undefined
          ? Given.refuse(name, "a channel, a pattern or a union, or the text of a name or a pattern", value)
          : Result.succeed(selectorOf(value as string))
    ))

/** The last pause of each pattern: a pause by a pattern is in every shard. */
const once = (pauses: ReadonlyArray<Pause>) => [...new Map(pauses.map((pause) => [pause.pattern, pause])).values()]

const membersOf = (states: ReadonlyArray<GroupState>): ReadonlyArray<GroupMember> => {
  const members = new Map<string, GroupMember>()
  for (const member of states.flatMap((state) => state.members)) {
    const known = members.get(member.consumer)
    members.set(
      member.consumer,
      known === undefined ? member : {
        consumer: member.consumer,
        patterns: [...new Set([...known.patterns, ...member.patterns])],
        idleMillis: Math.min(known.idleMillis, member.idleMillis),
        isAlive: known.isAlive || member.isAlive,
        // A pause is kept when it is kept in every shard.
        keeps: known.keeps.filter((id) => member.keeps.includes(id))
      }
    )
  }
  return [...members.values()].sort((a, b) => a.consumer < b.consumer ? -1 : 1)
}

const nothing = {
  lag: 0,
  pending: 0,
  ready: 0,
  due: 0,
  dead: 0,
  removed: 0,
  skipped: 0,
  lost: 0,
  oldestMillis: undefined,
  totals: { acked: 0, duplicates: 0, failed: 0, retried: 0, dead: 0, crashed: 0 },
  channels: [],
  pauses: []
} satisfies Partial<Group>

/**
 * Provides the service on a broker. It is part of `Rotif.layer`. Each call makes a layer of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (): Layer.Layer<Groups, never, Broker> =>
  Layer.effect(
    Groups,
    Effect.map(Broker, (broker) => {
      const pause: Groups["Service"]["pause"] = Effect.fnUntraced(function*(group, options) {
        yield* option(Given.name("group", group))
        const given = yield* option(Given.record("the options of pause", options))
        yield* option(Given.known("the options of pause", given, pauseNames))
        const reason = yield* option(Given.key("reason", options.reason, 1024))
        const by = options.by === undefined ? undefined : yield* option(Given.key("by", options.by, 256))
        const selector = yield* selection("selector", options.selector)
        const untilMillis = options.until === undefined ? undefined : yield* option(Given.time("until", options.until))
        const late = (message: string) => new InvalidGroupOption({ option: "until", message })
        if (untilMillis !== undefined && untilMillis > lastMillis) return yield* late("until is after the year 9999")
        const isMade = yield* broker.groups.pause({
          id: uniqueName(),
          group,
          selector: selector ?? selectorOf(everything),
          reason,
          by,
          untilMillis
        })
        if (!isMade) return yield* late("until is over already, by the clock of the backend: nothing is paused")
      })

      const selected = Effect.fnUntraced(function*(group: string, what: string, options: SelectOptions | undefined) {
        yield* option(Given.name("group", group))
        yield* option(Given.known(what, options, selectNames))
        return yield* selection("selector", options?.selector)
      })

      /** Whether a group rests on a name or pattern in a shard: it is paused there, and every living member has said that it keeps a pause of it. */
      const rests = ({ members, pauses }: GroupState, pattern: string): boolean => {
        const ids = covering(pauses, pattern).map(({ id }) => id)
        return ids.length > 0 && members.every(({ isAlive, keeps }) => !isAlive || ids.some((id) => keeps.includes(id)))
      }

      const isQuiet: Groups["Service"]["isQuiet"] = Effect.fnUntraced(function*(group, options) {
        const selector = yield* selected(group, "the options of isQuiet", options)
        const states = yield* broker.groups.list(group)
        const isResting = (selector: Selector) =>
          broker.shardsOf(selector).every((shard) => {
            const state = states.find((one) => one.shard === shard)
            return state !== undefined && patternsOf(selector).every((pattern) => rests(state, pattern))
          })
        const wanted = selector === undefined
          ? [...new Set(states.flatMap(({ patterns }) => patterns))].map(selectorOf)
          : patternsOf(selector).map(selectorOf)
        if (!(wanted.length === 0 ? [selectorOf(everything)] : wanted).every(isResting)) return false
        // From here on nothing can be begun: what is handed out now is the last of it.
        return (yield* broker.groups.handedOut(group, selector ?? selectorOf(everything))) === 0
      })

      const list = Effect.gen(function*() {
        const states = Map.groupBy(yield* broker.groups.list(), ({ group }) => group)
        const channels = yield* broker.stats.read(selectorOf(everything))
        const names = new Set([
          ...states.keys(),
          ...channels.flatMap(({ groups }) => groups.map(({ group }) => group))
        ])
        return [...names].sort().map((group): Group => {
          const parts = states.get(group) ?? []
          const sources = [...new Set(parts.flatMap(({ patterns }) => patterns))].sort()
          const pauses = once(parts.flatMap((state) => state.pauses))
          const { published: _, ...sum } = ofGroup(channels, group) ?? { ...nothing, published: 0 }
          return {
            ...sum,
            group,
            sources,
            members: membersOf(parts),
            pauses,
            isPaused: (sources.length === 0 ? [everything] : sources).every((pattern) =>
              covering(pauses, pattern).length > 0
            )
          }
        })
      })

      return {
        pause,
        isQuiet,
        list,
        resume: Effect.fnUntraced(function*(group, options) {
          const selector = yield* selected(group, "the options of resume", options)
          return yield* broker.groups.resume(group, selector)
        }),
        remove: Effect.fnUntraced(function*(group, source) {
          yield* option(Given.name("group", group))
          const selector = yield* selection("source", source)
          const registered = new Set((yield* broker.groups.list(group)).flatMap(({ patterns }) => patterns))
          const wanted = selector === undefined ? [...registered] : patternsOf(selector)
          // Also what is not registered: a removal that was cut off is completed.
          for (const pattern of wanted) yield* broker.removeGroup(group, selectorOf(pattern))
          return wanted.filter((pattern) => registered.has(pattern))
        })
      }
    })
  )

/**
 * Pauses a group in all processes: its consumers stop reading and claiming, also those that start later. The pause is stored: it survives restarts,
 * and ends with `resume` or at `until`.
 *
 * **Details**: handlers that run are finished, and messages that wait for a handler are given back; neither costs an attempt. All consumers that are
 * connected know of it within 100 ms. One that was cut off or frozen learns of it within a lease, before it begins anything after that. Messages go
 * on being stored, and retries and scheduled messages go on becoming ready. A second pause of the same selector replaces the first one. What a
 * killed consumer held stays handed out until the group is resumed.
 *
 * **Errors**: `InvalidGroupOption` for an option that cannot be used, or if `until` is over; `BrokerError` if the backend does not answer. With
 * several shards, a part of them may be paused then; calling again is safe.
 *
 * **Example** (A migration without handlers)
 *
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { Groups } from "rotif"
 *
 * const migrate = (migration: Effect.Effect<void>) =>
 *   Effect.gen(function*() {
 *     yield* Groups.pause("billing", { reason: "migration of the ledger", by: "ops" })
 *     yield* Effect.repeat(Groups.isQuiet("billing"), { until: (isQuiet) => isQuiet, schedule: Schedule.spaced("1 second") })
 *     yield* migration
 *     yield* Groups.resume("billing")
 *   })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const pause = (
  group: string,
  options: PauseOptions
): Effect.Effect<void, InvalidGroupOption | BrokerError, Groups> => Groups.use((groups) => groups.pause(group, options))

/**
 * Ends pauses of a group: the one with this selector, or all of them. Returns those that were in force.
 *
 * **Details**: concurrency, limits and leases hold as before: there is no burst beyond them. Retries that became due while the group was paused are
 * handled now. The count of `pauseWhen` begins anew. A pause with another selector stays, also where both cover a channel.
 *
 * **Errors**: `InvalidGroupOption`; `BrokerError` if the backend does not answer: calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const resume = (
  group: string,
  options?: SelectOptions
): Effect.Effect<ReadonlyArray<Pause>, InvalidGroupOption | BrokerError, Groups> =>
  Groups.use((groups) => groups.resume(group, options))

/**
 * Checks whether a group is paused and nothing of it is being handled, so that what its handlers use can be changed.
 *
 * **Details**: true only if the selection (default: all that the group reads) is paused, every living consumer has said that it keeps the pause, and
 * no message is handed out and not settled. A killed consumer may have left messages that are handed out: they are taken over after `resume`, and
 * until then the group is not quiet; `list` names the consumer.
 *
 * **Errors**: `InvalidGroupOption`; `BrokerError` if the backend does not answer.
 *
 * @category operations
 * @since 0.1.0
 */
export const isQuiet = (
  group: string,
  options?: SelectOptions
): Effect.Effect<boolean, InvalidGroupOption | BrokerError, Groups> =>
  Groups.use((groups) => groups.isQuiet(group, options))

/**
 * Lists all groups of the namespace: what they read, their consumers, their counts and their pauses; also groups that have no consumer.
 *
 * **Errors**: `BrokerError` if the backend does not answer; calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const list: Effect.Effect<ReadonlyArray<Group>, BrokerError, Groups> = Groups.use((groups) => groups.list)

/**
 * Removes a group from a channel or pattern that it is registered for, or from all of them, with all messages that it has not handled. Returns the
 * names and patterns that were registered.
 *
 * **Details**: the source must be what the group was subscribed with. Consumers that still run end with `GroupRemoved` and do not make the group
 * again; the next subscription makes a new one. Dead letters stay. With its last source the pauses of the group end. Other groups see nothing of it.
 *
 * **Errors**: `InvalidGroupOption`; `BrokerError` if the backend does not answer: a part may be removed then, and calling again removes the rest.
 *
 * @category operations
 * @since 0.1.0
 */
export const remove = (
  group: string,
  source?: Selection
): Effect.Effect<ReadonlyArray<string>, InvalidGroupOption | BrokerError, Groups> =>
  Groups.use((groups) => groups.remove(group, source))
