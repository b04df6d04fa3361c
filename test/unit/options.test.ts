/** Every option of both APIs with values that it cannot have: refused by its own name, before anything is started, connected or stored. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Redacted, Schema } from "effect"
import {
  Broadcast,
  Broker,
  Channel,
  DeadLetters,
  Deduplication,
  Health,
  Inspector,
  Middleware,
  Publisher,
  Redis,
  RedisBroker,
  Retry,
  Rotif,
  Scheduler,
  Subscription
} from "rotif"
import {
  type DlqCleanup,
  type DlqQuery,
  InvalidOption,
  NotificationManager,
  type PublishOptions,
  type RetryStrategy,
  type RotifConfig,
  type SubscribeOptions,
  type UnsubscribeOptions
} from "rotif/promise"
import * as Api from "rotif"
import * as PromiseApi from "rotif/promise"
import { managed } from "../contract/promiseKit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

/** Passes a value that no type allows and JavaScript does. */
const any = (value: unknown) => value as never

/** Wrong values for every option of an interface: an option that is new does not compile without its own. */
type Wrong<O> = { readonly [K in keyof Required<O>]: ReadonlyArray<unknown> }

const nobody = "redis://127.0.0.1:1"
const noNumber = [Number.NaN, -1, "soon", null, {}, [], true]
const noSpan = [Number.NaN, -1, "soon", null, {}, Promise.resolve(1), () => 1]
const noText = ["", 5, null, {}, Promise.resolve("x"), "\ud800"]
const noFunction = [5, "f", null, {}]
const noFlag = [1, "yes", null, {}]
const noObject = [5, "x", null, [], Promise.resolve({})]

const rows = <O>(wrong: Wrong<O>): ReadonlyArray<readonly [option: string, value: unknown]> =>
  Object.entries(wrong as Record<string, ReadonlyArray<unknown>>).flatMap(([option, values]) =>
    values.map((value) => [option, value] as const)
  )

const textOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return assert.fail("it was accepted")
  const [reason] = exit.cause.reasons
  const error = reason?._tag === "Die" ? reason.defect : reason?._tag === "Fail" ? reason.error : undefined
  return error instanceof Error ? error.message : assert.fail("it was interrupted")
}

/** Expects each value to be refused at once: no server listens at the address. */
const refuses = (
  name: string,
  wrong: ReadonlyArray<readonly [string, unknown]>,
  run: (options: never) => Effect.Effect<unknown, unknown, never>
) =>
  describe(name, () => {
    it.effect.each([...wrong, ["notAnOption", 1]] as Array<readonly [string, unknown]>)("%s: %o", ([option, value]) =>
      Effect.gen(function*() {
        const message = textOf(yield* Effect.exit(run(any({ [option]: value }))))
        assert.include(message, option)
      }))
    it.effect("an unknown name that is undefined was not given", () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(run(any({ notAnOption: undefined })))
        if (Exit.isFailure(exit)) {
          assert.notInclude(textOf(exit), "notAnOption")
        }
      }))
  })

const built = (layer: Layer.Layer<never, unknown> | Layer.Layer<Rotif.Services, unknown>) =>
  Effect.scoped(Layer.build(layer as Layer.Layer<Rotif.Services, unknown>))

const layerOptions = rows<Rotif.Options>({
  maxPayloadBytes: noNumber,
  maxWindow: noSpan,
  durability: [...noObject, { replicas: -1 }, { fsync: 1 }, { timeout: Number.NaN }],
  groupName: noFunction,
  consumerName: noFunction,
  concurrency: [...noNumber, 0, 100_001],
  lease: [...noSpan, 99],
  blockInterval: [...noSpan, 9],
  drainTimeout: noSpan,
  maxRetries: noNumber,
  retryDelay: noSpan,
  retry: [Number.NaN, -1, "soon", null, {}],
  maxCrashes: noNumber,
  reports: [5, "warn", {}],
  deadLetters: [...noObject, { maxAge: -1 }, { maxCount: 1.5 }, { interval: 1 }, { archive: 5 }, { age: 1 }],
  delayed: noFlag,
  checkInterval: [...noSpan, 9],
  trimInterval: [...noSpan, 9],
  health: [...noObject, { timeout: 0 }, { maxLag: -1 }, { deadLetters: { max: 1 } }, { lag: 1 }]
})

refuses("Rotif.layerMemoryWith", layerOptions, (options) => built(Rotif.layerMemoryWith(options)))
refuses(
  "Rotif.layer",
  layerOptions,
  (options: object) => built(Rotif.layer({ url: nobody, startTimeout: 100, ...options } as never))
)
refuses(
  "Rotif.layer: the data",
  rows<RedisBroker.Options>({
    prefix: ["{x}", 5, null, ""],
    shards: [0, 1025, 1.5, "8", null],
    graceMillis: [Number.NaN, -1, "1 s", null]
  }),
  (options: object) => built(Rotif.layer({ url: nobody, startTimeout: 100, ...options } as never))
)

const noAddress = [5, "localhost", null, [], [5], [{ host: "", port: 1 }], [{ host: "a", port: "x" }], [{ host: "a" }]]
const noSecret = [5, null, {}, Promise.resolve("x")]
const noTls = [5, "yes", null]
refuses(
  "Redis.make",
  rows<Pick<Redis.UrlOptions, "username" | "password" | "tls" | "family" | "db"> & Redis.CommonOptions>({
    username: [5, null, {}],
    password: noSecret,
    tls: noTls,
    family: [5, "6", null],
    db: [-1, 1.5, "1", null],
    commandTimeout: [...noSpan, 0],
    connectTimeout: [...noSpan, 0],
    startTimeout: [...noSpan, 0],
    maxWaiting: noNumber,
    connectionName: ["", 5, null],
    insecure: noFlag
  }),
  (options: object) => Effect.scoped(Redis.make({ url: nobody, startTimeout: 100, ...options } as never))
)
refuses(
  "Redis.make: the place",
  [
    ...noSecret.map((value) => ["url", value] as const),
    ...[
      "http://x",
      "redis://x/a",
      "redis://x?db=a",
      "redis://x?role=1",
      "redis://x/1?db=2",
      "rediss://x?tls=false",
      "redis://x#y"
    ]
      .map((value) => ["url", value] as const),
    ...["", 5, null].map((value) => ["host", value] as const),
    ...noAddress.flatMap((value) => [["sentinels", value], ["cluster", value]] as const),
    ...[5, {}, null].map((value) => ["client", value] as const)
  ],
  (options) => Effect.scoped(Redis.make(options))
)

describe("Redis.make: a setting in both the URL and an option", () => {
  const url = "redis://ann:pw@127.0.0.1:1/3?family=4"
  const sayings: ReadonlyArray<readonly [url: string, name: string, other: unknown, instead: string]> = [
    ["rediss://127.0.0.1:1", "tls", false, "write redis://"],
    ["redis://127.0.0.1:1?tls=true", "tls", false, "write redis://"],
    ["redis://127.0.0.1:1?tls=false", "tls", true, "write rediss://"],
    ["redis://127.0.0.1:1?tls=false", "tls", {}, "write rediss://"],
    [url, "db", 0, "take it out of the URL"],
    [url, "family", 6, "take it out of the URL"],
    [url, "username", "bob", "take it out of the URL"],
    [url, "password", "other", "take it out of the URL"],
    [url, "password", Redacted.make("other"), "take it out of the URL"]
  ]
  for (const [i, [url, name, other, instead]] of sayings.entries()) {
    it.effect(`is refused where it is not the same: ${name} (${i})`, () =>
      Effect.gen(function*() {
        for (const given of [url, Redacted.make(url)]) {
          const error = yield* Effect.flip(Effect.scoped(Redis.make({ url: given, [name]: other })))
          assert.deepInclude(error, { reason: "Refused" })
          assert.include(error.message, `${name} says something else than url does`)
          assert.include(error.message, instead)
          assert.notInclude(error.message, "pw")
          assert.notInclude(error.message, "other")
        }
        assert.throws(
          () =>
            new PromiseApi.NotificationManager({
              redis: { url, [name]: Redacted.isRedacted(other) ? "other" : other }
            }),
          new RegExp(`redis\\.${name}.* says something else than redis\\.url does`)
        )
      }))
  }

  it("is taken where it is the same, or where one of them says nothing", () => {
    const same: ReadonlyArray<Redis.UrlOptions> = [
      { url, db: 3, family: 4, username: "ann", password: Redacted.make("pw") },
      { url: "rediss://127.0.0.1:1", tls: { servername: "x" } },
      { url: "rediss://127.0.0.1:1", tls: true },
      { url: "redis://127.0.0.1:1", tls: true, db: 2, password: "pw" }
    ]
    for (const options of same) Redis.clientUnsafe(options).disconnect()
  })

  for (
    const [option, value] of [
      ["url", "/run/redis.sock"],
      ["url", "unix:///run/redis.sock"],
      ["url", "redis+unix:///run/redis.sock"],
      ["url", "redis-socket:///run/redis.sock"],
      ["url", "redis:///run/redis.sock"],
      ["host", "/run/redis.sock"],
      ["path", "/run/redis.sock"]
    ] as const
  ) {
    it.effect(`names the form for a Unix socket: ${option} ${value}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(Redis.make({ [option]: value } as never)))
        assert.include(error.message, "Unix socket")
        assert.include(error.message, "{ client: new Redis({ path: ")
      }))
  }
})

const memory = <A, E>(effect: Effect.Effect<A, E, Rotif.Services>) =>
  Effect.provide(
    Effect.tapCause(effect, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* Subscription.running, [])
        const broker = yield* Broker.Broker
        assert.deepStrictEqual(yield* broker.info({ _tag: "Pattern", pattern: "**" }), {
          channels: [],
          waiting: 0,
          dead: 0
        })
      })),
    Rotif.layerMemory
  )

const handler = () => Effect.void
refuses(
  "Subscription.make",
  rows<Subscription.Options<typeof Text, never, never>>({
    group: noText,
    consumer: noText,
    concurrency: [...noNumber, 0],
    prefetch: noNumber,
    startFrom: ["first", 5, null, { position: "x" }, { time: Number.NaN }, { time: "2027-02-30" }],
    lease: [...noSpan, 99],
    blockInterval: [...noSpan, 9],
    drainTimeout: noSpan,
    maxCrashes: noNumber,
    ordering: ["park", "skip", 5, null],
    expired: ["keep", 5, null],
    reports: [5, "warn"],
    slowHandler: [...noSpan, 0],
    pauseWhen: [5, null, {}, { dead: 0, within: 1000 }, { dead: 5 }, { dead: 5, within: 99 }, {
      dead: 5,
      within: 1000,
      of: 1
    }],
    handler: noFunction,
    middleware: [5, {}, [5], [Middleware.publish((next) => next)]],
    timeout: [...noSpan, 0],
    ackMode: ["never", 5, null],
    retry: [Number.NaN, -1, "soon", null, {}],
    maxRetries: noNumber,
    retryDelay: noSpan,
    exactlyOnce: [5, "yes", null, { key: 5 }, { ttl: Number.NaN }, { keys: 5 }],
    transactional: noFlag
  }),
  (options: object) => memory(Effect.scoped(Subscription.make(Text, any({ handler, ...options }))))
)

refuses(
  "Publisher.publish",
  rows<Publisher.AnyOptions>({
    headers: [...noObject, { a: 5 }],
    id: noText,
    deduplicate: [...noObject, { window: Number.NaN }],
    throttle: [...noObject, { key: "k", window: Number.NaN }, { key: 5, window: 1 }],
    debounce: [...noObject, { key: "k", delay: Number.NaN }],
    orderingKey: ["", "x".repeat(513), "\ud800", 5, {}, Promise.resolve("k")],
    delay: noSpan,
    at: [Number.NaN, "soon", null, {}, true, "2027-02-30"],
    expiresIn: [...noSpan, 0],
    durability: [...noObject, { replicas: -1 }],
    params: [...noObject]
  }),
  (options) => memory(Publisher.publish(Text, "x", options))
)
refuses(
  "Broadcast.publish",
  rows<{ readonly headers: unknown; readonly params: unknown }>({
    headers: [...noObject, { a: 5 }],
    params: [...noObject]
  }),
  (options) => memory(Broadcast.publish(Text, "x", options))
)
refuses(
  "Broadcast.listen",
  rows<Broadcast.ListenOptions<typeof Text, never, never>>({
    capacity: [...noNumber, 0],
    maxBufferedChars: [...noNumber, 0],
    overflow: ["wait", 5, null],
    onGap: noFunction,
    onInvalid: noFunction,
    handler: noFunction,
    concurrency: [...noNumber, 0]
  }),
  (options: object) => memory(Effect.scoped(Broadcast.listen(Text, any({ handler, ...options }))))
)
refuses(
  "Scheduler.recurring",
  rows<Scheduler.RecurringOptions>({
    headers: [...noObject, { a: 5 }],
    orderingKey: ["", "x".repeat(513), "\ud800", 5],
    expiresIn: [...noSpan, 0],
    timeZone: ["Nowhere", 5, null],
    catchUp: ["some", 5, null, { all: 0 }]
  }),
  (options) => memory(Scheduler.recurring("k", "* * * * *", Text, "x", options))
)
refuses(
  "DeadLetters.subscribe",
  rows<DeadLetters.SubscribeOptions<never, never, never>>({
    name: noText,
    group: [5, null],
    startFrom: ["first", 5, null],
    concurrency: [...noNumber, 0],
    lease: [...noSpan, 99],
    checkInterval: [...noSpan, 9],
    drainTimeout: noSpan,
    slowHandler: [...noSpan, 0],
    handler: noFunction,
    retry: [Number.NaN, null, {}]
  }),
  (options: object) => memory(Effect.scoped(DeadLetters.subscribe(any({ handler, ...options }))))
)
refuses(
  "DeadLetters.list",
  rows<DeadLetters.PageOptions>({ limit: [...noNumber, 0], cursor: ["x", 5, null], order: ["last", 5, null] }),
  (options) => memory(DeadLetters.list({}, options))
)
refuses(
  "DeadLetters.requeueAll",
  rows<DeadLetters.RequeueAllOptions>({
    limit: [...noNumber, 0],
    rate: [Number.NaN, 0, "1", null],
    dryRun: noFlag,
    onProgress: noFunction
  }),
  (options: object) => memory(DeadLetters.requeueAll({}, any({ limit: 1, ...options })))
)
refuses(
  "a filter of DeadLetters",
  [
    ...[5, null, "orders.{a,b}", "orders.?"].map((value) => ["channel", value] as const),
    ...[5, {}].flatMap((value) => [["group", value], ["errorTag", value]] as const),
    ...["gone", 5, ["gone"]].map((value) => ["reason", value] as const),
    ...[Number.NaN, "2027-02-30", {}].flatMap((value) => [["from", value], ["to", value]] as const)
  ],
  (filter) => memory(DeadLetters.purge(filter))
)
refuses(
  "Inspector.verify",
  rows<Inspector.Options>({ tolerance: noSpan, confirmAfter: noSpan, limit: [...noNumber, 0] }),
  (options) => memory(Inspector.verify(options))
)
refuses(
  "Deduplication.once",
  rows<Deduplication.OnceOptions>({ lease: [...noSpan, 1] }),
  (options) => memory(Deduplication.once("k", "1 day", Effect.void, options))
)
refuses(
  "Health.layer",
  rows<Omit<Health.Options, "deadLetters">>({
    timeout: [...noSpan, 0],
    latency: noSpan,
    staleAfter: noSpan,
    hungAfter: noSpan,
    slowHandler: noSpan,
    maxLag: noNumber,
    maxPending: noNumber,
    maxAge: noSpan
  }),
  (health) => built(Rotif.layerMemoryWith({ health }))
)

const thrown = (run: () => unknown): Effect.Effect<unknown, Error> =>
  Effect.try({ try: run, catch: (error) => error as Error })
refuses(
  "Channel.make",
  [
    ...[5, null, {}, "x"].map((value) => ["payload", value] as const),
    ...noFunction.map((value) => ["idempotencyKey", value] as const),
    ...[...noObject, { maxLength: 0 }, { maxAge: 0 }, { maxAge: Infinity }, { minId: "x" }, { maxlength: 1 }].map((
      value
    ) => ["limits", value] as const)
  ],
  (options: object) => thrown(() => Channel.make("a", any({ payload: Schema.String, ...options })))
)
refuses(
  "Retry.exponential",
  rows<Retry.StrategyOptions & { readonly factor: unknown }>({
    max: noSpan,
    times: noNumber,
    jitter: ["some", -1, 2, null],
    factor: [0, -1, Number.NaN, Infinity]
  }),
  (options) => thrown(() => Retry.exponential(1, options))
)
refuses(
  "Middleware.rateLimit",
  rows<Middleware.RateLimitOptions>({
    limit: [...noNumber, 0],
    window: [...noSpan, 0],
    algorithm: ["some", 5, null],
    onExceeded: ["some", 5, null],
    key: noFunction
  }),
  (options: object) => thrown(() => Middleware.rateLimit(any({ limit: 1, window: 1, ...options })))
)
refuses(
  "Middleware.circuitBreaker",
  rows<Middleware.CircuitBreakerOptions>({
    key: noFunction,
    classify: noFunction,
    whenOpen: ["some", 5, null],
    probeInterval: [...noSpan, 0]
  }),
  (options) => thrown(() => Middleware.circuitBreaker(options))
)

describe("NotificationManager", () => {
  type Meaningless =
    | "scheduledBatchSize"
    | "pendingCheckInterval"
    | "pendingIdleThreshold"
    | "disablePendingMessageRecovery"
    | "pipelineBatchSize"
    | "enablePipelining"
    | "enableFieldPooling"
    | "enableBackpressure"
    | "backpressureThreshold"
    | "enableHealthCheck"
  const noMillis = [Number.NaN, Infinity, -1, "1s", null, {}]
  const strategy: Wrong<RetryStrategy> = {
    strategy: ["random", 5, null],
    baseDelay: noMillis,
    multiplier: [0, -1, Number.NaN, "2", null],
    maxDelay: noMillis,
    jitter: ["some", -1, 2, null],
    customDelayFn: noFunction
  }
  const cleanup: Wrong<DlqCleanup> = {
    enabled: noFlag,
    maxAge: noMillis,
    maxSize: [...noNumber, 1.5],
    cleanupInterval: [...noMillis, 1],
    archiveBeforeDelete: noFlag,
    archivePrefix: ["", "a..b", 5, null]
  }
  const config: Wrong<Omit<RotifConfig, Meaningless | "dlqCleanup">> = {
    redis: [6379, "", null, [], "http://x", "redis://localhost?role=slave"],
    channels: [5, null, []],
    maxRetries: [...noNumber, 100_001],
    retryDelay: noMillis,
    retryStrategy: ["random", 5, null],
    checkDelayInterval: [...noMillis, 1],
    enableDelayed: noFlag,
    disableDelayed: noFlag,
    blockInterval: [...noMillis, 1],
    logger: [5, null, {}, { info: () => {} }],
    maxStreamLength: [...noNumber, 0, 1.5],
    minStreamId: ["first", 5, null],
    groupNameFn: noFunction,
    consumerNameFn: noFunction,
    deduplicationTTL: [0, ...noMillis, 1e12],
    generateDedupKey: noFunction,
    generateOrderingKey: noFunction,
    localRoundRobin: noFlag,
    concurrency: [...noNumber, 0, 100_001],
    prefix: ["{x}", "", 5, null],
    shards: [0, 1025, 1.5, "8", null],
    lease: [...noMillis, 99, 1e12],
    drainTimeout: [...noMillis, 1e12],
    healthInterval: [...noMillis, 1],
    dlqKey: noText,
    maxPayloadBytes: [...noNumber, 0],
    durability: [...noObject],
    reports: ["loud", 5, true, null],
    slowHandler: [...noMillis, 0]
  }
  const all = [
    ...rows(config).map(([option, value]) => [option, { [option]: value }] as const),
    ...rows(strategy).map(([option, value]) =>
      [`retryStrategy.${option}`, { retryStrategy: { [option]: value } }] as const
    ),
    ...rows(cleanup).map(([option, value]) => [`dlqCleanup.${option}`, { dlqCleanup: { [option]: value } }] as const),
    ["durability.replicas", { durability: { replicas: 0 } }],
    ["durability.timeout", { durability: { timeout: Number.NaN } }],
    ["redis.keyPrefix", { redis: { url: nobody, keyPrefix: "x" } }],
    ["redis.prt", { redis: { host: "a", prt: 1 } }],
    ["redis.host", { redis: { url: nobody, host: "a" } }],
    ["redis.natMap", { redis: { url: nobody, natMap: {} } }],
    ["disableDelayed", { enableDelayed: true, disableDelayed: true }],
    ["messageConcurrency", { messageConcurrency: 5 }],
    [`channels["a..b"]`, { channels: { "a..b": {} } }],
    [`channels["a"]`, { channels: { a: 5 } }],
    [`channels["a"].schema`, { channels: { a: { schema: { parse: () => 1 } } } }],
    [`channels["a"].scheme`, { channels: { a: { scheme: 1 } } }]
  ] as ReadonlyArray<readonly [string, object]>
  it.each(all)("%s: the constructor throws", (option, options) => {
    try {
      new NotificationManager(any(options))
    } catch (error) {
      assert.instanceOf(error, InvalidOption)
      assert.strictEqual(error.option, option)
      return
    }
    assert.fail("it was accepted")
  })

  const rejects = async (option: string, call: Promise<unknown>) => {
    const error: unknown = await call.then(() => assert.fail("it was accepted"), (error: unknown) => error)
    assert.instanceOf(error, InvalidOption)
    assert.strictEqual(error.option, option)
  }
  const subscribing: Wrong<SubscribeOptions> = {
    group: noText,
    groupName: noText,
    consumerName: noText,
    maxRetries: noNumber,
    retryDelay: noMillis,
    retryStrategy: ["random", 5, null],
    exactlyOnce: noFlag,
    ordering: ["park", "skip", 5, null],
    deduplicationTTL: [0, Number.NaN, "1", null],
    startFrom: ["first", 5, null, {}],
    concurrency: [...noNumber, 0],
    lease: [...noMillis, 99],
    localRoundRobin: noFlag,
    pauseWhen: [5, null]
  }
  it.each(rows(subscribing))(
    "subscribe, %s: %o",
    (option, value) => rejects(option, managed({ redis: "memory" }).subscribe("a", () => {}, any({ [option]: value })))
  )

  const publishing: Wrong<Omit<PublishOptions, "attempt">> = {
    delayMs: [Number.NaN, Infinity, "1s", null, {}],
    deliverAt: [Number.NaN, "soon", null, {}, "2027-02-30"],
    exactlyOnce: noFlag,
    dedupKey: ["", 5, null, {}],
    deduplicationTTL: [0, Number.NaN, "1", null],
    headers: noObject,
    orderingKey: ["", "x".repeat(513), "\ud800", 5, {}],
    durability: [5, "x", true, null]
  }
  it.each(rows(publishing))(
    "publish, %s: %o",
    (option, value) => rejects(option, managed({ redis: "memory" }).publish("a", 1, any({ [option]: value })))
  )

  const query: Wrong<DlqQuery> = {
    channel: [5, null, "", "orders.{a,b}"],
    limit: noNumber,
    offset: noNumber,
    maxAge: noMillis,
    group: noText,
    reason: ["dead", 5, null],
    errorName: noText,
    order: ["first", 5, null]
  }
  it.each(rows(query))(
    "getDLQMessages, %s: %o",
    (option, value) => rejects(option, managed({ redis: "memory" }).getDLQMessages(any({ [option]: value })))
  )

  const unsubscribing: Wrong<UnsubscribeOptions> = { removeGroup: noFlag }
  it.each(rows(unsubscribing))("unsubscribe, %s: %o", async (option, value) => {
    const subscription = await managed({ redis: "memory" }).subscribe("a", () => {})
    await rejects(option, subscription.unsubscribe(any({ [option]: value })))
  })

  it("takes options of ioredis, and connects with those of a connection", () => {
    const manager = managed({
      redis: { port: 6390, family: 4, retryStrategy: () => 100, maxRetriesPerRequest: 3, lazyConnect: false }
    })
    const { options } = manager.redis as never as { readonly options: Record<string, unknown> }
    assert.deepInclude(options, { host: "localhost", port: 6390, family: 4, maxRetriesPerRequest: 3 })
    assert.strictEqual(manager.redis.status, "wait")
    const { options: byUrl } = managed({ redis: "redis://localhost:6390?db=3&tls=true&family=6" }).redis as never as {
      readonly options: Record<string, unknown>
    }
    assert.deepInclude(byUrl, { db: 3, family: 6 })
    assert.isDefined(byUrl["tls"])
  })
})

describe("errors", () => {
  it("no two of them have one tag", () => {
    const classes = new Map<string, Set<unknown>>()
    const collect = (value: unknown, depth: number) => {
      if (typeof value === "function" && value.prototype instanceof Error) {
        // The tag is in the prototype of every tagged error, as its name.
        const tag: unknown = value.prototype.name
        if (typeof tag === "string" && tag !== "Error") classes.set(tag, (classes.get(tag) ?? new Set()).add(value))
      } else if (typeof value === "object" && value !== null && depth < 2) {
        for (const inner of Object.values(value)) collect(inner, depth + 1)
      }
    }
    collect(Api, 0)
    collect(PromiseApi, 0)
    assert.isAbove(classes.size, 20)
    assert.deepStrictEqual([...classes].filter(([, found]) => found.size > 1).map(([tag]) => tag), [])
  })
})
