/** Shared by the suites of dead letters: how messages become dead letters, and how a test reads them. */
import { Data, Effect, Queue, Schema } from "effect"
import type { DeadLetter, Subscription } from "rotif"
import { Channel, DeadLetters, Publisher } from "rotif"
import { type Backend, listen } from "./kit.ts"

export const Text = Channel.make("texts", { payload: Schema.String })
export const Amount = Channel.make("amounts", { payload: Schema.Int })
export const Created = Channel.make("orders.created", { payload: Schema.String })
export const Paid = Channel.make("orders.paid", { payload: Schema.String })

export class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}
class Broken extends Data.TaggedError("Broken")<{ readonly message: string }> {}

type TextChannel = Channel.Channel<string, Schema.String>
type TextOptions = Partial<Subscription.Options<TextChannel, Declined | Broken, never>>

/** Fails each message without a retry: with `Declined`, or with `Broken` when the payload asks for it. */
export const hopeless = {
  maxRetries: 0,
  handler: ({ payload }: { readonly payload: unknown }) =>
    Effect.fail(
      payload === "broken" ? new Broken({ message: "it broke" }) : new Declined({ message: `no ${String(payload)}` })
    )
}

export const ids = (letters: ReadonlyArray<DeadLetter.DeadLetter>) => letters.map(({ letterId }) => letterId)

/** Lists the payloads of all dead letters, oldest first. */
export const everything = Effect.map(
  DeadLetters.list({}, { order: "oldest", limit: 1000 }),
  ({ letters }) => letters
)
export const raws = Effect.map(everything, (letters) => letters.map(({ raw }) => JSON.parse(raw) as unknown))

/** Turns messages of a channel into dead letters, in order. */
export const burying = ({ soon }: Backend) =>
  Effect.fnUntraced(function*(channel: TextChannel, payloads: ReadonlyArray<string>, options?: TextOptions) {
    const { seen, subscription } = yield* listen<TextChannel, Declined | Broken>(channel, { ...hopeless, ...options })
    for (const payload of payloads) yield* Publisher.publish(channel, payload)
    yield* soon(Queue.takeN(seen, payloads.length))
    yield* soon(subscription.drain)
  })

/** Waits until the dead letters are the expected ones. */
export const waiting =
  ({ soon }: Backend) => <A>(look: Effect.Effect<A, unknown, DeadLetters.DeadLetters>, isSo: (found: A) => boolean) =>
    soon(Effect.gen(function*() {
      while (!isSo(yield* look)) yield* Effect.yieldNow
    }))
