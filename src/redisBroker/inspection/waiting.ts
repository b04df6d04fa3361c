/** Checks of waiting messages: each has a due time and a body, and is waiting only. */
import { Effect } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Command } from "../../Redis.ts"
import type { Suspect } from "../../broker/inspection.ts"
import { isHigher, isPosition } from "../../broker/position.ts"
import { registrationsOf, waitingMember, waitingParts } from "../keys.ts"
import { bodyWithoutTime } from "../scripts/checks/bodyWithoutTime.ts"
import { scanBodies } from "../scripts/checks/scanBodies.ts"
import { timeWithoutBody } from "../scripts/checks/timeWithoutBody.ts"
import { waitingInTwoStates } from "../scripts/checks/waitingInTwoStates.ts"
import { Steps } from "../stepSize.ts"
import type { Checks } from "./check.ts"
import { groupsIn } from "../replies.ts"
import { paged } from "./check.ts"

/** Members in one step, and bodies, about. */
const membersPerStep = 500
const bodiesPerStep = 200

/** Finds times without a body, overdue messages, and retries whose message is still to be handled in the log. */
export const waiting = (
  checks: Checks,
  toleranceMillis: number,
  promote: Effect.Effect<unknown, BrokerError>
) => {
  const { ask, isOverdue, keys, now, report, scan, suspect } = checks
  return scan(
    "zscan",
    keys.waiting,
    membersPerStep,
    Effect.fnUntraced(function*(some) {
      const nowMillis = yield* now
      const members = some.map(([member, score]) => ({ member, score: Number(score), parts: waitingParts(member) }))
      const found = yield* ask(
        members.map(({ parts }): Command =>
          parts === undefined ? ["exists", keys.waiting] : ["hexists", keys.bodies(parts[0], parts[1]), parts[2]]
        )
      )
      const retries = members.flatMap(({ member, parts }) =>
        parts === undefined || parts[0] === "" ? [] : [{ member, parts }]
      )
      const suspects: Array<Suspect> = []
      for (const [i, { member, parts, score }] of members.entries()) {
        const [group, channel, id] = parts ?? []
        const about = { key: keys.waiting, group: group === "" ? undefined : group, channel, id: id ?? member }
        if (parts === undefined || found[i] === 0) {
          suspects.push(suspect(
            {
              ...about,
              kind: "TimeWithoutBody",
              message: parts === undefined
                ? "the name is none of Rotif's: nothing will be delivered"
                : "a message waits for its time and is not there: nothing will be delivered",
              repair: "removes the name"
            },
            timeWithoutBody,
            [keys.waiting, parts === undefined ? keys.waiting : keys.bodies(parts[0], parts[1])],
            [member, id ?? ""]
          ))
        } else if (score <= nowMillis - toleranceMillis) {
          const isLate = isOverdue(keys.waiting, member, toleranceMillis)
          suspects.push(report(
            {
              ...about,
              kind: "Overdue",
              message:
                `it was due ${Math.round((nowMillis - score) / 1000)} seconds ago and nobody has moved it: does any ` +
                `process run with \`delayed\`?`,
              repair: "moves what is due, as every process does"
            },
            isLate,
            Effect.andThen(promote, Effect.map(isLate, (late) => !late))
          ))
        }
      }
      // The id of a message that waits for a retry is its position in the log.
      const positioned = retries.filter(({ parts: [, , id] }) => isPosition(id))
      const channels = [...new Set(positioned.map(({ parts: [, channel] }) => channel))]
      const infos = yield* ask(channels.map((channel): Command => ["xinfo", "GROUPS", keys.log(channel)]))
      const groups = new Map(channels.map((channel, i) => [channel, groupsIn(infos[i])]))
      const leases = yield* ask(
        positioned.map(({ parts: [group, channel, id] }): Command => ["xpending", keys.log(channel), group, id, id, 1])
      )
      for (const [i, { member, parts: [group, channel, id] }] of positioned.entries()) {
        const at = groups.get(channel)?.get(group)?.at
        if (
          at === undefined ||
          (!isHigher(id, at) && (leases[i] as ReadonlyArray<unknown> | undefined ?? []).length === 0)
        ) {
          continue
        }
        suspects.push(suspect(
          {
            kind: "TwoStates",
            key: keys.waiting,
            group,
            channel,
            id,
            message:
              "it waits for its retry, and the group has still to handle it in the log: it will be handled twice",
            repair: "removes what waits; the log still has the message"
          },
          waitingInTwoStates,
          [keys.waiting, keys.bodies(group, channel), keys.log(channel)],
          [group, member, id]
        ))
      }
      return { looked: { waiting: members.length }, suspects }
    })
  )
}

/** Finds bodies of a group and channel that have no time or cannot be read. */
export const bodies = (checks: Checks, group: string, channel: string) => {
  const { ask, keys, report, run, suspect } = checks
  const key = keys.bodies(group, channel)
  const about = { key, group: group === "" ? undefined : group, channel }
  const steps = new Steps(bodiesPerStep, 1)
  return paged(
    "0",
    Effect.fnUntraced(function*(cursor) {
      const reply = yield* run(scanBodies, [key, keys.waiting], [
        cursor,
        steps.size,
        waitingMember(group, channel, "")
      ])
      const [next, count, stray, unreadable, bytes] = (reply ?? ["0", 0, [], [], 0]) as readonly [
        string,
        number,
        ReadonlyArray<string>,
        ReadonlyArray<string>,
        number
      ]
      steps.took(count, bytes)
      const [registered] = group === "" || stray.length === 0 ? [[]] : yield* ask([["hkeys", keys.groups]])
      const isKnown = group === ""
        || registrationsOf(registered).some((one) => one.group === group)
      const suspects = stray.map((id) =>
        suspect(
          {
            ...about,
            id,
            kind: "BodyWithoutTime",
            message: isKnown
              ? "a message waits, and for no time: it would never be delivered"
              : "a message waits for a group that is not registered, and for no time: if the group is wanted, subscribe and repair",
            repair: isKnown ? "makes it due at once" : undefined
          },
          bodyWithoutTime,
          [keys.waiting, key, keys.retry(group, channel), keys.retries(group), keys.meta, keys.groups, keys.counts],
          [group, channel, id, keys.events]
        )
      )
      const broken = unreadable.map((id): Suspect => {
        const message = "what waits cannot be read as a message: it will be thrown away when its time comes"
        return report(
          { ...about, kind: "Unreadable", id, message },
          Effect.map(
            ask([["hget", key, id]]),
            ([body]) => typeof body === "string" && !(group === "" ? /^([^\n]+\n)*\n/ : /\n/).test(body)
          )
        )
      })
      return [
        { looked: { bodies: count }, suspects: [...suspects, ...broken] },
        next === "0" ? undefined : next
      ] as const
    })
  )
}
