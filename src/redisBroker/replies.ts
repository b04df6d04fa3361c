/** Replies of Redis as they come. */

export type RawEntries = ReadonlyArray<readonly [position: string, fields: ReadonlyArray<string> | null]>

export type RawPending = ReadonlyArray<readonly [position: string, consumer: string, idle: number, count: number]>

/** The server's clock in ms, by the reply of TIME. */
export const millisOfTime = (reply: unknown): number => {
  const [seconds, micros] = reply as readonly [string, string]
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}
