/** Connection options, as options of ioredis. */
import type { Result } from "effect"
import { Redacted } from "effect"
import type { ConnectionOptions } from "node:tls"
import * as Given from "../internal/optionChecks.ts"
import type { ClusterNode, IoredisOptions } from "./ioredis.ts"
import { Client, Cluster } from "./ioredis.ts"
import type { Address } from "./link.ts"
import * as Place from "./optionChecks.ts"
import type { IoredisClient, Options, SecurityOptions, UrlOptions } from "./options.ts"
import { refusedCommand } from "./protocol.ts"
import type { Mode } from "./serverInfo.ts"
import type { NatMap } from "./servers.ts"
import { addressOf, nameOf } from "./servers.ts"

export type RawOptions = Omit<IoredisOptions, "replyMapping">

const reveal = (secret: Redacted.Redacted<string> | string): string =>
  Redacted.isRedacted(secret) ? Redacted.value(secret) : secret

export const refused = (message: string) => refusedCommand("connect", message)

const orRefuse = <A>(found: Result.Result<A, Given.Problem>): A =>
  Given.orThrow(found, ({ message }) => refused(message))

const tlsOf = (tls: boolean | ConnectionOptions | undefined): ConnectionOptions | undefined =>
  tls === true ? {} : tls === false ? undefined : tls

const securityOf = (options: SecurityOptions): RawOptions => {
  const tls = tlsOf(options.tls)
  return {
    ...(options.username === undefined ? {} : { username: options.username }),
    ...(options.password === undefined ? {} : { password: reveal(options.password) }),
    ...(tls === undefined ? {} : { tls }),
    ...(options.family === undefined ? {} : { family: options.family })
  }
}

const urlOf = (options: UrlOptions): RawOptions => {
  const { db = 0, family, host, password, port, tls, username } = orRefuse(Place.parseUrl("url", options.url))
  return {
    host,
    port,
    db: options.db ?? db,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(tls === true ? { tls: {} } : {}),
    ...(family === undefined ? {} : { family }),
    ...securityOf(options)
  }
}

/** The place of Redis, as options of ioredis. */
export interface Origin {
  readonly mode: Mode
  readonly base: RawOptions
  /** The first nodes of a Cluster to ask. */
  readonly seeds: ReadonlyArray<string>
  readonly natMap: NatMap | undefined
}

const direct = (mode: Mode, base: RawOptions): Origin => ({ mode, base, seeds: [], natMap: undefined })

// Not by `instanceof`: the client may come from another copy of ioredis.
const isCluster = (client: Client | Cluster): client is Cluster => client.isCluster

const clientOrigin = (client: Client | Cluster): Origin => {
  const { keyPrefix, replyMapping, ...base }: IoredisOptions = isCluster(client)
    ? { ...client.options.redisOptions, keyPrefix: client.options.keyPrefix ?? "" }
    : client.options
  if (keyPrefix) throw refused("a client with keyPrefix cannot be used: give rotif a prefix of its own")
  if (replyMapping === "resp3") throw refused(`a client with replyMapping "resp3" cannot be used: use "legacy"`)
  if (!isCluster(client)) return direct(base.sentinels ? "sentinel" : "standalone", base)
  // A private field, and the only place where ioredis keeps the options of a Cluster.
  const nodes: ReadonlyArray<ClusterNode> = Reflect.get(client, "startupNodes")
  const options = nodes.map((node): RawOptions =>
    typeof node === "string"
      ? new Client(node, { lazyConnect: true }).options
      : typeof node === "number"
      ? { port: node }
      : { ...node, host: node.host ?? "127.0.0.1", port: node.port ?? 6379 }
  )
  const { password, tls, username } = options[0] ?? {}
  return {
    mode: "cluster",
    base: {
      ...(username ? { username } : {}),
      ...(password ? { password } : {}),
      ...(tls ? { tls } : {}),
      ...base
    },
    seeds: options.map((node) => nameOf(addressIn(node))),
    natMap: client.options.natMap
  }
}

export const addressIn = ({ host = "localhost", port = 6379 }: RawOptions): Address => ({ host, port })

export const originOf = (given: Options): Origin => {
  // `undefined` counts as not given. `check` returns a record of options whose names and values it has checked.
  const options = orRefuse(Place.check(given)) as unknown as Options
  const origin = placeOf(options)
  check(origin, options)
  return origin
}

const placeOf = (options: Options): Origin => {
  if ("client" in options) return clientOrigin(options.client)
  if ("cluster" in options) {
    return { mode: "cluster", base: securityOf(options), seeds: options.cluster.map(nameOf), natMap: options.natMap }
  }
  if ("sentinels" in options) {
    const sentinelTls = tlsOf(options.sentinelTls)
    const base: RawOptions = {
      ...securityOf(options),
      sentinels: options.sentinels.map(({ host, port }) => ({ host, port })),
      name: options.name,
      db: options.db ?? 0,
      enableTLSForSentinelMode: options.tls !== undefined && options.tls !== false,
      ...(options.sentinelUsername === undefined ? {} : { sentinelUsername: options.sentinelUsername }),
      ...(options.sentinelPassword === undefined ? {} : { sentinelPassword: reveal(options.sentinelPassword) }),
      ...(sentinelTls === undefined ? {} : { sentinelTLS: sentinelTls }),
      ...(options.natMap === undefined ? {} : { natMap: options.natMap })
    }
    return direct("sentinel", base)
  }
  if ("url" in options) return direct("standalone", urlOf(options))
  const { db = 0, host, port = 6379 } = options
  return direct("standalone", { host, port, db, ...securityOf(options) })
}

/**
 * Makes a client of ioredis for the same place, for commands that Rotif does not need. It connects at its first command, and reconnects as
 * ioredis does, or as the options of ioredis in `more` say; the caller closes it. It shares nothing with the connections of Rotif.
 *
 * **Errors**: throws `RedisError` (`Refused`) for options that cannot be used.
 *
 * @category constructors
 * @since 0.1.0
 */
export const clientUnsafe = (options: Options, more?: RawOptions): IoredisClient => {
  const { base, mode, natMap, seeds } = originOf(options)
  if (more?.keyPrefix) throw refused("a client with keyPrefix cannot be used: give rotif a prefix of its own")
  const common = { ...base, ...more, replyMapping: "legacy", lazyConnect: true } as const
  const client = mode === "cluster"
    ? new Cluster(seeds.map(addressOf), {
      lazyConnect: true,
      redisOptions: common,
      ...(natMap === undefined ? {} : { natMap })
    })
    : new Client(common)
  // A command that fails tells its caller; without a listener the failure of the connection would be printed as well.
  client.on("error", () => {})
  return client
}

const check = (origin: Origin, options: Options): void => {
  if (origin.mode === "cluster" && origin.seeds.length === 0) throw refused("a Cluster needs at least one node")
  if (origin.mode === "sentinel" && !origin.base.sentinels?.length) throw refused("at least one Sentinel is needed")
  for (const tls of [origin.base.tls, origin.base.sentinelTLS]) {
    if (tls?.rejectUnauthorized === false && options.insecure !== true) {
      throw refused("rejectUnauthorized: false accepts any server: it needs the option insecure: true")
    }
  }
}
