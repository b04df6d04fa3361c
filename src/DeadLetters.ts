/**
 * Dead letters: what groups gave up on. Look at them, send them home, throw them away, or be told when one arrives.
 *
 * A dead letter belongs to the group that failed; the other groups of the channel handled the message, or have letters of their own.
 * Requeueing sends it back to that group only.
 *
 * @since 0.1.0
 */
import type { Duration, Option, Scope } from "effect"
import { Context, Data, Effect, Layer, Option as Opt, Queue, Result, Stream } from "effect"
import type { BrokerError } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import type { DeadLetter, Filter, Offered, OfferedOf } from "./DeadLetter.ts"
import { fromLetter, InvalidDeadLetterOption } from "./DeadLetter.ts"
import * as Publisher from "./Publisher.ts"
import * as Retry from "./Retry.ts"
import type { LetterCount } from "./broker/deadLetters.ts"
import * as Query from "./deadLetters/query.ts"
import * as RetentionDuty from "./deadLetters/retention.ts"
import * as Subscription from "./deadLetters/subscription.ts"
import * as Calls from "./internal/calls.ts"
import * as Ending from "./internal/ending.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Limits from "./internal/optionLimits.ts"
import { tellEnd } from "./internal/reports.ts"
import * as Envelope from "./publisher/envelope.ts"

/**
 * Options of `list`: the size of a page, where it begins, and the order.
 *
 * @category models
 * @since 0.1.0
 */
export interface PageOptions {
  /** Letters in a page, 1 to 1,000. Default 100. */
  readonly limit?: number | undefined
  /** The `cursor` of the page before. */
  readonly cursor?: string | undefined
  /** Default `"newest"` first. */
  readonly order?: "newest" | "oldest" | undefined
}

/**
 * Some dead letters, and where the next page begins; no `cursor`: there are no more.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly letters: ReadonlyArray<DeadLetter>
  readonly cursor: string | undefined
}

/**
 * Another payload for a message that goes back to its group.
 *
 * @category models
 * @since 0.1.0
 */
export interface Edit<C extends Channel.Any> {
  readonly channel: C
  readonly payload: Channel.PayloadOf<C>
}

/**
 * Options of `requeueAll`: the limit, the rate, and whether anything is moved.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequeueAllOptions {
  /** Requeue at most so many. */
  readonly limit: number
  /** At most so many a second. Default: as fast as possible. */
  readonly rate?: number | undefined
  /** Only count what would be requeued. */
  readonly dryRun?: boolean | undefined
  /** Told after each batch. */
  readonly onProgress?: ((progress: Progress) => Effect.Effect<void>) | undefined
}

/**
 * How far `requeueAll` is: the letters found, and the letters moved.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  /** Letters found. */
  readonly matched: number
  /** Letters requeued by this call. Fewer than `matched` when others took them first, when they cannot be read, or in a dry run. */
  readonly moved: number
}

/**
 * How long dead letters are kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retention {
  /** Dead letters older than this are deleted. Default 90 days; `"Infinity"`: never. */
  readonly maxAge?: Duration.Input | undefined
  /** The oldest are deleted when there are more than so many in all. Default 100,000; `Infinity`: no limit. */
  readonly maxCount?: number | undefined
  /** How often this is looked at, by one of the processes. Default 1 minute. */
  readonly interval?: Duration.Input | undefined
  /** Whether that is done by itself. `expire` acts on these limits in either case. Default `true`. */
  readonly enabled?: boolean | undefined
  /**
   * Gets the letters before they are deleted, at most 100 at a time. When it fails nothing is deleted, and they come again; also after a
   * crash, so that it gets each letter at least once. Default: none.
   *
   * **Details**: an archive may publish to a channel. Take `dlq-archive`, or a name below it (`dlq-archive.orders`): no wildcard of a
   * subscription matches these, and dead letters of these channels are deleted without being archived again.
   */
  readonly archive?: ((letters: ReadonlyArray<DeadLetter>) => Effect.Effect<void, unknown>) | undefined
  /** The channel that `archive` publishes to, where it is another one: dead letters of it are deleted without being archived again. */
  readonly archiveChannel?: string | undefined
}

/**
 * Options of `make` and `layer`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Publisher.Options {
  /** How long dead letters are kept. */
  readonly deadLetters?: Retention | undefined
  /** How long the end of a subscription to dead letters waits for handlers that run. Default 30 seconds. */
  readonly drainTimeout?: Duration.Input | undefined
}

/**
 * Options of a stream of dead letters.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamOptions {
  /** Processes that subscribe under the same name share the letters; each name gets every letter. Default `"dead-letters"`. */
  readonly name?: string | undefined
  /** Only letters of this group. The others are passed over for this name. */
  readonly group?: string | undefined
  /** Where a name that is new begins. Default `"earliest"`: with the oldest letter there is. */
  readonly startFrom?: "earliest" | "latest" | undefined
  /** How many letters are handled at a time. Default 1. */
  readonly concurrency?: number | undefined
  /** How long a letter belongs to this process without a renewal, which is done three times in this time. Default 30 seconds, at least 100 ms. */
  readonly lease?: Duration.Input | undefined
  /** A handler that runs for longer is told once, in the log and in the metric `rotif.process.slow`. Default 5 minutes. */
  readonly slowHandler?: Duration.Input | undefined
  /** How often is looked for letters without being told. Only a safety net. Default 30 seconds. */
  readonly checkInterval?: Duration.Input | undefined
  /** How long the end of the subscription waits for handlers that run before it interrupts them. Default: that of the layer, 30 seconds. */
  readonly drainTimeout?: Duration.Input | undefined
}

/**
 * Options of a subscription to dead letters: those of a stream, the handler, and its retry policy.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscribeOptions<L, E, R> extends StreamOptions {
  /**
   * Handles one letter. `letter.ack` deletes it; when the handler succeeds without settling it, it stays and is not offered again under
   * this name. When it fails or dies, the letter is offered again after a delay.
   */
  readonly handler: (letter: L) => Effect.Effect<unknown, E, R>
  /**
   * The policy for letters whose handler failed, or the name of one of `Retry.layer`; the attempt is `offerCount`. When the policy ends, the
   * letter is kept. Default: after 1 second, then twice as long each time, up to 5 minutes.
   */
  readonly retry?: Retry.AnyRule | Retry.Name | undefined
}

/**
 * The letter is of another channel than the edited payload. Nothing was moved.
 *
 * @category errors
 * @since 0.1.0
 */
export class WrongChannel extends Data.TaggedError("WrongChannel")<{
  readonly letterId: string
  /** The channel of the letter. */
  readonly channel: string
  /** The channel of the edit. */
  readonly given: string
}> {
  override get message() {
    return `dead letter ${this.letterId} is of channel "${this.channel}", the edited payload of "${this.given}": edit it with its own channel`
  }
}

type QueryError = InvalidDeadLetterOption | BrokerError

/**
 * Dead letters of all channels and groups; see the functions of the same names.
 *
 * @category services
 * @since 0.1.0
 */
export class DeadLetters extends Context.Service<DeadLetters, {
  readonly list: (filter?: Filter, options?: PageOptions) => Effect.Effect<Page, QueryError>
  readonly all: (filter?: Filter, options?: Pick<PageOptions, "order">) => Stream.Stream<DeadLetter, QueryError>
  readonly get: (letterId: string) => Effect.Effect<Option.Option<DeadLetter>, QueryError>
  readonly count: (filter?: Filter) => Effect.Effect<number, QueryError>
  readonly counts: (filter?: Pick<Filter, "channel" | "group" | "reason">) => Effect.Effect<
    ReadonlyArray<LetterCount>,
    QueryError
  >
  readonly requeue: <C extends Channel.Any = never>(letterId: string, edit?: Edit<C>) => Effect.Effect<
    boolean,
    QueryError | WrongChannel | Channel.InvalidPayload | Publisher.PayloadTooLarge,
    Channel.EncodingServices<C>
  >
  readonly requeueAll: (filter: Filter, options: RequeueAllOptions) => Effect.Effect<Progress, QueryError>
  readonly remove: (letterId: string) => Effect.Effect<boolean, QueryError>
  readonly purge: (filter: Filter) => Effect.Effect<number, QueryError>
  readonly expire: Effect.Effect<number, BrokerError>
  readonly subscribe: <E, R>(
    source: Channel.Source | undefined,
    options: SubscribeOptions<never, E, R>
  ) => Effect.Effect<void, InvalidDeadLetterOption, R | Scope.Scope>
  /** The ends of the subscriptions to dead letters that have not ended. */
  readonly endings: ReadonlySet<Ending.Ending>
  readonly forget: (name: string) => Effect.Effect<void, QueryError>
}>()("rotif/DeadLetters") {}

const invalid = (option: string, message: string) => new InvalidDeadLetterOption({ option, message })

const option = <A>(found: Result.Result<A, Given.Problem>): Effect.Effect<A, InvalidDeadLetterOption> =>
  Effect.fromResult(Result.mapError(found, (problem) => new InvalidDeadLetterOption(problem)))

const retentionNames: ReadonlySet<string> = new Set<keyof Retention>([
  "maxAge",
  "maxCount",
  "interval",
  "archive",
  "enabled",
  "archiveChannel"
])
const pageNames: ReadonlySet<string> = new Set<keyof PageOptions>(["limit", "cursor", "order"])
const requeueAllNames: ReadonlySet<string> = new Set<keyof RequeueAllOptions>(["limit", "rate", "dryRun", "onProgress"])
const subscribeNames: ReadonlySet<string> = new Set<keyof SubscribeOptions<never, never, never>>([
  "name",
  "group",
  "startFrom",
  "concurrency",
  "slowHandler",
  "lease",
  "checkInterval",
  "drainTimeout",
  "handler",
  "retry"
])

/**
 * The retention as it is used; it dies of one that cannot be.
 *
 * @internal
 */
export const retentionOf = Effect.fnUntraced(
  function*(options: Options | undefined): Effect.fn.Return<RetentionDuty.Options> {
    const { archive, archiveChannel, interval, maxAge, maxCount } =
      (yield* Given.orDie(Given.known("deadLetters", options?.deadLetters, retentionNames, "deadLetters."))) ?? {}
    yield* Given.orDie(Given.func("deadLetters.archive", archive))
    const span = (name: string, value: Duration.Input | undefined, bounds: Given.Bounds) =>
      Given.orDie(Given.span(`deadLetters.${name}`, value, bounds))
    return {
      // What is not a number of something must not count as 0 here: that would delete every letter.
      maxAgeMillis: yield* span("maxAge", maxAge, { usual: 7_776_000_000, least: 0, most: Infinity }),
      maxCount: maxCount === Infinity ? maxCount : yield* Given.orDie(
        Given.count("deadLetters.maxCount", maxCount, { usual: 100_000, least: 0, most: Number.MAX_SAFE_INTEGER })
      ),
      // Neither a busy loop nor a lease without an end.
      intervalMillis: yield* span("interval", interval, { usual: 60_000, least: 10, most: 86_400_000 }),
      archive: (shard, letters) =>
        archive === undefined
          ? Effect.void
          : Given.contained(
            Given.effect("deadLetters.archive", () => archive(letters.map((letter) => fromLetter(shard, letter))))
          ),
      archiveChannel,
      refusals: RetentionDuty.makeRefusals()
    }
  }
)

/** What changes letters wants to be told which: a filter that was forgotten must not mean all. */
const given = (filter: Filter): Effect.Effect<Filter, InvalidDeadLetterOption> => {
  const problem = Query.filterProblem(filter)
  return problem === undefined ? Effect.succeed(filter) : Effect.fail(invalid("filter", problem))
}

/**
 * Makes the service on the broker in the context, without the retention. Use `layer` unless you wire services yourself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options?: Options) {
  const broker = yield* Broker
  const store = broker.letters
  const retention = yield* retentionOf(options)
  const largest = yield* Given.orDie(Envelope.limitOf(options?.maxPayloadBytes))
  const drainMillis = yield* Given.orDie(Given.span("drainTimeout", options?.drainTimeout, Limits.drainTimeout))
  const endings = yield* Ending.registry
  const policies = yield* Retry.Retry
  const everywhere = Array.from({ length: broker.shards }, (_, shard) => shard)

  /** Where a letter may be; a text that is no id of a letter names none. */
  const placeOf = (letterId: string): Effect.Effect<Query.Place | undefined, InvalidDeadLetterOption> =>
    Effect.map(option(Given.name("letterId", letterId, 512)), (text) => {
      const place = Query.parsePlace(text)
      return place === undefined || place.shard >= broker.shards ? undefined : place
    })

  const list = Effect.fnUntraced(function*(
    filter?: Filter,
    options?: PageOptions
  ): Effect.fn.Return<Page, InvalidDeadLetterOption | BrokerError> {
    const query = yield* Query.make(broker, filter)
    yield* option(Given.known("the options", options, pageNames))
    const limit = yield* option(Given.count("limit", options?.limit, { usual: 100, least: 1, most: 1_000 }))
    const order = yield* option(Given.choice("order", options?.order, ["newest", "oldest"]))
    const from = options?.cursor === undefined ? undefined : Query.parsePlace(options.cursor)
    if (options?.cursor !== undefined && from === undefined) {
      return yield* option(Given.refuse("cursor", "the cursor of a page", options.cursor))
    }
    const next = Query.scan(store, query, { order, from, wanted: limit + 1 })
    const letters: Array<DeadLetter> = []
    while (true) {
      const found = yield* next
      if (found === undefined) return { letters, cursor: undefined }
      if (letters.length === limit) return { letters, cursor: letters[limit - 1]!.letterId }
      letters.push(fromLetter(found.shard, found.letter))
    }
  })

  const all = (filter?: Filter, options?: Pick<PageOptions, "order">): Stream.Stream<DeadLetter, QueryError> =>
    Stream.paginate(undefined as string | undefined, (cursor) =>
      Effect.map(
        list(filter, { ...options, cursor }),
        (page) => [page.letters, page.cursor === undefined ? Opt.none() : Opt.some(page.cursor)] as const
      ))

  const counts = Effect.fnUntraced(function*(filter?: Filter) {
    const { matches, shards } = yield* Query.make(broker, filter)
    const rows = yield* Effect.forEach(shards, (shard) => store.counts(shard), { concurrency: 8 })
    const sums = new Map<string, LetterCount>()
    for (const row of rows.flat()) {
      if (!matches({ ...row, failure: row, malformed: undefined })) continue
      const key = `${row.group}\n${row.channel}\n${row.reason}`
      sums.set(key, { ...row, count: row.count + (sums.get(key)?.count ?? 0) })
    }
    return [...sums.values()].sort((a, b) => b.count - a.count)
  })

  const countAll = Effect.fnUntraced(function*(filter: Filter = {}) {
    const query = yield* Query.make(broker, filter)
    const { errorTag, from, to } = filter
    if (errorTag === undefined && from === undefined && to === undefined) {
      const isAll = filter.channel === undefined && filter.group === undefined && filter.reason === undefined
      const sizes = isAll
        ? yield* Effect.forEach(everywhere, (shard) => store.size(shard), { concurrency: 8 })
        : (yield* counts(filter)).map((row) => row.count)
      return sizes.reduce((sum, size) => sum + size, 0)
    }
    const next = Query.scan(store, query, { order: "oldest", wanted: 1000 })
    let found = 0
    while ((yield* next) !== undefined) found++
    return found
  })

  const get = Effect.fnUntraced(function*(letterId: string) {
    const place = yield* placeOf(letterId)
    const letter = place === undefined ? undefined : yield* store.get(place.shard, place.letterId)
    return letter === undefined ? Opt.none<DeadLetter>() : Opt.some(fromLetter(place!.shard, letter))
  })

  const requeue = Effect.fnUntraced(function*<C extends Channel.Any>(letterId: string, edit?: Edit<C>) {
    const place = yield* placeOf(letterId)
    if (place === undefined) return false
    let payload: string | undefined
    if (edit !== undefined) {
      yield* option(Given.record("edit", edit))
      const letter = yield* store.get(place.shard, place.letterId)
      if (letter === undefined) return false
      const { name } = Channel.isChannel(edit.channel)
        ? edit.channel
        : yield* option(Given.refuse("edit.channel", "made by Channel.make", edit.channel))
      if (letter.channel !== name) return yield* new WrongChannel({ letterId, channel: letter.channel, given: name })
      payload = yield* Channel.encode(edit.channel, edit.payload)
      const bytes = Envelope.bytesAbove(largest, { payload })
      if (bytes !== undefined) return yield* new Publisher.PayloadTooLarge({ channel: name, bytes, limit: largest })
    }
    return (yield* store.requeue(place.shard, [{ letterId: place.letterId, payload }])).length > 0
  })

  const requeueAll = Effect.fnUntraced(function*(filter: Filter, options: RequeueAllOptions) {
    yield* option(Given.record("the options", yield* option(Given.known("the options", options, requeueAllNames))))
    const bounds = { usual: 0, least: 1, most: Number.MAX_SAFE_INTEGER }
    const limit = yield* option(Given.count("limit", options.limit ?? Number.NaN, bounds))
    const { onProgress, rate } = options
    const dryRun = yield* option(Given.flag("dryRun", options.dryRun, false))
    yield* option(Given.func("onProgress", onProgress))
    if (rate !== undefined && !(typeof rate === "number" && rate > 0)) {
      return yield* option(Given.refuse("rate", "a number of letters a second above 0", rate))
    }
    // About ten batches a second, so that a rate is kept evenly.
    const batch = rate === undefined || dryRun === true ? 100 : Math.max(1, Math.min(100, Math.floor(rate / 10)))
    return yield* Query.sweep(
      store,
      yield* Query.make(broker, yield* given(filter)),
      limit,
      batch,
      (shard, letterIds) =>
        dryRun === true
          ? Effect.succeed(0)
          : Effect.map(store.requeue(shard, letterIds.map((letterId) => ({ letterId }))), (moved) => moved.length),
      (progress, size) =>
        Effect.andThen(
          onProgress === undefined ? Effect.void : Given.effect("onProgress", () => onProgress(progress)),
          rate === undefined || dryRun === true || progress.matched >= limit
            ? Effect.void
            : Effect.sleep((size / rate) * 1000)
        )
    )
  })

  const service = DeadLetters.of({
    list,
    all,
    get,
    count: countAll,
    counts,
    requeue,
    requeueAll,
    remove: Effect.fnUntraced(function*(letterId) {
      const place = yield* placeOf(letterId)
      if (place === undefined) return false
      return (yield* store.remove(place.shard, [place.letterId])).length > 0
    }),
    purge: Effect.fnUntraced(function*(filter) {
      const { moved } = yield* Query.sweep(
        store,
        yield* Query.make(broker, yield* given(filter)),
        Number.MAX_SAFE_INTEGER,
        100,
        (shard, letterIds) => Effect.map(store.remove(shard, letterIds), (removed) => removed.length),
        () => Effect.void
      )
      return moved
    }),
    expire: RetentionDuty.pass(store, broker.shards, retention, Effect.succeed(true)),
    subscribe: Effect.fnUntraced(function*(source, options) {
      if (source !== undefined && !Channel.isSource(source)) {
        return yield* invalid("source", "the source must be made by Channel.make, Channel.pattern or Channel.union")
      }
      yield* option(Given.record("the options", yield* option(Given.known("the options", options, subscribeNames))))
      const name = yield* option(Given.name("name", Given.first(options.name, "dead-letters")))
      yield* option(Given.required("handler", options.handler))
      const retry = yield* option(
        Retry.resolve("retry", options.retry, Retry.within(yield* Retry.Retry, policies))
      )
      const ending = yield* Subscription.run({
        store,
        source,
        name,
        query: yield* Query.make(broker, { channel: source, group: options.group }),
        start: yield* option(Given.choice("startFrom", options.startFrom, ["earliest", "latest"])),
        concurrency: yield* option(
          Given.count("concurrency", options.concurrency, { usual: 1, least: 1, most: 1_000 })
        ),
        slowMillis: yield* option(Given.span("slowHandler", options.slowHandler, { usual: 300_000, least: 1 })),
        leaseMillis: yield* option(Given.span("lease", options.lease, { usual: 30_000, least: 100 })),
        checkMillis: yield* option(Given.span("checkInterval", options.checkInterval, { usual: 30_000, least: 10 })),
        drainMillis: yield* option(
          Given.span("drainTimeout", options.drainTimeout, { ...Limits.drainTimeout, usual: drainMillis })
        ),
        retry,
        handler: options.handler
      })
      endings.keep(ending)
    }),
    endings: endings.all,
    // A name that no subscription can have has seen nothing.
    forget: Effect.fnUntraced(function*(name) {
      yield* option(Given.name("name", name))
      yield* Effect.forEach(everywhere, (shard) => store.forget(shard, name), { concurrency: 8, discard: true })
    })
  })
  return Calls.guard(yield* Calls.ofLayer("dead letters"), service, [
    "list",
    "get",
    "count",
    "counts",
    "requeue",
    "requeueAll",
    "remove",
    "purge",
    "expire",
    "forget"
  ])
})

/**
 * The dead letters of a broker as a layer, which also ends their retention.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<DeadLetters, never, Broker> =>
  Layer.effect(
    DeadLetters,
    Effect.gen(function*() {
      const broker = yield* Broker
      const retention = yield* retentionOf(options)
      if (options?.deadLetters?.enabled !== false) {
        yield* Effect.forkScoped(RetentionDuty.run(broker, retention))
      }
      return yield* make(options)
    })
  )

/**
 * Lists dead letters in pages, over all shards in the order of their death.
 *
 * **Details**: a letter that is there during the whole walk is in exactly one page, whatever comes and goes meanwhile. A filter by channel
 * name looks into one shard only; the others read what they pass over.
 *
 * **Errors**: `InvalidDeadLetterOption` for a filter, limit or cursor that cannot be used; `BrokerError`. Calling again is safe.
 *
 * **Example** (Walking through what billing gave up)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { DeadLetters } from "rotif"
 *
 * const program = Effect.gen(function*() {
 *   const first = yield* DeadLetters.list({ group: "billing", channel: "orders.*" }, { limit: 20 })
 *   for (const letter of first.letters) yield* Effect.log(letter.letterId, letter.failure.message)
 *   return first.cursor === undefined ? undefined : yield* DeadLetters.list({ group: "billing" }, { cursor: first.cursor })
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const list = (filter?: Filter, options?: PageOptions): Effect.Effect<Page, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.list(filter, options))

/**
 * All dead letters that match as a stream, read page by page.
 *
 * @category operations
 * @since 0.1.0
 */
export const all = (
  filter?: Filter,
  options?: Pick<PageOptions, "order">
): Stream.Stream<DeadLetter, QueryError, DeadLetters> =>
  Stream.unwrap(DeadLetters.useSync((service) => service.all(filter, options)))

/**
 * Gets one dead letter with its whole failure; `None` when there is no such letter.
 *
 * **Errors**: `InvalidDeadLetterOption` for an id that cannot be one; `BrokerError`.
 *
 * @category operations
 * @since 0.1.0
 */
export const get = (letterId: string): Effect.Effect<Option.Option<DeadLetter>, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.get(letterId))

/**
 * Counts dead letters. By channel, group and reason it costs a look at counters; by error tag or time it reads the letters.
 *
 * @category operations
 * @since 0.1.0
 */
export const count = (filter?: Filter): Effect.Effect<number, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.count(filter))

/**
 * Counts dead letters by group, channel and reason, the largest count first. Letters that cannot be read are in none.
 *
 * @category operations
 * @since 0.1.0
 */
export const counts = (
  filter?: Pick<Filter, "channel" | "group" | "reason">
): Effect.Effect<ReadonlyArray<LetterCount>, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.counts(filter))

/**
 * Sends the message of a dead letter back to the group that failed, and to that group only: the same id, headers and time of first publish,
 * attempt 1, its failures kept as history. Whether this call did it: `false` when the letter is gone or cannot be read.
 *
 * **Details**: moving is one step in the backend; of concurrent calls one moves it. With `edit` the message goes back with another payload,
 * which the schema of its channel has checked.
 *
 * **Errors**: `InvalidDeadLetterOption` for an id that cannot be one, `InvalidPayload`, `PayloadTooLarge`, `WrongChannel`: nothing was moved. `BrokerError` with reason `Uncertain`: it may have been
 * moved; calling again is safe and moves it at most once.
 *
 * **Example** (Repairing a payload)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Channel, DeadLetters } from "rotif"
 *
 * const Orders = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String, total: Schema.Finite }) })
 * const repair = (letterId: string) => DeadLetters.requeue(letterId, { channel: Orders, payload: { id: "o-1", total: 42 } })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const requeue = <C extends Channel.Any = never>(letterId: string, edit?: Edit<C>): Effect.Effect<
  boolean,
  QueryError | WrongChannel | Channel.InvalidPayload | Publisher.PayloadTooLarge,
  DeadLetters | Channel.EncodingServices<C>
> => DeadLetters.use((service) => service.requeue(letterId, edit))

/**
 * Requeues the letters that match and are there when it begins, the oldest first, at most `limit`.
 *
 * **Details**: a message that dies again meanwhile is not requeued twice. `dryRun` only counts. `onProgress` is told after each batch of at
 * most 100; interrupting between batches leaves everything whole.
 *
 * **Errors**: `InvalidDeadLetterOption`: nothing was moved. `BrokerError`: some may have been moved; calling again goes on with the rest.
 *
 * **Example** (After the fix, gently)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { DeadLetters } from "rotif"
 *
 * const retryAll = DeadLetters.requeueAll({ group: "billing", errorTag: "GatewayDown" }, {
 *   limit: 10_000,
 *   rate: 50,
 *   onProgress: ({ moved }) => Effect.log(`${moved} requeued`)
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const requeueAll = (
  filter: Filter,
  options: RequeueAllOptions
): Effect.Effect<Progress, QueryError, DeadLetters> => DeadLetters.use((service) => service.requeueAll(filter, options))

/**
 * Deletes one dead letter; whether this call did it.
 *
 * **Errors**: `InvalidDeadLetterOption` for an id that cannot be one; `BrokerError`. Calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const remove = (letterId: string): Effect.Effect<boolean, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.remove(letterId))

/**
 * Deletes the letters that match and are there when it begins; how many. `{}` deletes all. They do not go through the archive.
 *
 * @category operations
 * @since 0.1.0
 */
export const purge = (filter: Filter): Effect.Effect<number, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.purge(filter))

/**
 * Ends the retention now: deletes what is too old or too many, through the archive, as one of the processes does at every `interval`; how
 * many.
 *
 * **Errors**: `BrokerError`: some may have been deleted; calling again goes on with the rest.
 *
 * @category operations
 * @since 0.1.0
 */
export const expire: Effect.Effect<number, BrokerError, DeadLetters> = DeadLetters.use((service) => service.expire)

/**
 * Subscribes to dead letters as they arrive, in the current scope.
 *
 * **Details**: each name gets every letter (that matches) at least once, and the processes that use the name share them. `letter.ack` deletes
 * the letter; a handler that succeeds without settling it keeps it, and it is not offered again under this name. A handler that fails gets
 * it again after a pause. When the process is lost, the letter is offered to another one after the lease. The end of the scope waits for
 * handlers that run until `drainTimeout`, then it interrupts them, and their letters are offered again at once. With a source the payload is
 * decoded by its schema.
 *
 * **Errors**: `InvalidDeadLetterOption`. While it runs it reports failures of the backend to the log and goes on.
 *
 * **Example** (Telling somebody)
 *
 * ```ts
 * import { Effect, Result, Schema } from "effect"
 * import { Channel, DeadLetters } from "rotif"
 *
 * const Orders = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
 *
 * const alerts = DeadLetters.subscribe(Orders, {
 *   name: "alerts",
 *   handler: (letter) =>
 *     Effect.logError(
 *       `${letter.group} gave up on ${Result.isSuccess(letter.payload) ? letter.payload.success.id : letter.raw}: ` +
 *         letter.failure.message
 *     )
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const subscribe: {
  <S extends Channel.Source, E, R>(
    source: S,
    options: SubscribeOptions<OfferedOf<S>, E, R>
  ): Effect.Effect<void, InvalidDeadLetterOption, DeadLetters | R | Channel.DecodingServices<S> | Scope.Scope>
  <E, R>(
    options: SubscribeOptions<Offered, E, R>
  ): Effect.Effect<void, InvalidDeadLetterOption, DeadLetters | R | Scope.Scope>
} = <E, R>(...args: Arguments<SubscribeOptions<Offered, E, R>, SubscribeOptions<never, E, R>>) => subscribeTo(...args)

/** With a source or without; the overloads give the letters of each their type. */
type Arguments<Untyped, Typed> = [options: Untyped] | [source: Channel.Source, options: Typed]

const subscribeTo = <E, R>(
  ...args: Arguments<SubscribeOptions<Offered, E, R>, SubscribeOptions<never, E, R>>
): Effect.Effect<void, InvalidDeadLetterOption, DeadLetters | R | Scope.Scope> =>
  DeadLetters.use((service) =>
    args.length === 1 ? service.subscribe(undefined, args[0]) : service.subscribe(args[0], args[1])
  )

/**
 * A subscription to dead letters as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSubscription: {
  <S extends Channel.Source, E, R>(
    source: S,
    options: SubscribeOptions<OfferedOf<S>, E, R>
  ): Layer.Layer<
    never,
    InvalidDeadLetterOption,
    Exclude<DeadLetters | R | Channel.DecodingServices<S>, Scope.Scope>
  >
  <E, R>(
    options: SubscribeOptions<Offered, E, R>
  ): Layer.Layer<never, InvalidDeadLetterOption, Exclude<DeadLetters | R, Scope.Scope>>
} = <E, R>(
  ...args: Arguments<SubscribeOptions<Offered, E, R>, SubscribeOptions<never, E, R>>
): Layer.Layer<never, InvalidDeadLetterOption, Exclude<DeadLetters | R | Scope.Scope, Scope.Scope>> =>
  Layer.effectDiscard(subscribeTo(...args))

/**
 * The dead letters themselves as they arrive, to be settled by whoever takes them: `ack`, `keep`, `nack` or `requeue` each one. A letter that
 * is not settled is held and renewed, counts against `concurrency`, and is offered again when the stream ends.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stream: {
  <S extends Channel.Source>(
    source: S,
    options?: StreamOptions
  ): Stream.Stream<OfferedOf<S>, InvalidDeadLetterOption, DeadLetters | Channel.DecodingServices<S>>
  (options?: StreamOptions): Stream.Stream<Offered, InvalidDeadLetterOption, DeadLetters>
} = (
  first?: StreamOptions | Channel.Source,
  second?: StreamOptions
): Stream.Stream<never, InvalidDeadLetterOption, DeadLetters> =>
  Stream.unwrap(Effect.gen(function*() {
    const [source, options] = Channel.isSource(first) ? [first, second] : [undefined, first]
    const service = yield* DeadLetters
    // What is in the queue is leased to this process; `concurrency` bounds it.
    const queue = yield* Queue.unbounded<never>()
    yield* service.subscribe(source, {
      ...options,
      // Whoever takes the letters has gone with the stream.
      drainTimeout: 0,
      handler: (letter: Offered) => Effect.andThen(Queue.offer(queue, letter as never), letter.settled)
    })
    yield* Effect.addFinalizer((exit) => tellEnd(`a stream of dead letters (${options?.name ?? "dead-letters"})`, exit))
    return Stream.fromQueue(queue)
  }))

/**
 * Forgets a subscription to dead letters: which letters it has seen. The letters stay.
 *
 * **Errors**: `InvalidDeadLetterOption` for a name that cannot be one; `BrokerError`. Calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const forget = (name: string): Effect.Effect<void, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.forget(name))
