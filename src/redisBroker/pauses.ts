/** How a pause of a group is stored: see `scripts/parts/pauses.ts`. */
import { Result } from "effect"
import type { Pause } from "../Broker.ts"
import { registrationOf } from "./keys.ts"

/** The part of the value that scripts do not read. */
export const encodeRest = ({ by, id, reason }: Pick<Pause, "by" | "id" | "reason">): string =>
  JSON.stringify({ id, reason, by })

/** Reads a pause; `undefined` when another program wrote it. */
export const pauseOf = (group: string, pattern: string, value: string): Pause | undefined => {
  const [, since, until, json] = /^(\d{1,16}) (\d{1,16}|-) (\{.*\})$/s.exec(value) ?? []
  if (json === undefined) return undefined
  const rest = Result.getOrElse(
    Result.try(() => JSON.parse(json) as Partial<Record<"id" | "reason" | "by", unknown>>),
    () => undefined
  )
  const { by, id, reason } = rest ?? {}
  if (typeof id !== "string" || typeof reason !== "string" || (by !== undefined && typeof by !== "string")) {
    return undefined
  }
  return {
    id,
    group,
    pattern,
    reason,
    by,
    sinceMillis: Number(since),
    untilMillis: until === "-" ? undefined : Number(until)
  }
}

/** The reply of `pausesOf` of the scripts: the pauses, and the ms until the first of them ends (`Infinity`: none does). */
export const pausesIn = (
  group: string,
  reply: ReadonlyArray<string | number>
): { readonly pauses: ReadonlyArray<Pause>; readonly endsInMillis: number } => {
  const pauses: Array<Pause> = []
  let endsInMillis = Infinity
  for (let i = 0; i < reply.length; i += 3) {
    const pause = pauseOf(group, String(reply[i]), String(reply[i + 1]))
    if (pause === undefined) continue
    pauses.push(pause)
    const left = Number(reply[i + 2])
    if (left >= 0) endsInMillis = Math.min(endsInMillis, left)
  }
  return { pauses, endsInMillis }
}

/** Reads an entry of the hash; `undefined` when another program wrote it. */
export const pauseIn = (field: string, value: string): Pause | undefined => {
  const at = registrationOf(field)
  return at === undefined ? undefined : pauseOf(at.group, at.pattern, value)
}

/** The pauses of a shard that are in force. */
export const pausesAt = (fields: unknown, nowMillis: number): ReadonlyArray<Pause> =>
  Object.entries((fields ?? {}) as Readonly<Record<string, string>>).flatMap(([field, value]) => {
    const pause = pauseIn(field, value)
    return pause === undefined || (pause.untilMillis ?? Infinity) <= nowMillis ? [] : [pause]
  })
