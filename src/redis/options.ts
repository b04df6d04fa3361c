/** Where Redis is, and how to get there: the options of connections. */
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
   * How long a command waits for a connection, and how long a sent command waits for any sign of life of the server
   * before its connection is given up. Default: 5 seconds.
   */
  readonly commandTimeout?: Duration.Input | undefined
  /** How long one attempt to connect may take, the handshake included. Default: 3 seconds. */
  readonly connectTimeout?: Duration.Input | undefined
  /** How long the layer tries to reach the server when it is built. Default: 10 seconds. */
  readonly startTimeout?: Duration.Input | undefined
  /** How many callers may wait for a connection that is down; more fail at once. Default: 10,000. */
  readonly maxWaiting?: number | undefined
  /** Shown by CLIENT LIST, followed by the purpose of the connection. Default: `"rotif"`. */
  readonly connectionName?: string | undefined
  /** Allows `rejectUnauthorized: false`, that is, TLS with a server nobody vouches for. Default: false. */
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
  /** Which addresses of a host name are used: those of IPv4, of IPv6, or both (0, the default). */
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
  /** Addresses as the servers tell them, to addresses as they are reached from here. */
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
  /** Addresses as the nodes tell them, to addresses as they are reached from here. */
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
