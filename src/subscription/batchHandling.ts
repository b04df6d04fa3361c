/**
 * Handling of batches: payloads are decoded, middleware and handler run, and each message gets a settlement by its outcome.
 *
 * A handler that fails says nothing about a single message. So no message becomes a dead letter by a failure in company: it comes again in a
 * smaller batch, until it fails alone.
 */
import { Cause, Effect, Exit, Scope } from "effect"
import * as Batch from "../Batch.ts"
import type { Broker } from "../Broker.ts"
import type * as Channel from "../Channel.ts"
import * as Message from "../Message.ts"
import * as Transaction from "../Transaction.ts"
import { reasonText } from "../internal/failure.ts"
import { isDone } from "../internal/immediate.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { ackSettlement, again, holdSettlement } from "../internal/settlement.ts"
import { composeBatch } from "../middleware/batches.ts"
import type { BatchNext, Entry } from "../middleware/composition.ts"
import type * as Middleware from "../middleware/definition.ts"
import type { BatchOptions, BatchSettings } from "./batchOptions.ts"
import type { Handling, Outcomes } from "./batches.ts"
import type { Consumer } from "./consumer.ts"
import type { HeldBatch, HeldDelivery } from "./heldDelivery.ts"
import * as Received from "./received.ts"
import { undecodable } from "./received.ts"

type Exits = ReadonlyArray<Exit.Exit<unknown, unknown>>

/** A message in a batch, and its outcome once the handler has ended. */
class Place<M> {
  readonly held: HeldDelivery
  readonly message: M
  /** Its index in the batch. */
  readonly index: number
  outcome: Batch.Outcome<unknown> | undefined
  /** The handler had other messages, too. */
  hasCompany = false

  constructor(held: HeldDelivery, message: M, index: number) {
    this.held = held
    this.message = message
    this.index = index
  }

  /** As an entry of a chain. */
  get place(): object {
    return this
  }
}

/** Whether a result of a handler holds outcomes where they would not be found. */
const isMisplaced = (result: unknown): boolean =>
  result instanceof Batch.Outcome ||
  (Array.isArray(result) && result.some((one: unknown) => one instanceof Batch.Outcome))

/** The outcomes by message. Anything that would acknowledge a message by mistake fails the batch. */
const outcomesOf = (
  messages: ReadonlyArray<unknown>,
  result: unknown
): Effect.Effect<ReadonlyMap<unknown, Batch.Outcome<unknown>> | undefined> => {
  const wrong = (words: string) =>
    Effect.die(
      new TypeError(`the handler of a batch must return nothing, or a Map of its messages to outcomes: ${words}`)
    )
  if (isMisplaced(result)) return wrong("it returned outcomes without their messages")
  if (!(result instanceof Map)) return Effect.undefined
  const known = new Set(messages)
  for (const [message, outcome] of result as Map<unknown, unknown>) {
    if (!(outcome instanceof Batch.Outcome)) return wrong("it returned a Map with other values")
    if (!known.has(message)) return wrong("it returned an outcome for a message that is not in its batch")
  }
  return Effect.succeed(result as ReadonlyMap<unknown, Batch.Outcome<unknown>>)
}

export const make = <
  S extends Channel.Source,
  E,
  R,
  const Ms extends ReadonlyArray<Middleware.AnyProcess>,
  Transactional extends boolean
>({ broker, options, program, settings, source }: {
  readonly broker: Broker["Service"]
  readonly options: BatchOptions<S, E, R, Ms, Transactional>
  /** The middleware of the program. */
  readonly program: Middleware.Program
  readonly settings: BatchSettings<E | Middleware.ProcessErrors<Ms>, Message.Message<S>>
  readonly source: S
}) => {
  type Needs = Received.Needs<S, R, Ms, Transactional>
  type Here = Place<Message.Message<S>>

  const { isTransactional, retryMillis } = settings
  const { decoded, failed, innerErrors, keyOf, preparedOf, timed } = Received.make({
    broker,
    exactlyOnce: options.exactlyOnce,
    program,
    settings,
    source
  })

  /** Runs the handler, and notes the outcome of each message at its place. */
  const last = (entries: ReadonlyArray<Entry>) => {
    const messages = entries.map(({ message }) => message as unknown as Message.Message<S>)
    const hasCompany = entries.length > 1
    return Effect.map(
      Effect.exit(
        Effect.flatMap(timed(() => options.handler(messages)), (result) => outcomesOf(messages, result))
      ),
      (exit) => {
        const failure = Exit.isFailure(exit) ? Batch.together(exit.cause) : undefined
        const given = Exit.isSuccess(exit) ? exit.value : undefined
        return entries.map(({ message, place: at }): Exit.Exit<unknown, unknown> => {
          const place = at as Here
          place.hasCompany = hasCompany
          place.outcome = failure ?? given?.get(message) ?? Batch.ack
          const { ending } = place.outcome
          if (ending._tag === "Fail") return Exit.fail(ending.error)
          return ending._tag === "Together" ? Exit.failCause(ending.cause) : Exit.void
        })
      }
    )
  }

  // The chain is typed for any message; only the options have the types of its errors and services. `handle` restores them.
  const own = composeBatch(options.middleware ?? [], last as unknown as BatchNext)
  const chained = (innerErrors === undefined
    ? own
    : composeBatch(
      program.process,
      (entries) =>
        Effect.tap(
          own(entries),
          (exits) => Effect.forEach(exits, (exit) => Effect.exit(innerErrors.mark(exit)), { discard: true })
        )
    )) as unknown as (
      entries: ReadonlyArray<Entry>
    ) => Effect.Effect<Exits, never, Needs>

  /** The verdict on a failure. Who failed in company comes again, whatever the policy says, and then in a smaller batch. */
  const verdictOn = (
    { hasCompany, held: { delivery }, message, outcome }: Here,
    consumer: Consumer,
    cause: Cause.Cause<unknown>
  ): Effect.Effect<Settlement> =>
    Effect.map(
      failed(message, delivery, consumer, cause),
      (settlement) =>
        hasCompany && outcome?.ending._tag === "Together" && settlement._tag === "Bury"
          ? again(delivery, retryMillis, cause, delivery.attempt + 1)
          : settlement
    )

  const settlementOf = (
    place: Here,
    consumer: Consumer,
    exit: Exit.Exit<unknown, unknown>
  ): Effect.Effect<Settlement> | Settlement => {
    if (Exit.isFailure(exit)) return verdictOn(place, consumer, exit.cause)
    const { delivery } = place.held
    const whose = `of message ${delivery.id} on "${delivery.channel}" by group "${settings.membership.group}"`
    const ending = place.outcome?.ending
    switch (ending?._tag) {
      case "Nack":
        return Effect.map(
          Message.givenDelay(ending.options, whose),
          (millis) => again(delivery, millis, undefined, delivery.attempt + 1)
        )
      case "Later":
        return Effect.map(Message.givenDelay({ delay: ending.delay }, whose), (millis) => again(delivery, millis))
      case "Term":
        return { _tag: "Bury", failure: { reason: "term", message: reasonText(ending.reason) } }
      // It has no outcome, or a middleware has recovered from it.
      default:
        return ackSettlement
    }
  }

  /** Runs one attempt, and closes its scope before anything is settled. */
  const tried = (batch: HeldBatch, places: ReadonlyArray<Here>) =>
    Effect.onExitPrimitive(
      // A place is an entry, whatever message its source has.
      chained(places as unknown as ReadonlyArray<Entry>),
      (exit) => Scope.closeUnsafe(batch.scope, exit)
    )

  const settlementsOf = (places: ReadonlyArray<Here>, consumer: Consumer, exits: Exits) =>
    Effect.gen(function*() {
      const settlements: Array<HandlerOutcome> = []
      for (const [i, place] of places.entries()) {
        const settlement = settlementOf(place, consumer, exits[i]!)
        settlements.push(Effect.isEffect(settlement) ? yield* settlement : settlement)
      }
      return settlements
    })

  const attempt = (batch: HeldBatch, consumer: Consumer, places: ReadonlyArray<Here>) =>
    Effect.flatMap(tried(batch, places), (exits) => settlementsOf(places, consumer, exits))

  /** Fails all messages that the handler had. */
  const failAll = (places: ReadonlyArray<Here>, consumer: Consumer, exits: Exits, cause: Cause.Cause<unknown>) => {
    const had = places.filter(({ outcome }) => outcome !== undefined)
    for (const place of had) {
      place.outcome = Batch.together(cause)
      place.hasCompany = had.length > 1
    }
    const failed = Exit.failCause(cause)
    return settlementsOf(places, consumer, exits.map((exit, i) => places[i]!.outcome === undefined ? exit : failed))
  }

  /**
   * Runs the handler with a transaction, and applies it with the acknowledgements. A message that fails after the handler had it fails all of the
   * batch: its part of the transaction cannot be told from the rest.
   */
  const transact = (batch: HeldBatch, consumer: Consumer, places: ReadonlyArray<Here>) =>
    Effect.suspend(() => {
      for (const held of batch.deliveries) held.isTransactional = true
      const transaction = Transaction.makeUnsafe(batch.deliveries[0]!.delivery.channel)
      return tried(batch, places).pipe(
        Effect.provideService(Transaction.Transaction, transaction),
        Effect.ensuring(Effect.sync(transaction.close)),
        Effect.flatMap(Effect.fnUntraced(function*(exits) {
          const broken = places.findIndex(({ outcome }, i) =>
            Exit.isFailure(exits[i]!) && outcome !== undefined && outcome.ending._tag !== "Fail"
          )
          if (broken >= 0) {
            return yield* failAll(places, consumer, exits, (exits[broken] as Exit.Failure<never, unknown>).cause)
          }
          const settlements = yield* settlementsOf(places, consumer, exits)
          const { messages, writes } = transaction
          const acked = places.filter((_, i) => settlements[i]!._tag === "Ack").map(({ held }) => held)
          if (acked.length === 0 || (messages.length === 0 && writes.length === 0)) return settlements
          const outcome = yield* consumer.commit(acked, { messages, writes })
          if (outcome === "done") return settlements.map((one) => one._tag === "Ack" ? holdSettlement : one)
          return outcome === "lost"
            ? places.map(({ held }) => again(held.delivery, 0))
            : yield* failAll(places, consumer, exits, Cause.fail(outcome))
        }))
      ) as Effect.Effect<ReadonlyArray<HandlerOutcome>, never, Needs>
    })

  const handle = Effect.fnUntraced(function*(
    batch: HeldBatch,
    consumer: Consumer
  ): Effect.fn.Return<Outcomes, never, Needs> {
    const { deliveries } = batch
    const outcomes = new Array<HandlerOutcome>(deliveries.length)
    const places: Array<Here> = []
    for (let i = 0; i < deliveries.length; i++) {
      const held = deliveries[i]!
      const prepared = preparedOf(held)
      const message = prepared === undefined ? decoded(held, consumer) : Exit.succeed(prepared)
      const exit = isDone(message) ? message : yield* Effect.exit(message)
      if (Exit.isSuccess(exit)) places.push(new Place(held, exit.value, i))
      else outcomes[i] = undecodable(exit.cause)
    }
    if (places.length === 0) return outcomes
    const settlements = isTransactional
      ? yield* transact(batch, consumer, places)
      : yield* attempt(batch, consumer, places)
    for (let i = 0; i < places.length; i++) outcomes[places[i]!.index] = settlements[i]!
    return outcomes
  })

  /** The verdicts on a batch whose fiber died outside of `handle`. */
  const verdict = Effect.fnUntraced(function*(batch: HeldBatch, consumer: Consumer, cause: Cause.Cause<never>) {
    const outcomes: Array<HandlerOutcome> = []
    for (const [i, held] of batch.deliveries.entries()) {
      const message = yield* Effect.exit(decoded(held, consumer))
      if (Exit.isFailure(message)) {
        outcomes.push(undecodable(message.cause))
        continue
      }
      const place = new Place(held, message.value, i)
      place.hasCompany = batch.deliveries.length > 1
      place.outcome = Batch.together(cause)
      outcomes.push(yield* verdictOn(place, consumer, cause))
    }
    return outcomes
  })

  return {
    handling: (consumer: () => Consumer): Handling<Needs> => ({
      _tag: "Batches",
      sizes: settings.sizes,
      isWhole: settings.isTransactional,
      handle: (batch) => handle(batch, consumer()),
      verdict: (batch, cause) => verdict(batch, consumer(), cause)
    }),
    keyOf,
    failed
  }
}
