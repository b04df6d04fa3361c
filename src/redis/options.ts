/** Options of connections: where Redis is, and how to connect. */
import type { Duration, Redacted } from "effect"
import type { ConnectionOptions } from "node:tls"
import type { Client, Cluster } from "./ioredis.ts"
import type { Address } from "./link.ts"
import type { NatMap } from "./servers.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * What all ways to connect have in common.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommonOptions {
  /**
   * Longest wait of a command for a connection, and of a sent command for any data from the server before its connection is given up.
   * Default: 5 seconds.
   */
  readonly commandTimeout?: Duration.Input | undefined
  /** Time limit of one attempt to connect, with the handshake. Default: 3 seconds. */
  readonly connectTimeout?: Duration.Input | undefined
  /** Time limit for reaching the server when the layer is built. Default: 10 seconds. */
  readonly startTimeout?: Duration.Input | undefined
  /** At most this many callers wait for a connection that is down; more fail at once. Default: 10,000. */
  readonly maxWaiting?: number | undefined
  /** Name shown by CLIENT LIST, followed by the purpose of the connection. Default: `"rotif"`. */
  readonly connectionName?: string | undefined
  /** Allows `rejectUnauthorized: false`, which is TLS without a verified server. Default: false. */
  readonly insecure?: boolean | undefined
}

/**
 * How to log in, and whether to encrypt.
 *
 * @category models
 * @since 0.1.0
 */
export interface SecurityOptions {
  readonly username?: string | undefined
  readonly password?: Redacted.Redacted<string> | string | undefined
  /** `true`, or options of `node:tls`. */
  readonly tls?: boolean | ConnectionOptions | undefined
  /** Addresses of a host name to use: IPv4, IPv6, or both (0, the default). */
  readonly family?: 0 | 4 | 6 | undefined
}

/**
 * One server, by URL: `redis://user:password@host:6379/0`, with TLS `rediss://`; a query may have `db`, `family` and `tls`. What
 * the URL and another option both say must be the same.
 *
 * @category models
 * @since 0.1.0
 */
export interface UrlOptions extends CommonOptions, SecurityOptions {
  readonly url: string | Redacted.Redacted<string>
  readonly db?: number | undefined
}

/**
 * One server, by name.
 *
 * @category models
 * @since 0.1.0
 */
export interface HostOptions extends CommonOptions, SecurityOptions {
  readonly host: string
  /** Default: 6379. */
  readonly port?: number | undefined
  readonly db?: number | undefined
}

/**
 * The master that Sentinels name. A failover is noticed through them.
 *
 * @category models
 * @since 0.1.0
 */
export interface SentinelOptions extends CommonOptions, SecurityOptions {
  readonly sentinels: ReadonlyArray<Address>
  /** The name of the master, such as `"mymaster"`. */
  readonly name: string
  readonly db?: number | undefined
  readonly sentinelUsername?: string | undefined
  readonly sentinelPassword?: Redacted.Redacted<string> | string | undefined
  readonly sentinelTls?: boolean | ConnectionOptions | undefined
  /** Maps addresses as the servers report them to addresses that can be reached from here. */
  readonly natMap?: NatMap | undefined
}

/**
 * A Redis Cluster, by some of its nodes.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClusterOptions extends CommonOptions, SecurityOptions {
  readonly cluster: ReadonlyArray<Address>
  /** Maps addresses as the nodes report them to addresses that can be reached from here. */
  readonly natMap?: NatMap | undefined
}

/**
 * The options of a client that exists. The client itself is neither used nor closed. A `keyPrefix` and
 * `replyMapping: "resp3"` are refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions extends CommonOptions {
  readonly client: Client | Cluster
}

/**
 * Where Redis is.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = UrlOptions | HostOptions | SentinelOptions | ClusterOptions | ClientOptions

/**
 * All options, whatever the place.
 *
 * @category models
 * @since 0.1.0
 */
export interface AllOptions extends UrlOptions, HostOptions, SentinelOptions, ClusterOptions, ClientOptions {}

/**
 * A client of ioredis, of one server or of a Cluster.
 *
 * @category models
 * @since 0.1.0
 */
export type IoredisClient = Client | Cluster
