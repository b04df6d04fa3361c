/**
 * Publishing through middleware.
 *
 * The messages of a `publishAll` go through the chain one after the other, each in a fiber of its own that waits at the chain's end. The
 * messages that have arrived there are sent as one batch: a single append if the middleware waits for nothing. If it waits, the messages
 * before it are sent first, so that no two messages wait for each other and the order stays. Middleware that only observes (see
 * `Chain.Around`) is entered and left without fibers.
 */
import { Cause, Context, DateTime, Effect, Exit, Fiber } from "effect"
import type { Appended, NewMessage } from "../Broker.ts"
import type * as Channel from "../Channel.ts"
import type { AnyOptions } from "../publisher/options.ts"
import type { Receipt, RequestError, StoreError } from "../publisher/outcome.ts"
import * as Chain from "./composition.ts"
import type { AnyPublish, Program, PublishNext, PublishRequest } from "./definition.ts"
import { Home, Notes } from "./definition.ts"

/** The steps of the publisher at the end of a chain. */
export interface Ports {
  readonly encode: (request: PublishRequest) => Effect.Effect<NewMessage, RequestError>
  readonly append: (messages: ReadonlyArray<NewMessage>) => Effect.Effect<ReadonlyArray<Appended>>
  readonly outcomeOf: (message: NewMessage, appended: Appended) => Receipt | StoreError
  readonly nextId: () => string
  /** The error of a publish, made from the error of a middleware of the program. */
  readonly refuse: (channel: Channel.Any, error: unknown) => RequestError
}

type Failure = RequestError | StoreError

/** The place of one message in a batch. */
class Slot {
  message: NewMessage | undefined
  /** Ends the wait for this message to come to the end of its chain. */
  arrived: (() => void) | undefined
  /** Continues the chain once the outcome of the message is known. */
  resume: ((outcome: Effect.Effect<Receipt, StoreError>) => void) | undefined
}

/** Collects the messages at the end of their chains instead of sending them: the caller stores them, due at this time at the earliest. */
class Prepared {
  readonly messages: Array<NewMessage> = []
  readonly dueAtMillis: number
  constructor(dueAtMillis: number) {
    this.dueAtMillis = dueAtMillis
  }
}

export const make = (program: Program, ports: Ports) => {
  const settle = (outcome: Receipt | StoreError): Effect.Effect<Receipt, StoreError> =>
    outcome instanceof Error ? Effect.fail(outcome) : Effect.succeed(outcome)

  const last = (request: PublishRequest): Effect.Effect<Receipt, Failure> =>
    Effect.flatMap(ports.encode(request), (message): Effect.Effect<Receipt, Failure> => {
      const slot = request[Notes] as Slot | Prepared | undefined
      if (slot instanceof Prepared) {
        slot.messages.push(message)
        const { channel, id } = message
        const dueAt = DateTime.makeUnsafe(slot.dueAtMillis)
        return Effect.succeed({ _tag: "Scheduled", id, channel, position: undefined, dueAt })
      }
      if (slot === undefined || slot.message !== undefined) {
        return Effect.flatMap(ports.append([message]), ([appended]) => settle(ports.outcomeOf(message, appended!)))
      }
      slot.message = message
      return Effect.callback((resume) => {
        slot.resume = resume
        slot.arrived?.()
      })
    })

  const border = Chain.makeBorder()
  const ofChannels = new WeakMap<AnyPublish, PublishNext>()
  const within: PublishNext = (request) => {
    const own = Chain.publishOf(request.channel)
    if (own === undefined) return last(request)
    let chain = ofChannels.get(own)
    if (chain === undefined) ofChannels.set(own, chain = Chain.composePublish([own], last))
    return chain(request)
  }
  const outer = Chain.composePublish(program.publish, (request) => border.mark(within(request)))

  // A program publishes from few contexts, most often from the same one as last time.
  let caller: Context.Context<never> | undefined
  let completed: Context.Context<never> = Context.empty()
  const complete = (context: Context.Context<never>): Context.Context<never> => {
    if (context !== caller) {
      caller = context
      completed = Chain.complete(program, context)
    }
    return completed
  }

  const isEmpty = program.publish.length === 0
  /** Runs in a completed context. */
  const run = (request: PublishRequest): Effect.Effect<Receipt, Failure> =>
    (isEmpty ? within(request) : Effect.mapError(
      outer(request),
      (error) => border.isForeign(error) ? ports.refuse(request.channel, error) : error
    )) as Effect.Effect<Receipt, Failure>

  const requestOf = (
    channel: Channel.Any,
    payload: unknown,
    options: AnyOptions | undefined,
    slot?: Slot | Prepared
  ) => ({
    channel,
    payload,
    options: options ?? {},
    id: ports.nextId(),
    [Notes]: slot,
    [Home]: ports
  })

  const publish = (channel: Channel.Any, payload: unknown, options: AnyOptions | undefined) =>
    Effect.suspend(() => {
      const published = run(requestOf(channel, payload, options))
      return isEmpty ? published : Effect.updateContext(published, complete)
    })

  /** The messages that come to the end of the chain, and the receipt of the first one or of a middleware that let none through. */
  const prepare = (
    channel: Channel.Any,
    payload: unknown,
    options: AnyOptions | undefined,
    dueAtMillis: number
  ): Effect.Effect<{ readonly messages: ReadonlyArray<NewMessage>; readonly receipt: Receipt }, RequestError> =>
    Effect.suspend(() => {
      const prepared = new Prepared(dueAtMillis)
      // Nothing is sent, so nothing fails to be stored.
      const chained = run(requestOf(channel, payload, options, prepared)) as Effect.Effect<Receipt, RequestError>
      const all = Effect.map(chained, (receipt) => ({ messages: prepared.messages, receipt }))
      return isEmpty ? all : Effect.updateContext(all, complete)
    })

  const outside = Chain.entersOf(program.publish)
  const entersFor = (channel: Channel.Any): ReadonlyArray<Chain.Enter> | undefined => {
    const own = Chain.publishOf(channel)
    const inside = own === undefined ? [] : Chain.entersOf([own])
    return outside === undefined || inside === undefined ? undefined : [...outside, ...inside]
  }

  /** A batch through middleware that does not wait: each is entered, the batch is sent, each is left. */
  const publishAround = Effect.fnUntraced(function*(
    enters: ReadonlyArray<Chain.Enter>,
    channel: Channel.Any,
    payloads: Iterable<unknown>,
    optionsFor: (payload: never, index: number) => AnyOptions | RequestError | undefined
  ): Effect.fn.Return<ReadonlyArray<Receipt | Failure>, RequestError> {
    const messages: Array<NewMessage> = []
    // The functions of one message beside each other, outermost first.
    const leaves: Array<Chain.Entered["leave"]> = []
    const leave = (from: number, exit: Exit.Exit<Receipt, Failure>) => {
      for (let i = from + enters.length - 1; i >= from; i--) leaves[i]?.(exit)
    }
    const all = Effect.gen(function*() {
      let index = 0
      for (const payload of payloads) {
        const options = optionsFor(payload as never, index++)
        if (options instanceof Error) return yield* Effect.fail(options)
        let request: PublishRequest = requestOf(channel, payload, options)
        for (const enter of enters) {
          const entered = yield* enter(request)
          request = entered.request
          leaves.push(entered.leave)
        }
        messages.push(yield* ports.encode(request))
      }
      if (messages.length === 0) return []
      const appended = yield* ports.append(messages)
      const outcomes = messages.map((message, i) => ports.outcomeOf(message, appended[i]!))
      for (const [i, outcome] of outcomes.entries()) {
        leave(i * enters.length, outcome instanceof Error ? Exit.fail(outcome) : Exit.succeed(outcome))
      }
      leaves.length = 0
      return outcomes
    })
    const given = Effect.onExit(all, (exit) =>
      Effect.sync(() => {
        if (Exit.isSuccess(exit)) return
        for (let from = 0; from < leaves.length; from += enters.length) {
          // The last message is the one that was refused; the others waited for a batch that will not be sent.
          leave(from, from === messages.length * enters.length ? Exit.failCause(exit.cause) : Exit.interrupt())
        }
      }))
    return yield* isEmpty ? given : Effect.updateContext(given, complete)
  })

  /** Completes when the message has come to the end of its chain, or the chain has ended without it. */
  const arrival = (slot: Slot, fiber: Fiber.Fiber<Receipt, Failure>) =>
    Effect.callback<void>((resume) => {
      const done = () => resume(Effect.void)
      // The message may have arrived while others were sent.
      if (slot.message !== undefined) return done()
      slot.arrived = done
      return Effect.sync(fiber.addObserver(done))
    })

  /** The outcomes in order; it fails when a message was refused before any was sent. */
  const publishThrough = Effect.fnUntraced(function*(
    channel: Channel.Any,
    payloads: Iterable<unknown>,
    optionsFor: (payload: never, index: number) => AnyOptions | RequestError | undefined
  ): Effect.fn.Return<ReadonlyArray<Receipt | Failure>, RequestError> {
    const context = yield* Effect.context()
    const fork = Effect.runForkWith(isEmpty ? context : complete(context))
    const fibers: Array<Fiber.Fiber<Receipt, Failure>> = []
    let waiting: Array<Slot> = []
    let isSent = false

    const flush = Effect.suspend(() => {
      const slots = waiting
      if (slots.length === 0) return Effect.void
      waiting = []
      isSent = true
      return Effect.map(ports.append(slots.map((slot) => slot.message!)), (appended) => {
        for (const [i, slot] of slots.entries()) slot.resume!(settle(ports.outcomeOf(slot.message!, appended[i]!)))
      })
    })

    const all = Effect.gen(function*() {
      let index = 0
      for (const payload of payloads) {
        const slot = new Slot()
        const options = optionsFor(payload as never, index++)
        const fiber = fork(
          options instanceof Error ? Effect.fail(options) : run(requestOf(channel, payload, options, slot))
        )
        fibers.push(fiber)
        if (slot.message === undefined && fiber.pollUnsafe() === undefined) {
          yield* flush
          yield* arrival(slot, fiber)
        }
        if (slot.message !== undefined) {
          waiting.push(slot)
          continue
        }
        const exit = fiber.pollUnsafe()
        // The others wait for a batch that will not be sent.
        if (exit !== undefined && Exit.isFailure(exit) && !isSent) return yield* exit as Exit.Exit<never, RequestError>
      }
      yield* flush
      const outcomes: Array<Receipt | Failure> = []
      for (const fiber of fibers) {
        const exit = fiber.pollUnsafe() ?? (yield* Fiber.await(fiber))
        if (Exit.isSuccess(exit)) {
          outcomes.push(exit.value)
          continue
        }
        const error = Cause.findErrorOption(exit.cause)
        if (error._tag === "None") return yield* exit as Exit.Exit<never>
        outcomes.push(error.value)
      }
      return outcomes
    })
    return yield* Effect.onExit(all, (exit) => Exit.isSuccess(exit) ? Effect.void : Fiber.interruptAll(fibers))
  })

  const publishAll: typeof publishThrough = (channel, payloads, optionsFor) => {
    const enters = entersFor(channel)
    return enters === undefined
      ? publishThrough(channel, payloads, optionsFor)
      : publishAround(enters, channel, payloads, optionsFor)
  }

  return { isEmpty, publish, prepare, publishAll }
}
