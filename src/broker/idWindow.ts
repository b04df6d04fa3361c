/** The deduplication window of an id, for publishes and recurring messages. */
import type { Window } from "./publishing.ts"

/** The default window of an id that is given to a publish. */
const usualMillis = 3_600_000

/** The longest window of a publish, unless its publisher allows a longer one: a week. */
export const usualMaxMillis = 604_800_000

/** The window of an id. Keys of other kinds begin with another letter. */
export const windowOf = (id: string, millis = usualMillis): Window => ({ key: `i${id}`, millis })
