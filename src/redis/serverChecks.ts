/** Checks of a server at the start. */
import { Effect } from "effect"
import type { Longest } from "./argumentLimit.ts"
import type { Origin } from "./clientOptions.ts"
import type { Command } from "./protocol.ts"
import { exchange } from "./request.ts"
import type { Servers } from "./servers.ts"
import { addressOf } from "./servers.ts"

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

const isLoopback = (host: string) => host === "localhost" || host === "::1" || host.startsWith("127.")

/** Warns of settings that lose messages or reveal the password. */
export const inspect = Effect.fnUntraced(function*(
  origin: Origin,
  servers: Servers,
  startMillis: number,
  longest: Longest
) {
  const replies = yield* exchange(servers, 0, startMillis, {
    commands: ["maxmemory-policy", "appendonly", "save", "proto-max-bulk-len"].map((
      name
    ): Command => ["config", "get", name]),
    idempotent: true
  })
  // Without the permission for CONFIG nothing is known, and nothing is logged.
  const [policy, appendOnly, save, bulk] = replies.map((reply) => Array.isArray(reply) ? String(reply[1]) : undefined)
  longest.set(Number(bulk))
  if (policy !== undefined && policy !== "noeviction") {
    yield* Effect.logWarning(`Redis may evict messages: maxmemory-policy is ${policy}, set it to noeviction`)
  }
  if (appendOnly === "no" && save === "") {
    yield* Effect.logWarning("Redis keeps nothing over a restart: neither appendonly nor save is set")
  }
  const { base, seeds } = origin
  const hosts = [
    ...(origin.mode === "standalone" && !base.path ? [base.host ?? "localhost"] : []),
    ...(base.sentinels ?? []).map((sentinel) => sentinel.host ?? "localhost"),
    ...seeds.map((seed) => addressOf(seed).host)
  ]
  if (base.password && !base.tls && !hosts.every(isLoopback)) {
    yield* Effect.logWarning("The password of Redis is sent over the network without TLS")
  }
})
