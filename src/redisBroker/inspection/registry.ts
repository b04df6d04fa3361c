/** Checks of channels and groups: the registry, the streams that exist, and the position of each group. */
import { Effect, Result } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Command } from "../../Redis.ts"
import type { Page, Suspect } from "../../broker/inspection.ts"
import { callOf, ofLog } from "../attachment.ts"
import { isHigher } from "../../broker/position.ts"
import type { Registration } from "../keys.ts"
import { registrationOf, registrationsOf } from "../keys.ts"
import { groupsIn } from "../replies.ts"
import { brokenChannel as brokenChannelScript } from "../scripts/checks/brokenChannel.ts"
import { pauseIn } from "../pauses.ts"
import { brokenFloor } from "../scripts/checks/brokenFloor.ts"
import { brokenPause } from "../scripts/checks/brokenPause.ts"
import { attachGroup } from "../scripts/member/attachGroup.ts"
import { createChannel as channelScript } from "../scripts/publish/createChannel.ts"
import type { Checks } from "./check.ts"
import type { GroupChannel } from "./deliveries.ts"

export interface Registry {
  /** The channels, with their limits as they are stored. */
  readonly channels: ReadonlyMap<string, string>
  readonly registrations: ReadonlyArray<Registration>
  readonly groups: ReadonlySet<string>
}

export const read = ({ ask, keys }: Checks): Effect.Effect<Registry, BrokerError> =>
  Effect.map(ask([["hgetall", keys.channels], ["hkeys", keys.groups]]), ([limits, fields]) => {
    const registrations = registrationsOf(fields)
    return {
      channels: new Map(Object.entries((limits ?? {}) as Record<string, string>)),
      registrations,
      groups: new Set(registrations.map(({ group }) => group))
    }
  })

/** The limits of a channel as they are stored; `undefined` if they cannot be read. */
export const limitsIn = (text: string): Record<string, unknown> | undefined => {
  const parsed = Result.try(() => (text === "" ? {} : JSON.parse(text)) as Record<string, unknown> | null)
  const value = Result.getOrElse(parsed, () => null)
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined
}

/** The suspect of a channel that has a log and no registration, or a registration and no log. */
export const brokenChannel = ({ keys, run, suspect }: Checks, channel: string, missing: "log" | "name"): Suspect => {
  const names = [keys.meta, keys.channels, keys.log(channel)]
  return suspect(
    missing === "name"
      ? {
        kind: "UnregisteredChannel",
        key: keys.log(channel),
        channel,
        message: "the channel has messages, and nobody knows of it: it is neither read nor trimmed",
        repair: "registers it; its limits come back with the next program that publishes"
      }
      : {
        kind: "MissingLog",
        key: keys.log(channel),
        channel,
        message: "the log of the channel is gone, with what was in it",
        repair: "creates it, without messages"
      },
    brokenChannelScript,
    names,
    [channel, missing === "name" ? "log" : "name", ""],
    run(channelScript, names, [channel, "", keys.events])
  )
}

/** Finds entries of the registry that cannot be read. */
export const entries = (checks: Checks, { channels }: Registry): Effect.Effect<Page, BrokerError> => {
  const { ask, keys, report, suspect } = checks
  return Effect.map(ask([["hkeys", keys.groups], ["hgetall", keys.paused]]), ([fields, paused]) => {
    const pauses = Object.entries((paused ?? {}) as Readonly<Record<string, string>>)
    const strange = ((fields ?? []) as ReadonlyArray<string>).filter((field) => registrationOf(field) === undefined)
    return {
      suspects: [
        ...[...channels].filter(([, limits]) => limitsIn(limits) === undefined).map(([channel, limits]) =>
          suspect(
            {
              kind: "Unreadable",
              key: keys.channels,
              channel,
              message: "the limits of the channel cannot be read: nothing is trimmed in its shard",
              repair: "removes them; they come back with the next program that publishes"
            },
            brokenChannelScript,
            [keys.meta, keys.channels, keys.log(channel)],
            [channel, "limits", limits]
          )
        ),
        ...pauses.filter(([field, value]) => pauseIn(field, value) === undefined).map(([field, value]) =>
          suspect(
            {
              kind: "Unreadable",
              key: keys.paused,
              id: field,
              message: "this entry does not describe a pause: another program wrote it, and consumers ignore it",
              repair: "removes it"
            },
            brokenPause,
            [keys.paused],
            [field, value]
          )
        ),
        ...strange.map((field) =>
          report({
            kind: "Unreadable",
            key: keys.groups,
            id: field,
            message: "the entry names no group and channel: another program wrote it, and it can be removed"
          }, Effect.map(ask([["hexists", keys.groups, field]]), ([there]) => there === 1))
        )
      ]
    }
  })
}

/** The suspect of a group that exists and that no program has registered. */
export const unregistered = (
  { ask, keys, report }: Checks,
  key: string,
  group: string,
  channel: string | undefined,
  isThere: Effect.Effect<boolean, BrokerError>
): Suspect =>
  report(
    {
      kind: "UnregisteredGroup",
      key,
      group,
      channel,
      message:
        "the group is not registered for this and keeps messages all the same: subscribe with it, or remove it " +
        "(`unsubscribe({ removeGroup: true })`)"
    },
    // A start attaches a group before it registers it: the group must be found first, and then not be registered.
    Effect.gen(function*() {
      if (!(yield* isThere)) return false
      const [fields] = yield* ask([["hkeys", keys.groups]])
      return !registrationsOf(fields).some((one) =>
        one.group === group && (channel === undefined || one.reads(channel))
      )
    })
  )

/**
 * Finds missing logs, lost and unregistered groups, and wrong floors of some channels. Also returns the groups that have pending
 * deliveries.
 */
export const places = (
  checks: Checks,
  { registrations }: Registry,
  channels: ReadonlyArray<string>
): Effect.Effect<readonly [page: Page, sources: ReadonlyArray<GroupChannel>], BrokerError> =>
  Effect.gen(function*() {
    const { ask, keys, run, suspect } = checks
    const replies = yield* ask(channels.flatMap((channel): ReadonlyArray<Command> => [
      ["exists", keys.log(channel)],
      ["xinfo", "GROUPS", keys.log(channel)]
    ]))
    const suspects: Array<Suspect> = []
    const sources: Array<GroupChannel> = []
    const pairs: Array<readonly [group: string, channel: string, at: string | undefined]> = []
    for (const [i, channel] of channels.entries()) {
      if (replies[2 * i] === 0) suspects.push(brokenChannel(checks, channel, "log"))
      const key = keys.log(channel)
      const present = groupsIn(replies[2 * i + 1])
      const expected = new Set(registrations.filter(({ reads }) => reads(channel)).map(({ group }) => group))
      for (const [group, { at, pending }] of present) {
        pairs.push([group, channel, at])
        if (pending > 0) sources.push({ key, group, channel, isRetry: false })
        if (expected.delete(group)) continue
        const isThere = Effect.map(ask([["xinfo", "GROUPS", key]]), ([found]) => groupsIn(found).has(group))
        suspects.push(unregistered(checks, key, group, channel, isThere))
      }
      // Without a log, the missing log is the finding.
      if (replies[2 * i] === 1 && Array.isArray(replies[2 * i + 1])) {
        for (const group of expected) pairs.push([group, channel, undefined])
      }
    }
    const floors = yield* ask(pairs.map(([group, channel]): Command => ["hget", keys.floors(group), channel]))
    const lowest = yield* ask(pairs.map(([group, channel]): Command => ["xpending", keys.log(channel), group]))
    for (const [i, [group, channel, at]] of pairs.entries()) {
      const floor = floors[i]
      if (typeof floor !== "string") continue
      const names = [keys.log(channel), keys.floors(group)]
      const first = (lowest[i] as ReadonlyArray<unknown> | undefined)?.[1]
      if (at === undefined) {
        suspects.push(suspect(
          {
            kind: "LostGroup",
            key: keys.log(channel),
            group,
            channel,
            message: "the group was there, and is gone from the log: it gets nothing",
            repair: "creates it where it had acknowledged everything; what was handed out comes again"
          },
          brokenFloor,
          names,
          ["lost", group, channel],
          run(attachGroup, ...callOf(keys, group, "0", [], [ofLog(keys, group, channel)]))
        ))
      } else if (isHigher(floor, at) || (typeof first === "string" && !isHigher(first, floor))) {
        suspects.push(suspect(
          {
            kind: "FloorBeyondCursor",
            key: keys.floors(group),
            group,
            channel,
            message:
              `the floor ${floor} is beyond what the group has acknowledged: if the group were lost, it would lose messages`,
            repair: "sets the floor to where the group is"
          },
          brokenFloor,
          names,
          ["beyond", group, channel]
        ))
      }
    }
    return [{ looked: { channels: channels.length, groups: pairs.length }, suspects }, sources] as const
  })
