/** Replies of Redis as they come. */

export type RawEntries = ReadonlyArray<readonly [position: string, fields: ReadonlyArray<string> | null]>

export type RawPending = ReadonlyArray<readonly [position: string, consumer: string, idle: number, count: number]>
