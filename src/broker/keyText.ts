/** Names of keys on every backend: the tag of a shard, keys of users, and exactly-once keys. */

/** Escapes text of users in key names, so that it ends no hash tag and matches no glob. */
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

/** Returns a key of the user in this shard. */
export const ownKey = (tag: string, name: string): string => `${tag}:own:${escape(name)}`

/** The field of `once` for a key of a channel. It has a line break; what the scripts keep there for themselves has none. */
export const markOf = (channel: string, key: string): string => `${channel}\n${key}`

/** The hash tag of a key, as Redis Cluster finds it. */
const hashTag = (key: string): string | undefined => {
  const open = key.indexOf("{")
  const close = key.indexOf("}", open + 1)
  return open < 0 || close <= open + 1 ? undefined : key.slice(open + 1, close)
}

/** Returns the reason why a transaction of this shard cannot write a key of the user, if there is one. */
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
