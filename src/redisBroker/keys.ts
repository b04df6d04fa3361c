/**
 * Every key Rotif uses in Redis. All keys of a shard share the hash tag `{prefix:shard}`, so that a script may touch any of
 * them. Text that users choose never becomes part of the tag and is escaped everywhere else.
 *
 * | key            | type        | holds                                                                    |
 * | -------------- | ----------- | ------------------------------------------------------------------------ |
 * | `meta`         | hash        | `shards`; `v`: goes up when a channel, a group or a retry stream appears |
 * | `channels`     | hash        | name of each channel → its limits as JSON                                |
 * | `definitions`  | hash        | name of each channel → the limits that programs define, and when each was last heard of |
 * | `groups`       | hash        | group and selector → empty                                               |
 * | `log:C`        | stream      | the messages of channel C                                                |
 * | `retry:G:C`    | stream      | messages of C that are ready again for group G only                      |
 * | `retries:G`    | set         | the channels for which `retry:G:*` exists                                |
 * | `floors:G`     | hash        | channel → the position below which group G has acknowledged everything   |
 * | `settled`      | hash        | channel without groups → the position up to which its last one had settled |
 * | `removed:G`    | hash, TTL   | pattern or name → when group G was removed from it, as a version; for a  |
 * |                |             | day, for those of its consumers that live                                |
 * | `settings:G`   | sorted set, TTL | what the consumers of group G are set to, by until when that counts; without a group: all processes |
 * | `members:G`    | sorted set  | members of group G that read many streams, by when they were last heard of |
 * | `waiting`      | sorted set  | what waits for a time, by due time (ms of the server's clock)            |
 * | `bodies:G:C`   | hash        | the messages of C that wait for group G (no group: for their first delivery) |
 * | `trials:G:C`   | hash        | deliveries of C to G that were taken over from lost consumers and begun again |
 * | `ticks`        | sorted set  | key of each recurring message, by the time of its next tick              |
 * | `recurring`    | hash        | the definitions of recurring messages                                    |
 * | `dead`         | stream      | dead letters                                                             |
 * | `counts`       | hash        | `d`, group, channel and reason → how many dead letters there are; a      |
 * |                |             | letter, group and channel → a total: `a` acked, `u` duplicates, `f`      |
 * |                |             | failed, `r` retried, `b` dead letters ever, `c` crashes, `x` dead        |
 * |                |             | letters deleted, `z` settled in the retry stream; `s`: stored before the |
 * |                |             | group began                                                              |
 * | `offers:N`     | sorted set  | dead letters offered to subscription N, by the end of their lease        |
 * | `offered:N`    | hash        | dead letter → token and count of its offers; `cursor`: the last one seen |
 * | `undertaker`   | string, TTL | who ends the retention of dead letters for now (shard 0 only)            |
 * | `surveyor`     | string, TTL | who reports metrics of groups for now (shard 0 only)                     |
 * | `seen:C:K`     | string, TTL | deduplication window of key K in channel C: position, call and id of the first |
 * | `told:T`       | string, TTL | what the call T was told, for when its answer was lost                   |
 * | `marks:G`      | hash        | channel and key → until when it is done by group G; or until when who is at it |
 * | `oldmarks:G`   | hash        | the same, of the time before                                             |
 * | `outbox`       | stream      | messages of transactions for channels of other shards                    |
 * | `relayed`      | hash        | shard → the last position of its outbox that has arrived here            |
 * | `arrived:S`    | sorted set  | the last messages that have arrived here from the outbox of shard S      |
 * | `own:K`        | the user's  | what transactions write                                                  |
 * | `janitor`      | string, TTL | who trims this shard for now                                             |
 * | `events`       | Pub/Sub     | wakes readers and promoters                                              |
 * | `cast:C`       | Pub/Sub     | the messages of channel C in Pub/Sub mode (sharded on a Cluster)         |
 * | `casts`        | Pub/Sub     | on a Cluster, these messages once more, for those who listen on patterns |
 */
import { escape, ownKey, tagOf } from "../broker/keyNames.ts"

export interface Keys {
  readonly shard: number
  readonly meta: string
  readonly channels: string
  readonly definitions: string
  readonly groups: string
  readonly waiting: string
  readonly ticks: string
  readonly recurring: string
  readonly dead: string
  readonly counts: string
  readonly undertaker: string
  readonly surveyor: string
  readonly janitor: string
  readonly events: string
  readonly cast: (channel: string) => string
  readonly casts: string
  /** For PSUBSCRIBE: matches `cast:C` of all channels that match the pattern, and of more. One wildcard, so that matching is cheap. */
  readonly castGlob: (pattern: string) => string
  readonly log: (channel: string) => string
  readonly retry: (group: string, channel: string) => string
  readonly retries: (group: string) => string
  readonly floors: (group: string) => string
  /** The removals of a group. */
  readonly removed: (group: string) => string
  readonly members: (group: string) => string
  /** What the consumers of a group are set to, or (group "") all processes. */
  readonly settings: (group: string) => string
  /** The messages of a channel that wait for a group, or (group "") for their first delivery. */
  readonly bodies: (group: string, channel: string) => string
  /** What was taken over from lost consumers of the group on the channel, and begun again. */
  readonly trials: (group: string, channel: string) => string
  readonly seen: (channel: string, key: string) => string
  readonly told: (call: string) => string
  readonly offers: (name: string) => string
  readonly offered: (name: string) => string
  readonly marks: (group: string) => string
  readonly oldMarks: (group: string) => string
  readonly outbox: string
  readonly relayed: string
  readonly settled: string
  readonly arrived: (shard: number) => string
  readonly own: (name: string) => string
}

/**
 * Keys belong to a database of the server, Pub/Sub channels to all of it: where it is not the first database, their names have its number.
 */
export const make = (prefix: string, shard: number, database = 0): Keys => {
  const tag = tagOf(prefix, shard)
  const topic = database === 0 ? tag : `${tag}:db${database}`
  return {
    shard,
    meta: `${tag}:meta`,
    channels: `${tag}:channels`,
    definitions: `${tag}:definitions`,
    groups: `${tag}:groups`,
    waiting: `${tag}:waiting`,
    ticks: `${tag}:ticks`,
    recurring: `${tag}:recurring`,
    dead: `${tag}:dead`,
    counts: `${tag}:counts`,
    undertaker: `${tag}:undertaker`,
    surveyor: `${tag}:surveyor`,
    janitor: `${tag}:janitor`,
    events: `${topic}:events`,
    cast: (channel) => `${topic}:cast:${escape(channel)}`,
    casts: `${topic}:casts`,
    castGlob: (pattern) => {
      const segments = pattern.split(".")
      const isWild = (segment: string) => segment === "*" || segment === "**"
      const ends = [segments.slice(0, segments.findIndex(isWild)), segments.slice(segments.findLastIndex(isWild) + 1)]
      const [start, end] = ends.map((some) => some.map(escape))
      return segments.some(isWild)
        ? `${topic}:cast:${start!.map((text) => `${text}.`).join("")}*${end!.map((text) => `.${text}`).join("")}`
        : `${topic}:cast:${escape(pattern)}`
    },
    log: (channel) => `${tag}:log:${escape(channel)}`,
    retry: (group, channel) => `${tag}:retry:${escape(group)}:${escape(channel)}`,
    retries: (group) => `${tag}:retries:${escape(group)}`,
    floors: (group) => `${tag}:floors:${escape(group)}`,
    removed: (group) => `${tag}:removed:${escape(group)}`,
    settings: (group) => `${tag}:settings:${escape(group)}`,
    members: (group) => `${tag}:members:${escape(group)}`,
    bodies: (group, channel) => `${tag}:bodies:${escape(group)}:${escape(channel)}`,
    trials: (group, channel) => `${tag}:trials:${escape(group)}:${escape(channel)}`,
    seen: (channel, key) => `${tag}:seen:${escape(channel)}:${escape(key)}`,
    told: (call) => `${tag}:told:${call}`,
    offers: (name) => `${tag}:offers:${escape(name)}`,
    offered: (name) => `${tag}:offered:${escape(name)}`,
    marks: (group) => `${tag}:marks:${escape(group)}`,
    oldMarks: (group) => `${tag}:oldmarks:${escape(group)}`,
    outbox: `${tag}:outbox`,
    relayed: `${tag}:relayed`,
    settled: `${tag}:settled`,
    arrived: (shard) => `${tag}:arrived:${shard}`,
    own: (name) => ownKey(tag, name)
  }
}

/** What a key is called behind its tag, up to the parts that name a channel, a group or something of the user's; how many of these it has. */
const kinds = {
  meta: { type: "hash", parts: 0 },
  channels: { type: "hash", parts: 0 },
  definitions: { type: "hash", parts: 0 },
  groups: { type: "hash", parts: 0 },
  waiting: { type: "zset", parts: 0 },
  ticks: { type: "zset", parts: 0 },
  recurring: { type: "hash", parts: 0 },
  dead: { type: "stream", parts: 0 },
  counts: { type: "hash", parts: 0 },
  undertaker: { type: "string", parts: 0 },
  surveyor: { type: "string", parts: 0 },
  janitor: { type: "string", parts: 0 },
  outbox: { type: "stream", parts: 0 },
  relayed: { type: "hash", parts: 0 },
  settled: { type: "hash", parts: 0 },
  arrived: { type: "zset", parts: 1 },
  log: { type: "stream", parts: 1 },
  retry: { type: "stream", parts: 2 },
  retries: { type: "set", parts: 1 },
  floors: { type: "hash", parts: 1 },
  removed: { type: "hash", parts: 1 },
  members: { type: "zset", parts: 1 },
  settings: { type: "zset", parts: 1 },
  bodies: { type: "hash", parts: 2 },
  trials: { type: "hash", parts: 2 },
  seen: { type: "string", parts: 2 },
  told: { type: "string", parts: 1 },
  offers: { type: "zset", parts: 1 },
  offered: { type: "hash", parts: 1 },
  marks: { type: "hash", parts: 1 },
  oldmarks: { type: "hash", parts: 1 },
  // The user's: a string or a hash.
  own: { type: undefined, parts: 1 }
} as const satisfies Record<string, { readonly type: string | undefined; readonly parts: number }>

export type Kind = keyof typeof kinds

/** A key that was found: what it is, if it is one of Rotif's. */
export interface Found {
  readonly shard: number
  readonly kind: Kind | undefined
  /** Its Redis type, where it has one. */
  readonly type: string | undefined
  readonly parts: ReadonlyArray<string>
}

const unescape = (text: string) =>
  text.replace(/%([0-9a-f]{2})/g, (_, code: string) => String.fromCharCode(parseInt(code, 16)))

const isKind = (name: string): name is Kind => Object.hasOwn(kinds, name)

/** What a key is; `undefined` when it belongs to no shard of this prefix. */
export const parse = (prefix: string, key: string): Found | undefined => {
  const end = key.indexOf("}")
  const shard = key.slice(prefix.length + 2, end)
  if (!key.startsWith(`{${prefix}:`) || !/^(0|[1-9]\d{0,3})$/.test(shard)) return undefined
  const [name = "", ...parts] = key.slice(end + 2).split(":")
  // What the user calls his keys is his: it may have colons.
  const kind = key[end + 1] === ":" && isKind(name) && (name === "own" || parts.length === kinds[name].parts)
    ? name
    : undefined
  return {
    shard: Number(shard),
    kind,
    type: kind === undefined ? undefined : kinds[kind].type,
    parts: parts.map(unescape)
  }
}

/**
 * The name of a waiting message in `waiting`: whom it waits for, and what it is in that one's bodies. Names and ids have no control
 * characters.
 */
export const waitingMember = (group: string, channel: string, id: string): string => `${group}\n${channel}\n${id}`

/** An entry of `groups`: that a group reads what a pattern (or name) matches. */
export interface Registration {
  readonly group: string
  readonly pattern: string
}

export const registrationField = (group: string, pattern: string): string => `${group}\n${pattern}`

/** Reads an entry of `groups`; nothing when another program wrote it. */
export const registrationOf = (field: string): Registration | undefined => {
  const at = field.indexOf("\n")
  const pattern = field.slice(at + 1)
  return at <= 0 || pattern === "" || pattern.includes("\n") ? undefined : { group: field.slice(0, at), pattern }
}

/** What is registered, of all entries of `groups`. */
export const registrationsOf = (fields: unknown): ReadonlyArray<Registration> =>
  ((fields ?? []) as ReadonlyArray<string>).flatMap((field) => registrationOf(field) ?? [])

/** A key of the Deduplication service: no script needs two of them, so on a Cluster they are spread over all nodes. */
export const onceKey = (prefix: string, key: string): string => `{${prefix}:once:${escape(key)}}`

/** That the caller with this token has finished it. */
export const onceProofKey = (prefix: string, key: string, token: string): string => `${onceKey(prefix, key)}:${token}`

/** Group, channel and id of a member of `waiting`; `undefined` when another program wrote it. */
export const waitingParts = (member: string): readonly [group: string, channel: string, id: string] | undefined => {
  const a = member.indexOf("\n")
  const b = a < 0 ? -1 : member.indexOf("\n", a + 1)
  return b < 0 ? undefined : [member.slice(0, a), member.slice(a + 1, b), member.slice(b + 1)]
}

/** The shard of a channel: FNV-1a over its name, so that every client and version finds the same. */
export const shardOf = (channel: string, shards: number): number => {
  let hash = 0x811c9dc5
  for (let i = 0; i < channel.length; i++) {
    hash = Math.imul(hash ^ channel.charCodeAt(i), 0x01000193)
  }
  return (hash >>> 0) % shards
}
