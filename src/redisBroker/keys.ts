/**
 * The names of all keys in Redis. The keys of a shard share the hash tag `{prefix:shard}`, so a script may touch any of them. Text
 * that users choose never becomes part of the tag and is escaped everywhere else.
 *
 * C: channel, G: group, K: key or name of the user, N: subscription to dead letters, S: shard, T: call. `docs/redis-keys.md` describes
 * the contents in full.
 *
 * | key            | type        | holds                                                                    |
 * | -------------- | ----------- | ------------------------------------------------------------------------ |
 * | `meta`         | hash        | `shards`; `v`: goes up when a channel, a group or a retry stream appears |
 * | `channels`     | hash        | name of each channel → its limits as JSON                                |
 * | `definitions`  | hash        | name of each channel → the limits that programs define, and the time of each definition |
 * | `groups`       | hash        | group and selector → empty                                               |
 * | `log:C`        | stream      | the messages of channel C                                                |
 * | `retry:G:C`    | stream      | messages of C that are ready again for group G only                      |
 * | `retries:G`    | set         | the channels for which `retry:G:*` exists                                |
 * | `floors:G`     | hash        | channel → the position below which group G has acknowledged everything   |
 * | `settled`      | hash        | channel without groups → the position up to which its last group had acknowledged everything |
 * | `removed:G`    | hash, TTL   | pattern or name → the version at which group G was removed from it; kept for a day, for consumers of the group that still run |
 * | `settings:G`   | sorted set, TTL | settings of the consumers of group G, by the end of their validity; without a group: of all processes |
 * | `members:G`    | sorted set  | members of group G that read many streams, by their last heartbeat       |
 * | `paused`       | hash        | group and selector → a pause of the group (`pauses.ts`)                  |
 * | `resting:G`    | hash        | member of group G → the ids of the pauses that it keeps                  |
 * | `storm:G`      | sorted set, TTL | the last dead letters of group G, where too many of them pause it    |
 * | `waiting`      | sorted set  | waiting messages, by due time (ms of the server's clock)                 |
 * | `bodies:G:C`   | hash        | the messages of C that wait for a retry by group G; without a group: for their first delivery |
 * | `trials:G:C`   | hash        | deliveries of C to G that were taken over from lost consumers and begun again |
 * | `orderings`    | hash        | group → how it treats ordering keys                                      |
 * | `busy:G:C`     | set         | the ordering keys of C of which a message may run in group G, or is running |
 * | `lines:G:C`    | hash        | ordering key → the first and the last message that wait behind that one  |
 * | `behind:G:C`   | hash        | message that waits → the next one of its key                             |
 * | `reached:G:C`  | hash        | kind of stream → the position up to which everything with an ordering key was entered |
 * | `taken:G`      | hash        | consumer → a number that changes when something is taken over from it    |
 * | `ticks`        | sorted set  | key of each recurring message, by the time of its next tick              |
 * | `recurring`    | hash        | the definitions of recurring messages                                    |
 * | `dead`         | stream      | dead letters                                                             |
 * | `counts`       | hash        | totals of groups and numbers of dead letters: see `counters.ts`          |
 * | `offers:N`     | sorted set  | dead letters offered to subscription N, by the end of their lease        |
 * | `offered:N`    | hash        | dead letter → token and count of its offers; `cursor`: the last letter seen |
 * | `retention`    | string, TTL | the process that removes dead letters after their retention (shard 0 only) |
 * | `metrics`      | string, TTL | the process that reports metrics of groups (shard 0 only)                |
 * | `seen:C:K`     | string, TTL | deduplication window of key K in channel C: position, call and id of the first message |
 * | `answer:T`     | string, TTL | the reply of a script to call T, in case it is lost on the way           |
 * | `once:G`       | hash        | channel and key → the time until which group G has it done; or until which a consumer may work on it, and its token |
 * | `olderonce:G`  | hash        | the same, of the time before                                             |
 * | `outbox`       | stream      | messages of transactions for channels of other shards                    |
 * | `relayed`      | hash        | shard → the last position of its outbox that has arrived here            |
 * | `arrived:S`    | sorted set  | the last messages that have arrived here from the outbox of shard S      |
 * | `own:K`        | the user's  | values that transactions write                                           |
 * | `janitor`      | string, TTL | the process that trims this shard                                        |
 * | `events`       | Pub/Sub     | wakes readers and promoters                                              |
 * | `broadcast:C`  | Pub/Sub     | the messages of channel C in Pub/Sub mode (sharded on a Cluster)         |
 * | `broadcasts`   | Pub/Sub     | on a Cluster, these messages once more, for listeners on patterns        |
 */
import { escape, tagOf } from "../broker/keyText.ts"
import { reading } from "../internal/pattern.ts"

/** The word behind the tag of each key; its Redis type; and the number of parts that follow, as in the table above. */
const kinds = {
  meta: { type: "hash", parts: 0 },
  channels: { type: "hash", parts: 0 },
  definitions: { type: "hash", parts: 0 },
  groups: { type: "hash", parts: 0 },
  paused: { type: "hash", parts: 0 },
  waiting: { type: "zset", parts: 0 },
  ticks: { type: "zset", parts: 0 },
  recurring: { type: "hash", parts: 0 },
  dead: { type: "stream", parts: 0 },
  counts: { type: "hash", parts: 0 },
  retention: { type: "string", parts: 0 },
  metrics: { type: "string", parts: 0 },
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
  resting: { type: "hash", parts: 1 },
  storm: { type: "zset", parts: 1 },
  settings: { type: "zset", parts: 1 },
  bodies: { type: "hash", parts: 2 },
  trials: { type: "hash", parts: 2 },
  orderings: { type: "hash", parts: 0 },
  busy: { type: "set", parts: 2 },
  lines: { type: "hash", parts: 2 },
  behind: { type: "hash", parts: 2 },
  reached: { type: "hash", parts: 2 },
  taken: { type: "hash", parts: 1 },
  seen: { type: "string", parts: 2 },
  answer: { type: "string", parts: 1 },
  offers: { type: "zset", parts: 1 },
  offered: { type: "hash", parts: 1 },
  once: { type: "hash", parts: 1 },
  olderonce: { type: "hash", parts: 1 },
  // The user's: a string or a hash.
  own: { type: undefined, parts: 1 }
} as const satisfies Record<string, { readonly type: string | undefined; readonly parts: 0 | 1 | 2 }>

export type Kind = keyof typeof kinds

type Names = {
  readonly [Name in Kind]: [
    string,
    (part: string | number) => string,
    (first: string, second: string) => string
  ][(typeof kinds)[Name]["parts"]]
}

/** The name of each kind of key, or how it is made of its parts. */
const namesIn = (tag: string): Names =>
  // `fromEntries` loses the names: they are those of `kinds`, which `Names` is made of.
  Object.fromEntries(
    Object.entries(kinds).map(([word, { parts }]) => {
      const start = `${tag}:${word}`
      const one = (part: string | number) => `${start}:${escape(String(part))}`
      const two = (first: string, second: string) => `${start}:${escape(first)}:${escape(second)}`
      return [word, [start, one, two][parts]]
    })
  ) as unknown as Names

/** Names the keys of a shard. Pub/Sub channels belong to all databases of a server, so outside database 0 their names have its number. */
export const make = (prefix: string, shard: number, database = 0) => {
  const tag = tagOf(prefix, shard)
  const topic = database === 0 ? tag : `${tag}:db${database}`
  return {
    ...namesIn(tag),
    shard,
    events: `${topic}:events`,
    broadcast: (channel: string) => `${topic}:broadcast:${escape(channel)}`,
    broadcasts: `${topic}:broadcasts`,
    /**
     * For PSUBSCRIBE: matches the topics of all channels that match the pattern, and some others. It has one wildcard, so that
     * matching is cheap.
     */
    broadcastGlob: (pattern: string) => {
      const segments = pattern.split(".")
      const isWild = (segment: string) => segment === "*" || segment === "**"
      const ends = [segments.slice(0, segments.findIndex(isWild)), segments.slice(segments.findLastIndex(isWild) + 1)]
      const [start, end] = ends.map((some) => some.map(escape))
      return segments.some(isWild)
        ? `${topic}:broadcast:${start!.map((text) => `${text}.`).join("")}*${end!.map((text) => `.${text}`).join("")}`
        : `${topic}:broadcast:${escape(pattern)}`
    }
  }
}

export type Keys = ReturnType<typeof make>

/** The keys of the gate of a group on a channel, in the order in which scripts take them. */
export const gateKeys = (keys: Keys, group: string, channel: string) =>
  [
    keys.busy(group, channel),
    keys.lines(group, channel),
    keys.behind(group, channel),
    keys.reached(group, channel)
  ] as const

/** A key that was found in Redis. */
export interface Found {
  readonly shard: number
  /** `undefined` when it is none of Rotif's. */
  readonly kind: Kind | undefined
  /** The Redis type it must have; `undefined` when any will do. */
  readonly type: string | undefined
  readonly parts: ReadonlyArray<string>
}

const unescape = (text: string) =>
  text.replace(/%([0-9a-f]{2})/g, (_, code: string) => String.fromCharCode(parseInt(code, 16)))

const isKind = (name: string): name is Kind => Object.hasOwn(kinds, name)

/** Tells the kind of a key; `undefined` when it belongs to no shard of this prefix. */
export const parse = (prefix: string, key: string): Found | undefined => {
  const end = key.indexOf("}")
  const shard = key.slice(prefix.length + 2, end)
  if (!key.startsWith(`{${prefix}:`) || !/^(0|[1-9]\d{0,3})$/.test(shard)) return undefined
  const [name = "", ...parts] = key.slice(end + 2).split(":")
  // A name of the user may have colons.
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
 * The member of `waiting` for a message: the group it waits for ("": it is scheduled), its channel, and its field in the bodies of
 * the two. Names and ids have no control characters.
 */
export const waitingMember = (group: string, channel: string, id: string): string => `${group}\n${channel}\n${id}`

/** An entry of `groups`: a group, and the pattern or name of the channels it reads. */
export interface Registration {
  readonly group: string
  readonly pattern: string
  readonly reads: (channel: string) => boolean
}

export const registrationField = (group: string, pattern: string): string => `${group}\n${pattern}`

/** Reads an entry of `groups`; `undefined` when another program wrote it. */
export const registrationOf = (field: string): Registration | undefined => {
  const at = field.indexOf("\n")
  const pattern = field.slice(at + 1)
  return at <= 0 || pattern === "" || pattern.includes("\n")
    ? undefined
    : { group: field.slice(0, at), pattern, reads: reading(pattern) }
}

/** Reads all entries of `groups`, without those of other programs. */
export const registrationsOf = (fields: unknown): ReadonlyArray<Registration> =>
  ((fields ?? []) as ReadonlyArray<string>).flatMap((field) => registrationOf(field) ?? [])

/** A key of the Deduplication service: no script needs two of them, so on a Cluster they are spread over all nodes. */
export const onceKey = (prefix: string, key: string): string => `{${prefix}:once:${escape(key)}}`

/** The key that proves that the caller with this token has finished. */
export const onceProofKey = (prefix: string, key: string, token: string): string => `${onceKey(prefix, key)}:${token}`

/** Reads a member of `waiting`; `undefined` when another program wrote it. */
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
