/** Listening: what arrives waits in a buffer, and is decoded when the stream or the handler takes it. */
import { Array as Arr, Cause, Effect, Exit, Scope, Stream } from "effect"
import type { BrokerError } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import type { BroadcastPort } from "../broker/broadcast.ts"
import * as Mailbox from "../internal/broadcastBuffer.ts"
import type * as Ending from "../internal/ending.ts"
import { pretty } from "../internal/failure.ts"
import { isDone } from "../internal/immediate.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Shape from "../internal/optionShape.ts"
import { isTold, makeRepeating, tellEnd } from "../internal/reports.ts"
import * as Workers from "../internal/workers.ts"
import type { Gap, Listener, ListenOptions, Message, StreamOptions } from "./listener.ts"
import { InvalidListener } from "./listener.ts"

/** What listening uses of the service. */
interface Port {
  readonly listen: BroadcastPort["listen"]
  readonly endings: Ending.Registry
}

const option = Given.failing(InvalidListener)

const most = Number.MAX_SAFE_INTEGER

const shape = Shape.shape<Partial<ListenOptions<Channel.Any, unknown, unknown>>>()({
  capacity: Shape.count({ usual: 4096, least: 1, most }),
  maxBufferedChars: Shape.count({ usual: 64 * 1024 * 1024, least: 1, most }),
  overflow: Shape.choice("bounded", "dropping", "sliding"),
  onGap: Shape.func,
  onInvalid: Shape.func,
  handler: Shape.func,
  concurrency: Shape.count({ usual: 1, least: 1, most })
})

/** Subscribes in the current scope: the buffer, and the handling of an item of it. */
const open = Effect.fnUntraced(function*<S extends Channel.Source, R>(
  { listen }: Port,
  source: S,
  options: StreamOptions<R>
) {
  yield* option(Channel.checkSource("source", source))
  const given = yield* option(Given.known("the options", options, shape.names))
  const { capacity, concurrency, maxBufferedChars: maxChars, overflow } = yield* option(shape.read(given))
  const name = Channel.describe(source)
  const decoderFor = Channel.decoderFor(source)
  const mailbox = Mailbox.make({ capacity, maxChars, overflow })
  const counts = { invalid: 0, interruptions: 0 }

  const onGap = options.onGap ?? ((gap: Gap) =>
    Effect.logWarning(
      gap.reason === "overflow"
        ? `rotif: ${gap.dropped} messages for a listener on "${name}" were dropped, it is too slow`
        : `rotif: listening on "${name}" was interrupted, messages may be missing`
    ))
  const onInvalid = options.onInvalid ?? ((error: Channel.InvalidPayload) =>
    isTold(counts.invalid)
      ? Effect.logWarning(`rotif: message number ${counts.invalid} that was skipped on "${name}": ${error.message}`)
      : Effect.void)

  const invalid = (error: Channel.InvalidPayload, count = 1) => {
    counts.invalid += count
    return Effect.as(Given.prompt("onInvalid", Given.effect("onInvalid", () => onInvalid(error))), undefined)
  }
  const foreign = (channel: string, count = 1) =>
    invalid(
      new Channel.InvalidPayload({
        channel,
        operation: "decode",
        message: `what arrived on "${channel}" is not a message of this listener`
      }),
      count
    )

  const callbacks = makeRepeating((round, cause) =>
    Effect.logError(`rotif: code of a listener on "${name}" failed (${round} so far), and it goes on`, pretty(cause))
  )

  /** Decodes the message of an item, if it is one. */
  const decoded = (
    item: Mailbox.Item
  ): Effect.Effect<Message<S> | undefined, never, R | Channel.DecodingServices<S>> => {
    if (item instanceof Mailbox.Missing) {
      const { dropped } = item
      const gap: Gap = dropped === undefined ? { reason: "reconnected" } : { reason: "overflow", dropped }
      const told = Given.prompt("onGap", Given.effect("onGap", () => onGap(gap)), Given.longestWorkMillis)
      return Effect.as(told, undefined)
    }
    if (item instanceof Mailbox.Malformed) return foreign(item.channel, item.count)
    const { channel, headers = {}, params = {} } = item
    const decode = decoderFor(channel)
    if (decode === undefined) return foreign(channel)
    const value = decode(item.payload)
    return Effect.matchEffect(isDone(value) ? value : Given.prompt("the schema", value), {
      onFailure: (error) => invalid(error),
      // The schema of the source made the payload, and `publish` checked the params.
      onSuccess: (payload) => Effect.succeed({ channel, payload, params, headers } as unknown as Message<S>)
    })
  }

  /** The same. The schema, `onGap` and `onInvalid` must not end what listens. */
  const open = (item: Mailbox.Item) =>
    Effect.catchCause(
      decoded(item),
      (cause) => Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.as(callbacks.failed(cause), undefined)
    )

  yield* listen(Channel.selector(source), {
    onMessage: mailbox.offer,
    onMalformed: mailbox.malformed,
    onGap: () => {
      counts.interruptions++
      mailbox.interrupted()
    }
  })
  return { name, mailbox, counts, concurrency, open }
})

/** At most this many messages are decoded before the first of them is passed on. */
const chunkSize = 256

/** Listens as a stream of messages. */
export const subscribe = Effect.fnUntraced(function*<S extends Channel.Source, R>(
  port: Port,
  source: S,
  options: StreamOptions<R>
) {
  const { mailbox, name, open: decode } = yield* open(port, source, options)
  yield* Effect.addFinalizer((exit) => tellEnd(`the stream of what is broadcast on "${name}"`, exit))
  /** A gap that is reported after the messages in front of it are taken. */
  let next: Mailbox.Item | undefined
  return Stream.fromPull(Effect.succeed(Effect.gen(function*() {
    const messages: Array<Message<S>> = []
    while (true) {
      const item = next ?? (messages.length < chunkSize ? mailbox.poll() : undefined)
      next = undefined
      const isGap = item instanceof Mailbox.Missing
      if ((item === undefined || isGap) && Arr.isReadonlyArrayNonEmpty(messages)) {
        next = item
        return messages
      }
      if (item === undefined) {
        yield* mailbox.arrived
        continue
      }
      const message = yield* decode(item)
      if (message !== undefined) messages.push(message)
    }
  })))
})

/** Listens with a handler in the current scope. */
export const listen = Effect.fnUntraced(function*<S extends Channel.Source, E, R>(
  port: Port,
  source: S,
  options: ListenOptions<S, E, R>
): Effect.fn.Return<Listener, InvalidListener | BrokerError, R | Channel.DecodingServices<S> | Scope.Scope> {
  yield* option(Given.record("the options", options))
  yield* option(Given.required("handler", options.handler))
  const scope = yield* Scope.make()
  const { concurrency, counts, mailbox, name, open: decode } = yield* open(port, source, options).pipe(
    Scope.provide(scope),
    Effect.onError(() => Scope.close(scope, Exit.void))
  )
  let handled = 0
  let failed = 0
  const failedOn = (cause: Cause.Cause<unknown>, channel: string): Effect.Effect<void> => {
    handled++
    failed++
    return isTold(failed)
      ? Effect.logError(
        `rotif: the handler of a listener on "${name}" failed on "${channel}" (${failed} so far)`,
        pretty(cause)
      )
      : Effect.void
  }

  const handle = (message: Message<S>, channel: string) =>
    Effect.matchCauseEffect(Given.effect(`the handler of a listener on "${name}"`, () => options.handler(message)), {
      onSuccess: () => Effect.sync(() => void handled++),
      onFailure: (cause) => failedOn(cause, channel)
    })
  const handleOne = ({ turn, work }: Workers.Wrappers) =>
    turn(Effect.gen(function*() {
      const item = mailbox.poll()
      if (item === undefined) return yield* mailbox.arrived
      const handled = Effect.scoped(work(Effect.gen(function*() {
        const message = yield* decode(item)
        if (message !== undefined) yield* handle(message, "channel" in item ? item.channel : name)
      })))
      // Its fiber has died outside of everything that handles failures.
      return yield* Effect.catchCause(
        handled,
        (cause) => Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : failedOn(cause, name)
      )
    }))
  const ending = yield* Workers.start({
    drainMillis: 0,
    loops: (ways) => Array.from({ length: concurrency }, () => Effect.forever(handleOne(ways))),
    leave: Scope.close(scope, Exit.void)
  })
  port.endings.keep(ending)

  return {
    stats: Effect.sync(() => ({
      ...counts,
      handled,
      failed,
      dropped: mailbox.dropped(),
      buffered: mailbox.size()
    })),
    stop: ending.ask
  }
})
