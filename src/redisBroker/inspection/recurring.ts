/** Checks of recurring messages: each has a definition and a next tick. */
import { Effect, Result } from "effect"
import type { Command } from "../../Redis.ts"
import type { Suspect } from "../../broker/inspection.ts"
import * as Recurrence from "../../internal/recurrence.ts"
import { brokenRecurrence } from "../scripts/checks/brokenRecurrence.ts"
import type { Checks } from "./check.ts"

const keysPerStep = 200

/** Finds ticks without a definition, and overdue ones. */
export const ticks = ({ ask, isOverdue, keys, now, report, scan, suspect }: Checks, toleranceMillis: number) =>
  scan(
    "zscan",
    keys.ticks,
    keysPerStep,
    Effect.fnUntraced(function*(some) {
      const nowMillis = yield* now
      const found = some.map(([key, score]) => ({ key, score: Number(score) }))
      const defined = yield* ask(found.map(({ key }): Command => ["hexists", keys.recurring, key]))
      const suspects = found.flatMap(({ key, score }, i): ReadonlyArray<Suspect> => {
        if (defined[i] === 0) {
          return [suspect(
            {
              kind: "TickWithoutDefinition",
              key: keys.ticks,
              id: key,
              message: "a recurring message has a next tick and no definition",
              repair: "removes the tick"
            },
            brokenRecurrence,
            [keys.ticks, keys.recurring],
            ["tick", key, "", keys.events]
          )]
        }
        return score > nowMillis - toleranceMillis ? [] : [report(
          {
            kind: "OverdueTick",
            key: keys.ticks,
            id: key,
            message:
              `its tick was due ${Math.round((nowMillis - score) / 1000)} seconds ago and nobody has published it: ` +
              `does any process run with \`delayed\`, and what does its log say?`
          },
          isOverdue(keys.ticks, key, toleranceMillis)
        )]
      })
      return { looked: { recurring: found.length }, suspects }
    })
  )

/** Finds definitions without a tick. */
export const definitions = ({ ask, keys, now, scan, suspect }: Checks) =>
  scan(
    "hscan",
    keys.recurring,
    keysPerStep,
    Effect.fnUntraced(function*(found) {
      const scores = yield* ask(found.map(([key]): Command => ["zscore", keys.ticks, key]))
      const nowMillis = yield* now
      const suspects = found.filter((_, i) => scores[i] === null).map(([key, definition]) => {
        const [recurrence = "", channel = ""] = definition.split("\n")
        const at = Recurrence.decode(recurrence).pipe(Result.flatMap((ticks) => ticks.after(nowMillis)))
        return suspect(
          {
            kind: "DefinitionWithoutTick",
            key: keys.recurring,
            channel: channel === "" ? undefined : channel,
            id: key,
            message: Result.isSuccess(at)
              ? "a recurring message is defined and has no next tick: it would never be published"
              : "what is defined here is no recurring message: define it anew or remove it",
            repair: Result.isSuccess(at) ? "gives it the next tick of its definition" : undefined
          },
          brokenRecurrence,
          [keys.ticks, keys.recurring],
          ["definition", key, Result.isSuccess(at) ? at.success : "", keys.events]
        )
      })
      return { suspects }
    })
  )
