/**
 * The reply of INFO, as far as a connection depends on it.
 */

/** The kind of server that the options name. */
export type Mode = "standalone" | "sentinel" | "cluster"

/** A field is empty where the server does not tell it (an ACL without INFO). */
export interface Info {
  /** Changes with every start of the server. Connection ids of different runs are unrelated. */
  readonly runId: string
  readonly version: string
  readonly role: string
  readonly kind: string
  readonly isLoading: boolean
}

const field = (text: string, name: string): string => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(text)?.[1] ?? ""

export const parse = (text: string): Info => ({
  runId: field(text, "run_id"),
  version: field(text, "redis_version"),
  role: field(text, "role"),
  // Valkey says "server".
  kind: field(text, "redis_mode") || field(text, "server_mode"),
  isLoading: field(text, "loading") === "1"
})

const ofHello = new Map([["version", "redis_version"], ["role", "role"], ["mode", "redis_mode"]])

/** Reads the reply of HELLO, in place of INFO. */
export const textOfHello = (reply: unknown): string => {
  const fields = Array.isArray(reply) ? (reply as ReadonlyArray<unknown>).map(String) : []
  return fields.flatMap((name, i) => {
    const known = i % 2 === 0 ? ofHello.get(name) : undefined
    return known === undefined ? [] : [`${known}:${fields[i + 1] === "replica" ? "slave" : fields[i + 1]}`]
  }).join("\n")
}

/** Returns the reason why a server cannot be used, for now (`isLasting: false`) or at all. */
export interface Problem {
  readonly isLasting: boolean
  readonly message: string
}

export const problemOf = (info: Info, mode: Mode): Problem | undefined => {
  const lasting = (message: string): Problem => ({ isLasting: true, message })
  const major = Number.parseInt(info.version, 10)
  if (info.kind === "sentinel") return lasting("this is a Sentinel, not a Redis server: use { sentinels, name }")
  if (major < 7) return lasting(`Redis ${info.version} is too old: 7.0 or later is needed`)
  if (mode === "cluster" && info.kind === "standalone") return lasting("this server is not part of a Cluster")
  if (mode !== "cluster" && info.kind === "cluster") return lasting("this server is part of a Cluster: use { cluster }")
  if (info.isLoading) return { isLasting: false, message: "the server is loading its data" }
  // After a failover the address may still lead to the old master, and a replica refuses every write.
  if (info.role === "slave") {
    return {
      isLasting: false,
      message: "the server is a replica: give the address of its master, or { sentinels, name }"
    }
  }
  return undefined
}
