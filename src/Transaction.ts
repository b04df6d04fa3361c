/**
 * Transactions: the messages and writes of a handler are applied together with the acknowledgement of its message, or not at all.
 *
 * A subscription with `transactional: true` gives its handler a transaction. It collects what the handler publishes and writes through it, and
 * applies it in one step when the handler succeeds, with the acknowledgement and the record that this message is done. If the handler fails,
 * times out or is interrupted, or its process is lost, nothing is applied; if another consumer has the message by then, it is refused. A
 * handler cannot read back what it has collected.
 *
 * @since 0.1.0
 */
import { Context, Effect, Result, Schema } from "effect"
import type { BrokerError, NewMessage, Write } from "./Broker.ts"
import { Broker, CommitRefused as Refused } from "./Broker.ts"
import type * as Channel from "./Channel.ts"
import type * as Middleware from "./Middleware.ts"
import { Publisher } from "./Publisher.ts"
import * as Given from "./internal/optionChecks.ts"
import { calm, shown } from "./internal/describe.ts"
import type { OptionsFor } from "./publisher/options.ts"
import type { RequestError } from "./publisher/outcome.ts"

/**
 * The transaction cannot be applied to the data as it is, and nothing was applied. It is a failure of the handler, so it is retried.
 *
 * @category errors
 * @since 0.1.0
 */
export const CommitRefused = Refused

/**
 * A transaction cannot write this key.
 *
 * - `WrongSlot`: it is not in the slot of the shard of the message's channel, and a script of Redis reaches only one slot.
 * - `Reserved`: it belongs to Rotif. - `Invalid`: the key, a value or a number cannot be used.
 *
 * @category errors
 * @since 0.1.0
 */
export class KeyRefused extends Schema.TaggedError<KeyRefused>()("KeyRefused", {
  reason: Schema.Literals(["WrongSlot", "Reserved", "Invalid"]),
  key: Schema.String,
  message: Schema.String
}) {}

/**
 * The transaction has 500 messages and writes, which is the limit. Split the work over several messages.
 *
 * @category errors
 * @since 0.1.0
 */
export class TransactionTooLarge extends Schema.TaggedError<TransactionTooLarge>()("TransactionTooLarge", {
  limit: Schema.Finite
}) {
  override get message() {
    return `a transaction takes at most ${this.limit} messages and writes: split the work over several messages`
  }
}

/** At most this many messages and writes are applied by one script, so that it does not hold up others for long. */
const limit = 500

/**
 * The transaction of the message that is being handled. It ends with the handler.
 *
 * @category services
 * @since 0.1.0
 */
export class Transaction extends Context.Service<Transaction, {
  /** The channel of the message; its shard is the transaction's. */
  readonly channel: string
  /** The messages collected so far. */
  readonly messages: ReadonlyArray<NewMessage>
  /** The writes collected so far. */
  readonly writes: ReadonlyArray<Write>
  /** @internal */
  readonly addMessage: (message: NewMessage) => Effect.Effect<void, TransactionTooLarge>
  /** @internal */
  readonly addWrite: (write: Write) => Effect.Effect<void, TransactionTooLarge>
  /**
   * Refuses everything from now on: what is added after the end of the handler could not be applied.
   *
   * @internal
   */
  readonly close: () => void
}>()("rotif/Transaction") {}

/**
 * Makes the transaction of one message.
 *
 * @internal
 */
export const makeUnsafe = (channel: string): Transaction["Service"] => {
  const messages: Array<NewMessage> = []
  const writes: Array<Write> = []
  let isClosed = false
  const add = <A>(list: Array<A>, item: A) =>
    Effect.suspend((): Effect.Effect<void, TransactionTooLarge> => {
      if (isClosed) {
        return Effect.die(new Error(`the transaction of a message of "${channel}" is over: its handler ended`))
      }
      if (messages.length + writes.length >= limit) return Effect.fail(new TransactionTooLarge({ limit }))
      list.push(item)
      return Effect.void
    })
  return {
    channel,
    messages,
    writes,
    addMessage: (message) => add(messages, message),
    addWrite: (write) => add(writes, write),
    close: () => {
      isClosed = true
    }
  }
}

type Published<C extends Channel.Any> = Effect.Effect<
  string,
  RequestError | TransactionTooLarge | Middleware.PublishErrors<C>,
  Transaction | Publisher | Channel.EncodingServices<C> | Middleware.PublishServices<C>
>

/**
 * Publishes a message when the transaction is applied, and returns the id that the message will have.
 *
 * **Details**: a message for a channel of the same shard is in its log when the handled message is acknowledged. A message for another shard
 * (with `shards` above 1) is stored in the same step, and moved to its channel within moments, exactly once. An `id` that was published
 * before within its window adds nothing. The message goes through the middleware of publishes, which sees a receipt `Scheduled`: it is stored
 * when the transaction is applied. `durability` has no effect here: a failover that loses the message loses the acknowledgement, too, and the
 * handled message is delivered again.
 *
 * **Errors**: those of `Publisher.publish` before anything is sent; `TransactionTooLarge`.
 *
 * **Example** (Consume, publish, acknowledge as one step)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Channel, Subscription, Transaction } from "rotif"
 *
 * const Placed = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
 * const Paid = Channel.make("orders.paid", { payload: Schema.Struct({ id: Schema.String }) })
 *
 * const Billing = Subscription.layer(Placed, {
 *   group: "billing",
 *   transactional: true,
 *   handler: Effect.fnUntraced(function*(message) {
 *     yield* Transaction.publish(Paid, { id: message.payload.id })
 *     yield* Transaction.incrby(yield* Transaction.key("paid"), 1)
 *   })
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const publish = <C extends Channel.Any>(
  channel: C,
  payload: Channel.PayloadOf<C>,
  ...options: Channel.OptionsArgument<C, OptionsFor<C>>
): Published<C> =>
  Effect.gen(function*() {
    const transaction = yield* Transaction
    const publisher = yield* Publisher
    const { messages, receipt } = yield* publisher.prepare(channel, payload, options[0])
    yield* Effect.forEach(messages, transaction.addMessage, { discard: true })
    return receipt.id
  })

const write = Effect.fnUntraced(function*(operation: Write, problem?: string) {
  const transaction = yield* Transaction
  const broker = yield* Broker
  const { key } = operation
  if (typeof key !== "string" || key === "" || Buffer.byteLength(key) > 4096) {
    calm(key)
    return yield* new KeyRefused({
      reason: "Invalid",
      key: shown(key),
      message: "a key is a string of 1 to 4,096 bytes"
    })
  }
  if (problem !== undefined) return yield* new KeyRefused({ reason: "Invalid", key, message: problem })
  const refused = broker.own.problemOf(transaction.channel, key)
  if (refused !== undefined) return yield* new KeyRefused({ key, ...refused })
  return yield* transaction.addWrite(operation)
})

type Written = Effect.Effect<void, KeyRefused | TransactionTooLarge, Transaction | Broker>

const textProblem = (what: string, text: unknown) =>
  typeof text === "string" ? undefined : Given.refuse(what, "a string", text).failure.message

/**
 * Sets a key to a string when the transaction is applied (Redis `SET`).
 *
 * **Errors**: `KeyRefused` if the key is not in the transaction's slot, or belongs to Rotif; `TransactionTooLarge`.
 *
 * @category operations
 * @since 0.1.0
 */
export const set = (key: string, value: string): Written =>
  write({ _tag: "Set", key, value }, textProblem("the value", value))

/**
 * Sets fields of a hash when the transaction is applied (Redis `HSET`).
 *
 * **Errors**: those of `set`; at the end `CommitRefused` if the key holds no hash.
 *
 * @category operations
 * @since 0.1.0
 */
export const hset = (key: string, fields: Readonly<Record<string, string>>): Written => {
  const found = Given.record("fields", fields)
  if (Result.isFailure(found)) return write({ _tag: "HashSet", key, fields: {} }, found.failure.message)
  const values = Object.entries(fields)
  return write(
    { _tag: "HashSet", key, fields: Object.fromEntries(values) },
    values.length === 0 || values.length > 1000
      ? "a hash takes 1 to 1,000 fields at a time"
      : values.map(([name, value]) => textProblem(`the field ${name}`, value)).find((problem) => problem !== undefined)
  )
}

/**
 * Adds to an integer when the transaction is applied (Redis `INCRBY`); a key that does not exist counts as 0.
 *
 * **Errors**: those of `set`; at the end `CommitRefused` if the key holds no integer of at most 18 digits.
 *
 * @category operations
 * @since 0.1.0
 */
export const incrby = (key: string, by: number): Written =>
  write(
    { _tag: "Increment", key, by },
    Number.isSafeInteger(by) ? undefined : "an integer is incremented by a safe integer"
  )

/**
 * Deletes a key when the transaction is applied (Redis `DEL`).
 *
 * **Errors**: those of `set`.
 *
 * @category operations
 * @since 0.1.0
 */
export const del = (key: string): Written => write({ _tag: "Delete", key })

/** Refuses what is no name: it would be one key for all. */
const named = (channel: string, name: string) =>
  Effect.andThen(
    Given.orDie(Given.key("the name of a key", name, 1024)),
    Effect.map(Broker, (broker) => broker.own.keyFor(channel, name))
  )

/**
 * Returns the key of this name that the transaction can write. It dies if the name is not a string of 1 to 1,024 bytes.
 *
 * @category operations
 * @since 0.1.0
 */
export const key = (name: string): Effect.Effect<string, never, Transaction | Broker> =>
  Effect.flatMap(Transaction, ({ channel }) => named(channel, name))

/**
 * Returns the key of this name that transactions of messages of this channel can write, for reading it elsewhere.
 *
 * @category operations
 * @since 0.1.0
 */
export const keyFor = (channel: Channel.Any, name: string): Effect.Effect<string, never, Broker> =>
  named(channel.name, name)

/**
 * Reads a key that transactions write: a string, the fields of a hash, or `undefined`.
 *
 * @category operations
 * @since 0.1.0
 */
export const read = (
  key: string
): Effect.Effect<string | Readonly<Record<string, string>> | undefined, BrokerError, Broker> =>
  Effect.flatMap(Broker, (broker) => broker.own.read(key))
