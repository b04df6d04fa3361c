/** Replies of Redis as they come. */

export type RawEntries = ReadonlyArray<readonly [position: string, fields: ReadonlyArray<string> | null]>

export type RawPending = ReadonlyArray<readonly [position: string, consumer: string, idle: number, count: number]>

/** The pairs of a list in which names and values take turns. */
export const pairsOf = <A>(flat: ReadonlyArray<A>): ReadonlyArray<readonly [name: A, value: A]> =>
  flat.flatMap((name, i) => i % 2 === 0 ? [[name, flat[i + 1]!] as const] : [])

/** The groups of a stream, by the reply of XINFO GROUPS; none if there is no stream. */
export const groupsIn = (
  reply: unknown
): ReadonlyMap<string, { readonly pending: number; readonly at: string; readonly lag: unknown }> =>
  new Map((Array.isArray(reply) ? reply as ReadonlyArray<ReadonlyArray<unknown>> : []).map((flat) => {
    const fields = new Map(pairsOf(flat))
    return [String(fields.get("name")), {
      pending: Number(fields.get("pending")),
      at: String(fields.get("last-delivered-id")),
      lag: fields.get("lag")
    }]
  }))

/** The server's clock in ms, by the reply of TIME. */
export const millisOfTime = (reply: unknown): number => {
  const [seconds, micros] = reply as readonly [string, string]
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}
