/** Names of keys that every backend has in common: the tag of a shard, keys of users, and the keys by which deliveries are done once. */

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
const special = /[%:{}*?[\]\\\u0000-\u001f\u007f]/g

export const escape = (text: string) =>
  text.replace(special, (char) => `%${char.charCodeAt(0).toString(16).padStart(2, "0")}`)

/** The problem with a prefix, if there is one. A brace would break the hash tag, a glob character the ACL pattern. */
export const prefixProblem = (prefix: string): string | undefined =>
  /^[A-Za-z0-9._:-]{1,64}$/.test(prefix)
    ? undefined
    : "expected 1 to 64 characters out of letters, digits, '.', '_', ':' and '-'"

/** The hash tag that all keys of a shard have in common. */
export const tagOf = (prefix: string, shard: number): string => `{${prefix}:${shard}}`

/** A key of the user's in this shard. */
export const ownKey = (tag: string, name: string): string => `${tag}:own:${escape(name)}`

/** The field of `marks` for a key of a channel. It has a line break; what the scripts keep there for themselves has none. */
export const markOf = (channel: string, key: string): string => `${channel}\n${key}`

/** The hash tag of a key, as Redis Cluster finds it. */
const hashTag = (key: string): string | undefined => {
  const open = key.indexOf("{")
  const close = key.indexOf("}", open + 1)
  return open < 0 || close <= open + 1 ? undefined : key.slice(open + 1, close)
}

/** Why a transaction of this shard cannot write a key of the user's, if it cannot. */
export const ownKeyProblem = (
  tag: string,
  key: string
): { reason: "WrongSlot" | "Reserved"; message: string } | undefined => {
  if (`{${hashTag(key)}}` !== tag) {
    return {
      reason: "WrongSlot",
      message:
        `the key ${
          JSON.stringify(key)
        } is not in the slot of this transaction, which Redis needs to apply it as a whole: ` +
        `put ${tag} into it, or take a key from Transaction.key`
    }
  }
  return key.startsWith(`${tag}:`) && !key.startsWith(`${tag}:own:`)
    ? {
      reason: "Reserved",
      message: `the key ${JSON.stringify(key)} is one of Rotif's own: take a key from Transaction.key`
    }
    : undefined
}
