/**
 * Scheduled messages, which wait for a time, and recurring messages.
 *
 * `Publisher.publish` with `delay` or `at` schedules a message. This module cancels, reschedules and lists it, by its channel and id.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"
import { Clock, Context, DateTime, Effect, Layer, Result, Schema } from "effect"
import type { BrokerError } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import type * as Middleware from "./Middleware.ts"
import * as Publisher from "./Publisher.ts"
import type { Place, Reference } from "./broker/scheduled.ts"
import { order } from "./broker/scheduled.ts"
import * as Calls from "./internal/runningCalls.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Limits from "./internal/optionLimits.ts"
import * as Shape from "./internal/optionShape.ts"
import type { CatchUp } from "./internal/recurrence.ts"
import * as Recur from "./internal/recurrence.ts"
import { momentOf } from "./internal/times.ts"
import type { When } from "./publisher/due.ts"
import { dueOf } from "./publisher/due.ts"
import type { LooseOptions, RecurringOptions, Recurs } from "./scheduler/recurs.ts"
import { recurrenceOf } from "./scheduler/recurs.ts"

export type { RecurringOptions, Recurs } from "./scheduler/recurs.ts"

/**
 * A scheduled message: it waits for its time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Scheduled {
  readonly id: string
  readonly channel: string
  /** By the clock of the backend. */
  readonly dueAt: DateTime.Utc
  /** As it is stored; `Channel.decode` reads it. */
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly orderingKey: string | undefined
}

/**
 * Options of `list`: the channel, and the page.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListOptions {
  /** Only messages of this channel. Default: of all channels. */
  readonly channel?: Channel.Any | undefined
  /** The cursor of the previous page; it stays valid whatever happens to the messages. */
  readonly cursor?: string | undefined
  /** Messages on a page, from 1 to 1,000. Default 100. */
  readonly limit?: number | undefined
}

/**
 * A page of scheduled messages, soonest first.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly messages: ReadonlyArray<Scheduled>
  /** Where the next page begins; `undefined` on the last one. */
  readonly cursor: string | undefined
}

type Defined<C extends Channel.Any, Self> = Effect.Effect<
  { readonly next: DateTime.Utc },
  InvalidSchedule | Publisher.RequestError | BrokerError | Middleware.PublishErrors<C>,
  Self | Channel.EncodingServices<C> | Middleware.PublishServices<C>
>

/**
 * The signature of `recurring`. `Self` is the service that the call needs; `never` for a member of the service.
 *
 * @category models
 * @since 0.1.0
 */
export type DefineRecurring<Self> = <C extends Channel.Any>(
  key: string,
  recurs: Recurs,
  channel: C,
  payload: Channel.PayloadOf<C>,
  ...options: Channel.OptionsArgument<C, Channel.WithParams<C, RecurringOptions>>
) => Defined<C, Self>

/**
 * A recurring message and its next tick.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recurring {
  readonly key: string
  readonly channel: string
  /** The cron expression with its zone, or the interval. */
  readonly recurs: { readonly cron: string; readonly timeZone: string } | { readonly every: Duration.Duration }
  readonly catchUp: CatchUp
  readonly next: DateTime.Utc
  /** As it is stored; `Channel.decode` reads it. */
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly orderingKey: string | undefined
}

/**
 * A time, interval, cron expression, id, key, channel, cursor or limit cannot be used. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSchedule extends Schema.TaggedError<InvalidSchedule>()("InvalidSchedule", Given.problemFields) {}

/**
 * The service for scheduled and recurring messages. Its members are described at the functions of the same names.
 *
 * @category services
 * @since 0.1.0
 */
export class Scheduler extends Context.Service<Scheduler, {
  readonly cancel: (channel: Channel.Any, id: string) => Effect.Effect<boolean, InvalidSchedule | BrokerError>
  readonly reschedule: (
    channel: Channel.Any,
    id: string,
    when: When
  ) => Effect.Effect<boolean, InvalidSchedule | BrokerError>
  readonly deliverNow: (channel: Channel.Any, id: string) => Effect.Effect<boolean, InvalidSchedule | BrokerError>
  readonly list: (options?: ListOptions) => Effect.Effect<Page, InvalidSchedule | BrokerError>
  readonly count: (channel?: Channel.Any) => Effect.Effect<number, InvalidSchedule | BrokerError>
  readonly recurring: DefineRecurring<never>
  readonly removeRecurring: (key: string) => Effect.Effect<boolean, InvalidSchedule | BrokerError>
  readonly listRecurring: Effect.Effect<ReadonlyArray<Recurring>, BrokerError>
}>()("rotif/Scheduler") {}

const invalid = (option: string, message: string) => new InvalidSchedule({ option, message })

const option = Given.failing(InvalidSchedule)

const channelName = (channel: Channel.Any): Effect.Effect<string, InvalidSchedule> =>
  Channel.isChannel(channel)
    ? Effect.succeed(channel.name)
    : option(Given.refuse("channel", "made by Channel.make", channel))

/** The channel and id of a scheduled message. */
const referenceOf = (channel: Channel.Any, id: string): Effect.Effect<Reference, InvalidSchedule> =>
  Effect.zipWith(channelName(channel), option(Given.name("id", id, 512)), (name, id) => ({ channel: name, id }))

const keyOf = (key: string): Effect.Effect<string, InvalidSchedule> => option(Given.name("key", key, 400))

const placeOf = (cursor: string): Place | undefined => {
  const [dueAtMillis = "", channel = "", id = "", ...more] = String(cursor).split("\n")
  return dueAtMillis === "" || !Number.isFinite(Number(dueAtMillis)) || channel === "" || id === "" || more.length > 0
    ? undefined
    : { dueAtMillis: Number(dueAtMillis), channel, id }
}

const cursorOf = ({ channel, dueAtMillis, id }: Place): string => `${dueAtMillis}\n${channel}\n${id}`

const whenShape = Shape.shape<When>()({ delay: Shape.any, at: Shape.any })
const listShape = Shape.shape<ListOptions>()({
  channel: Shape.any,
  cursor: Shape.any,
  limit: Shape.count(Limits.pageSize)
})

/**
 * Makes the service on the broker and the publisher in the context. Use `layer` unless you wire services yourself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const broker = yield* Broker
  const publisher = yield* Publisher.Publisher
  const clock = yield* Clock.Clock
  const shards = Array.from({ length: broker.shards }, (_, shard) => shard)

  const service = Scheduler.of({
    cancel: (channel, id) => Effect.flatMap(referenceOf(channel, id), broker.scheduled.cancel),
    reschedule: Effect.fnUntraced(function*(channel, id, when) {
      const reference = yield* referenceOf(channel, id)
      yield* option(whenShape.required("when", when))
      const due = when.at === undefined && when.delay === undefined
        ? "give a delay or a time (at)"
        : dueOf(when, clock.currentTimeMillisUnsafe())
      if (typeof due === "string") return yield* invalid(when.delay === undefined ? "at" : "delay", due)
      return yield* broker.scheduled.reschedule(reference, due ?? { delayMillis: 0 })
    }),
    deliverNow: (channel, id) =>
      Effect.flatMap(
        referenceOf(channel, id),
        (reference) => broker.scheduled.reschedule(reference, { delayMillis: 0 })
      ),
    list: Effect.fnUntraced(function*(options) {
      const { channel: of, cursor, limit } = yield* option(listShape.optional("the options", options))
      const after = cursor === undefined ? undefined : placeOf(cursor)
      if (cursor !== undefined && after === undefined) {
        return yield* invalid("cursor", "the cursor is not one of a page of Scheduler.list")
      }
      const channel = of === undefined ? undefined : yield* channelName(of)
      const among = channel === undefined ? shards : broker.shardsOf({ _tag: "Channels", names: [channel] })
      const pages = yield* Effect.forEach(
        among,
        (shard) => broker.scheduled.list(shard, { after, channel, limit }),
        { concurrency: 16 }
      )
      // After the end of a shard's page, nothing is known about that shard.
      const ends = pages.flatMap(({ next }) => next === undefined ? [] : [next]).sort(order)
      const [end] = ends
      const known = pages.flatMap(({ messages }) => messages).sort(order)
        .filter((message) => end === undefined || order(message, end) <= 0)
      const messages = known.slice(0, limit)
      const last = known.length > limit ? messages.at(-1) : end
      return {
        messages: messages.map(({ channel, dueAtMillis, headers, id, orderingKey, params, payload }) => ({
          id,
          channel,
          dueAt: momentOf(dueAtMillis),
          payload,
          headers,
          params,
          orderingKey
        })),
        cursor: last === undefined ? undefined : cursorOf(last)
      }
    }),
    count: (channel) =>
      channel === undefined
        ? broker.scheduled.count(undefined)
        : Effect.flatMap(channelName(channel), broker.scheduled.count),
    recurring: Effect.fnUntraced(function*<C extends Channel.Any>(
      key: string,
      recurs: Recurs,
      channel: C,
      payload: Channel.PayloadOf<C>,
      options?: LooseOptions
    ): Effect.fn.Return<
      Effect.Success<Defined<C, never>>,
      Effect.Error<Defined<C, never>>,
      Effect.Services<Defined<C, never>>
    > {
      yield* keyOf(key)
      yield* channelName(channel)
      const recurrence = yield* option(recurrenceOf(recurs, options))
      const [shard = 0] = broker.shardsOf({ _tag: "Channels", names: [channel.name] })
      const now = yield* broker.recurring.nowMillis(shard)
      const first = yield* Effect.fromResult(
        Recur.ticksOf(recurrence).pipe(
          Result.flatMap((ticks) => ticks.after(now)),
          Result.mapError((problem) => invalid("recurs", `it has no next tick: ${problem}`))
        )
      )
      // Its ticks carry the headers that the middleware gives it now.
      const wanted: Publisher.AnyOptions = {
        headers: options?.headers,
        params: options?.params,
        orderingKey: options?.orderingKey,
        expiresIn: options?.expiresIn
      }
      // Whether the channel wants params was checked with the options of this call.
      const { messages: [message] } = yield* publisher.prepare(channel, payload, wanted as never, first)
      if (message === undefined) {
        return yield* new Publisher.PublishRefused({
          channel: channel.name,
          error: new Error("a middleware let no message through, and a recurring message needs one")
        })
      }
      const next = yield* broker.recurring.upsert({
        key,
        channel: channel.name,
        recurrence: Recur.encode(recurrence),
        payload: message.payload,
        headers: message.headers ?? {},
        params: message.params ?? {},
        expiresInMillis: message.expiresInMillis,
        orderingKey: message.orderingKey,
        limits: message.limits
      }, first)
      return { next: DateTime.makeUnsafe(next) }
    }),
    removeRecurring: (key) => Effect.flatMap(keyOf(key), broker.recurring.remove),
    listRecurring: Effect.map(
      Effect.forEach(shards, broker.recurring.list, { concurrency: 16 }),
      (all) =>
        all.flat().sort((a, b) => a.nextAtMillis - b.nextAtMillis || (a.key < b.key ? -1 : 1)).flatMap((definition) => {
          const described = Recur.describe(definition.recurrence)
          return described === undefined
            ? []
            : [{
              ...described,
              key: definition.key,
              channel: definition.channel,
              next: momentOf(definition.nextAtMillis),
              payload: definition.payload,
              headers: definition.headers,
              params: definition.params,
              orderingKey: definition.orderingKey
            }]
        })
    )
  })
  return Calls.guard(yield* Calls.ofLayer("scheduler"), service)
})

/**
 * Provides the scheduler on any broker. Each call makes a layer of its own: two of them are two services, wherever they are provided.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (): Layer.Layer<Scheduler, never, Broker | Publisher.Publisher> => Layer.effect(Scheduler, make)

/**
 * Cancels a scheduled message. `true`: it will not be delivered. `false`: it is not waiting, because it is already being delivered, was
 * cancelled before, or was never scheduled.
 *
 * **Details**: its id may be published again at once.
 *
 * **Errors**: `InvalidSchedule` if no message can have this id; `BrokerError`: with reason `Uncertain` it may have been cancelled, and a second
 * call returns `false` then.
 *
 * @category operations
 * @since 0.1.0
 */
export const cancel = (
  channel: Channel.Any,
  id: string
): Effect.Effect<boolean, InvalidSchedule | BrokerError, Scheduler> =>
  Scheduler.use((scheduler) => scheduler.cancel(channel, id))

/**
 * Changes the time of a scheduled message; a time in the past delivers it now. `false`: it does not wait any more, nothing was done.
 *
 * **Errors**: `InvalidSchedule` if the time or the id cannot be used; `BrokerError` as in `cancel`.
 *
 * @category operations
 * @since 0.1.0
 */
export const reschedule = (
  channel: Channel.Any,
  id: string,
  when: { readonly delay: Duration.Input } | { readonly at: DateTime.DateTime.Input }
): Effect.Effect<boolean, InvalidSchedule | BrokerError, Scheduler> =>
  Scheduler.use((scheduler) => scheduler.reschedule(channel, id, when))

/**
 * Delivers a scheduled message now. `false`: it does not wait any more, nothing was done.
 *
 * **Errors**: as in `cancel`.
 *
 * @category operations
 * @since 0.1.0
 */
export const deliverNow = (
  channel: Channel.Any,
  id: string
): Effect.Effect<boolean, InvalidSchedule | BrokerError, Scheduler> =>
  Scheduler.use((scheduler) => scheduler.deliverNow(channel, id))

/**
 * Lists scheduled messages in pages, soonest first.
 *
 * **Errors**: `InvalidSchedule` if the limit or the cursor cannot be used.
 *
 * @category operations
 * @since 0.1.0
 */
export const list = (options?: ListOptions): Effect.Effect<Page, InvalidSchedule | BrokerError, Scheduler> =>
  Scheduler.use((scheduler) => scheduler.list(options))

/**
 * Counts the scheduled messages of a channel, or of all. The cost does not depend on their number.
 *
 * @category operations
 * @since 0.1.0
 */
export const count = (channel?: Channel.Any): Effect.Effect<number, InvalidSchedule | BrokerError, Scheduler> =>
  Scheduler.use((scheduler) => scheduler.count(channel))

/**
 * Defines a recurring message, or changes the one with this key.
 *
 * **Details**: the definition is stored, and every process that has the layer publishes its ticks; each tick is published exactly once, whatever
 * the number of processes, with the id `key@time`. The same recurrence again (each process may define it at its start) keeps the next tick;
 * another recurrence computes the next tick from now. The definition goes through the middleware of publishes, which sees a receipt
 * `Scheduled` for the next tick; every tick carries the headers of that moment, such as those of a trace.
 *
 * **Errors**: `InvalidSchedule` if the key, cron expression, zone or interval cannot be used; those of `Publisher.publish` for the message;
 * `BrokerError`. Calling again is safe.
 *
 * **Example** (A report on every working day)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Channel, Scheduler } from "rotif"
 *
 * const Report = Channel.make("reports.wanted", { payload: Schema.Struct({ kind: Schema.String }) })
 * const daily = Scheduler.recurring("daily-report", "0 9 * * 1-5", Report, { kind: "daily" }, {
 *   timeZone: "Europe/Berlin"
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const recurring: DefineRecurring<Scheduler> = (key, recurs, channel, payload, ...options) =>
  Scheduler.use((scheduler) => scheduler.recurring(key, recurs, channel, payload, ...options))

/**
 * Removes a recurring message, and returns whether there was one. Messages of its ticks that are already published are delivered.
 *
 * **Errors**: `InvalidSchedule` if the key cannot be one; `BrokerError`. Calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const removeRecurring = (key: string): Effect.Effect<boolean, InvalidSchedule | BrokerError, Scheduler> =>
  Scheduler.use((scheduler) => scheduler.removeRecurring(key))

/**
 * Lists the recurring messages, by their next ticks.
 *
 * @category operations
 * @since 0.1.0
 */
export const listRecurring: Effect.Effect<ReadonlyArray<Recurring>, BrokerError, Scheduler> = Scheduler.use((
  scheduler
) => scheduler.listRecurring)
