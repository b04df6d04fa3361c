/** Limits and defaults of the options that both APIs have. Spans are in milliseconds. */
import type { Bounds } from "./optionChecks.ts"
import { longestKeptMillis, longestMillis } from "./optionChecks.ts"

const mostCount = 100_000

/** The longest span that something waits for in a process. */
export const longest = longestMillis

/** The longest span that something is kept or waits in the backend: ten years. */
export const longestKept = longestKeptMillis

export const concurrency: Bounds = { usual: 1, least: 1, most: mostCount }
export const maxRetries: Bounds = { usual: 5, least: 0, most: mostCount }
export const maxCrashes: Bounds = { usual: 3, least: 0, most: mostCount }
export const lease: Bounds = { usual: 30_000, least: 100, most: longestMillis }
export const blockInterval: Bounds = { usual: 5_000, least: 10, most: longestMillis }
export const drainTimeout: Bounds = { usual: 30_000, least: 0, most: longestMillis }
export const checkInterval: Bounds = { usual: 30_000, least: 10, most: longestMillis }
/** The entries on a page of a list. */
export const pageSize: Bounds = { usual: 100, least: 1, most: 1_000 }
export const retryDelay: Bounds = { usual: 1_000, least: 0, most: longestMillis }
export const slowHandler: Bounds = { usual: 300_000, least: 1, most: longestMillis }
export const stormLetters: Bounds = { usual: 0, least: 1, most: 10_000 }
export const stormWithin: Bounds = { usual: 0, least: 100, most: longestMillis }
export const batchSize: Bounds = { usual: 100, least: 1, most: 10_000 }
export const batchWithin: Bounds = { usual: 100, least: 0, most: 3_600_000 }
