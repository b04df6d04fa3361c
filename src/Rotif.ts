/**
 * The layers that wire everything: `Rotif.layer` on Redis, `Rotif.layerMemory` in memory.
 *
 * @since 0.1.0
 */
import { Config, Duration, Effect, Layer } from "effect"
import * as Broadcast from "./Broadcast.ts"
import type { BrokerError } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as DeadLetters from "./DeadLetters.ts"
import * as Deduplication from "./Deduplication.ts"
import * as Groups from "./Groups.ts"
import * as Health from "./Health.ts"
import * as Inspector from "./Inspector.ts"
import * as MemoryBroker from "./MemoryBroker.ts"
import * as Publisher from "./Publisher.ts"
import * as Redis from "./Redis.ts"
import * as RedisBroker from "./RedisBroker.ts"
import * as Scheduler from "./Scheduler.ts"
import * as Stats from "./Stats.ts"
import * as Subscription from "./Subscription.ts"
import * as Duties from "./duties/duties.ts"
import { durabilityOf } from "./internal/durabilityOption.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Limits from "./internal/optionLimits.ts"
import * as Shape from "./internal/optionShape.ts"
import { names as connectionNames } from "./redis/optionChecks.ts"

/**
 * The services of an application: publishing, scheduling, subscribing, dead letters, and the backend itself.
 *
 * @category models
 * @since 0.1.0
 */
export type Services =
  | Publisher.Publisher
  | Scheduler.Scheduler
  | Broadcast.Broadcast
  | Subscription.Subscriptions
  | DeadLetters.DeadLetters
  | Stats.Stats
  | Groups.Groups
  | Health.Health
  | Inspector.Inspector
  | Broker
  | Deduplication.Deduplication

/**
 * The services on Redis: those of every backend, and the connections, which the application may use as well (`EffectRedis`).
 *
 * @category models
 * @since 0.1.0
 */
export type RedisServices = Services | Redis.Redis

/**
 * Options on any backend.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Publisher.Options, Subscription.Defaults, DeadLetters.Options {
  /**
   * Whether this process promotes scheduled messages (makes them ready when they are due) and publishes recurring ones. At least one process
   * of the namespace must: without one they wait. Retries do not depend on it: every process with a subscription promotes them. Default `true`.
   */
  readonly delayed?: boolean | undefined
  /**
   * Fallback poll interval for waiting messages, in case a notification is lost: the wait ends exactly when the next message is due, and when
   * an earlier one arrives. Default 30 seconds.
   */
  readonly checkInterval?: Duration.Input | undefined
  /** How often acknowledged messages are removed when there is little to remove. Default 20 seconds. */
  readonly trimInterval?: Duration.Input | undefined
  /** Thresholds of a healthy program. */
  readonly health?: Health.Options | undefined
}

const dutiesShape = Shape.shape<Pick<Options, "checkInterval" | "delayed" | "trimInterval">>()({
  delayed: Shape.flag(true),
  checkInterval: Shape.span(Limits.checkInterval),
  trimInterval: Shape.span({ usual: 20_000, least: 10 })
})

/** Options of Redis are known on every backend, so that a program can use one set of options in its tests, too. */
const optionNames: ReadonlySet<string> = new Set<string>([
  ...Publisher.shape.names,
  ...Subscription.defaultNames,
  ...dutiesShape.names,
  ...["deadLetters", "health"] satisfies ReadonlyArray<keyof Options>,
  ...["prefix", "shards", "graceMillis"] satisfies ReadonlyArray<keyof RedisBroker.Options>,
  ...connectionNames
])

/** Checks all options before anything is started, connected or stored. */
const checkOptions = Effect.fnUntraced(function*(options: Options | undefined) {
  yield* Given.orDie(Given.known("the options of Rotif", options, optionNames))
  yield* Given.orDie(Publisher.shape.read(options))
  yield* Subscription.checkDefaults(options ?? {})
  yield* DeadLetters.retentionOf(options?.deadLetters)
  yield* Health.thresholdsOf(options?.health)
  yield* Given.orDie(dutiesShape.read(options))
})

/**
 * Provides publisher, scheduler, subscriptions and background duties on any broker.
 *
 * **Details**: it dies with an error that names the option, if an interval, limit or size cannot be used.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBroker = (
  options?: Options
): Layer.Layer<Exclude<Services, Deduplication.Deduplication>, never, Broker> => {
  const registry = Subscription.layerRegistry({ ...options, slowHandler: options?.health?.slowHandler })
  const duties = Layer.unwrap(Effect.map(Given.orDie(dutiesShape.read(options)), Duties.layer))
  return Layer.unwrap(Effect.as(
    checkOptions(options),
    Layer.mergeAll(
      Layer.provideMerge(Scheduler.layer(), Publisher.layer(options)),
      Broadcast.layer(options),
      registry,
      DeadLetters.layer(options),
      Layer.effect(Broker, Broker),
      Inspector.layer(),
      Groups.layer(),
      Layer.provide(Stats.layer(), registry),
      Layer.provide(Health.layer(options?.health), [registry, duties])
    )
  ))
}

/**
 * Provides everything in memory, for tests and trials. It behaves the same, on Effect's `Clock`, so that `TestClock` drives leases, delays and
 * retries. Nothing survives the layer. Handlers that still run when it closes are interrupted at once (`drainTimeout` 0).
 *
 * **Details**: a layer that is provided in several places of a program is one, as everywhere in Effect: all of them share this memory. For
 * another Rotif in the same program call `layerMemoryWith`; each call makes one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Services> = Layer.suspend(() => layerMemoryWith())

/**
 * Provides `layerMemory` with options. Each call makes a Rotif of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryWith = (options?: Options): Layer.Layer<Services> =>
  Layer.merge(
    layerBroker({ drainTimeout: 0, ...options }).pipe(Layer.provide(MemoryBroker.layer())),
    Deduplication.layerMemory()
  )

/**
 * Options on Redis: how to connect, how to lay out the data, and what is common to all backends.
 *
 * @category models
 * @since 0.1.0
 */
export type RedisOptions = Redis.Options & RedisBroker.Options & Options

/** A durability that the server cannot confirm is refused at the start, not by the first publish. */
const brokerOnRedis = Effect.fnUntraced(function*(options?: RedisBroker.Options & Options) {
  const broker = yield* RedisBroker.make(options)
  if (options?.durability !== undefined) {
    yield* broker.checkDurability(yield* Given.orDie(durabilityOf("durability", options.durability)))
  }
  return broker
})

/** The options of the connections, which refuse other names. */
const connectionOf = (options: RedisOptions): Redis.Options =>
  // `fromEntries` loses the names; the filter leaves those of `Redis.Options`.
  Object.fromEntries(Object.entries(options).filter(([name]) => connectionNames.has(name))) as unknown as Redis.Options

const onRedis = <E>(options: RedisBroker.Options & Options | undefined, connection: Layer.Layer<Redis.Redis, E>) =>
  Layer.unwrap(Effect.as(
    Effect.andThen(checkOptions(options), RedisBroker.checkOptions(options)),
    Layer.merge(
      layerBroker(options).pipe(Layer.provide(Layer.effect(Broker, brokerOnRedis(options)))),
      Deduplication.layerRedis(options)
    ).pipe(Layer.provideMerge(connection))
  ))

/**
 * Provides everything on Redis (7.0 or newer): standalone, Sentinel or Cluster.
 *
 * **Errors**: `RedisError` if Redis cannot be reached, refuses the credentials or is too old; `BrokerError` if the namespace has another number
 * of shards, or the server has no command for the `durability`.
 *
 * **Example** (A program that handles orders)
 *
 * ```ts check
 * import { Effect, Layer, Schema } from "effect"
 * import { Channel, Rotif, Subscription } from "rotif"
 *
 * const Orders = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
 * const Billing = Subscription.layer(Orders, { group: "billing", handler: (message) => Effect.log(message.payload.id) })
 *
 * const program = Layer.launch(Billing.pipe(Layer.provide(Rotif.layer({ url: "redis://localhost:6379" }))))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: RedisOptions): Layer.Layer<RedisServices, Redis.RedisError | BrokerError> =>
  onRedis(options, Redis.layer(connectionOf(options)))

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

/**
 * Reads the options from the environment. A variable that is not set leaves the default of its option.
 *
 * | name | option |
 * | --- | --- |
 * | `ROTIF_PREFIX`, `ROTIF_SHARDS` | `prefix`, `shards` |
 * | `ROTIF_GRACE` | `graceMillis`, as a span of time |
 * | `ROTIF_DELAYED` | `delayed` |
 * | `ROTIF_CHECK_INTERVAL`, `ROTIF_TRIM_INTERVAL` | `checkInterval`, `trimInterval` |
 * | `ROTIF_BLOCK_INTERVAL`, `ROTIF_LEASE`, `ROTIF_DRAIN_TIMEOUT` | `blockInterval`, `lease`, `drainTimeout` |
 * | `ROTIF_CONCURRENCY` | `concurrency` |
 * | `ROTIF_MAX_RETRIES`, `ROTIF_RETRY_DELAY`, `ROTIF_MAX_CRASHES` | `maxRetries`, `retryDelay`, `maxCrashes` |
 * | `ROTIF_MAX_PAYLOAD_BYTES`, `ROTIF_MAX_WINDOW` | `maxPayloadBytes`, `maxWindow` |
 * | `ROTIF_DURABILITY_REPLICAS`, `ROTIF_DURABILITY_FSYNC`, `ROTIF_DURABILITY_TIMEOUT` | `durability`, when one of them is there |
 * | `ROTIF_DEAD_LETTERS_MAX_AGE`, `ROTIF_DEAD_LETTERS_MAX_COUNT`, `ROTIF_DEAD_LETTERS_INTERVAL` | `deadLetters` |
 *
 * A span of time is a text such as `5 seconds`.
 *
 * @category config
 * @since 0.1.0
 */
export const config: Config.Config<RedisBroker.Options & Options> = Config.all({
  prefix: optional(Config.String("ROTIF_PREFIX")),
  shards: optional(Config.Int("ROTIF_SHARDS")),
  graceMillis: optional(Config.map(Config.Duration("ROTIF_GRACE"), Duration.toMillis)),
  delayed: optional(Config.Boolean("ROTIF_DELAYED")),
  checkInterval: optional(Config.Duration("ROTIF_CHECK_INTERVAL")),
  trimInterval: optional(Config.Duration("ROTIF_TRIM_INTERVAL")),
  blockInterval: optional(Config.Duration("ROTIF_BLOCK_INTERVAL")),
  lease: optional(Config.Duration("ROTIF_LEASE")),
  drainTimeout: optional(Config.Duration("ROTIF_DRAIN_TIMEOUT")),
  concurrency: optional(Config.Int("ROTIF_CONCURRENCY")),
  maxRetries: optional(Config.Int("ROTIF_MAX_RETRIES")),
  retryDelay: optional(Config.Duration("ROTIF_RETRY_DELAY")),
  maxCrashes: optional(Config.Int("ROTIF_MAX_CRASHES")),
  maxPayloadBytes: optional(Config.Int("ROTIF_MAX_PAYLOAD_BYTES")),
  maxWindow: optional(Config.Duration("ROTIF_MAX_WINDOW")),
  durability: Config.map(
    Config.all({
      replicas: optional(Config.Int("ROTIF_DURABILITY_REPLICAS")),
      fsync: optional(Config.Boolean("ROTIF_DURABILITY_FSYNC")),
      timeout: optional(Config.Duration("ROTIF_DURABILITY_TIMEOUT"))
    }),
    (found) => Object.values(found).some((value) => value !== undefined) ? found : undefined
  ),
  deadLetters: Config.all({
    maxAge: optional(Config.Duration("ROTIF_DEAD_LETTERS_MAX_AGE")),
    maxCount: optional(Config.Int("ROTIF_DEAD_LETTERS_MAX_COUNT")),
    interval: optional(Config.Duration("ROTIF_DEAD_LETTERS_INTERVAL"))
  })
})

/**
 * Provides `layer` with everything read from `Config`: the connection by `Redis.config`, the rest by `config`. Options that are given here win;
 * functions can only be given here.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options?: RedisBroker.Options & Options
): Layer.Layer<RedisServices, Redis.RedisError | BrokerError | Config.ConfigError> =>
  Layer.unwrap(Effect.map(config, (found) => {
    const all = { ...found, ...options, deadLetters: { ...found.deadLetters, ...options?.deadLetters } }
    return onRedis(all, Redis.layerConfig())
  }))
