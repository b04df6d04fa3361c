/** The deduplication window of an id, which publishes and recurring messages open alike. */
import type { Window } from "./publishing.ts"

/** How long an id given to a publish is remembered, unless the publish says otherwise. */
const usualMillis = 3_600_000

/** The window of an id. Keys of other kinds begin with another letter. */
export const windowOf = (id: string, millis = usualMillis): Window => ({ key: `i${id}`, millis })
