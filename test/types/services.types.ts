/** The services are typed as strictly as the functions of their modules, and say what is missing by its name. */
import { Effect, Schema } from "effect"
import { Broadcast, Channel, DeadLetters, Publisher, Scheduler, Transaction } from "rotif"
import { expectTypeOf } from "vitest"

const Order = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })
const params = { params: { userId: "42" } }

declare const publisher: Publisher.Publisher["Service"]
declare const broadcast: Broadcast.Broadcast["Service"]
declare const scheduler: Scheduler.Scheduler["Service"]
declare const letters: DeadLetters.DeadLetters["Service"]

// What is forgotten is named.
type Options = { readonly id?: string }
expectTypeOf<Channel.OptionsArgument<typeof Notice, Options>>().toEqualTypeOf<
  [options: Options] | [missingParams: never]
>()
expectTypeOf<Channel.OptionsArgument<typeof Order, Options>>().toEqualTypeOf<[options?: Options | undefined]>()
expectTypeOf<Channel.WithParams<typeof Notice, Options>>().toEqualTypeOf<
  Options & { readonly params: { readonly userId: string } }
>()
expectTypeOf<Channel.WithParams<typeof Order, Options>>().toEqualTypeOf<Options>()

publisher.publish(Order, { id: "1" })
publisher.publish(Notice, "hi", params)
// @ts-expect-error missing params: userId
publisher.publish(Notice, "hi")
// @ts-expect-error options without the params
publisher.publish(Notice, "hi", { id: "x" })
// @ts-expect-error a channel without params takes none
publisher.publish(Order, { id: "1" }, params)
// @ts-expect-error an option that does not exist
publisher.publish(Order, { id: "1" }, { ttl: 1 })
publisher.publishAll(Order, [{ id: "1" }])
publisher.publishAll(Notice, ["hi"], () => params)
// @ts-expect-error missing params: userId
publisher.publishAll(Notice, ["hi"])
// @ts-expect-error the options made for each lack the params
publisher.publishAll(Notice, ["hi"], () => ({ id: "x" }))
publisher.prepare(Notice, "hi", params)
// @ts-expect-error the params are missing
publisher.prepare(Notice, "hi", {})

broadcast.publish(Order, { id: "1" })
broadcast.publish(Notice, "hi", params)
// @ts-expect-error missing params: userId
broadcast.publish(Notice, "hi")
// @ts-expect-error a channel without params takes none
broadcast.publish(Order, { id: "1" }, params)
broadcast.publishAll(Notice, ["hi"], params)
// @ts-expect-error missing params: userId
broadcast.publishAll(Notice, ["hi"])

scheduler.recurring("k", "* * * * *", Order, { id: "1" })
scheduler.recurring("k", "* * * * *", Notice, "hi", params)
// @ts-expect-error missing params: userId
scheduler.recurring("k", "* * * * *", Notice, "hi")
// @ts-expect-error a channel without params takes none
scheduler.recurring("k", "* * * * *", Order, { id: "1" }, params)

// The functions say it, too.
// @ts-expect-error missing params: userId
Publisher.publish(Notice, "hi")
// @ts-expect-error missing params: userId
Publisher.publishAll(Notice, ["hi"])
// @ts-expect-error missing params: userId
Broadcast.publish(Notice, "hi")
// @ts-expect-error missing params: userId
Broadcast.publishAll(Notice, ["hi"])
// @ts-expect-error missing params: userId
Scheduler.recurring("k", "* * * * *", Notice, "hi")
// @ts-expect-error missing params: userId
Transaction.publish(Notice, "hi")

// Nothing is left unknown.
expectTypeOf<Effect.Services<ReturnType<typeof letters.requeue<never>>>>().toBeNever()
const requeued = letters.requeue("0:1-0")
expectTypeOf<Effect.Services<typeof requeued>>().toBeNever()
const edited = letters.requeue("0:1-0", { channel: Order, payload: { id: "1" } })
expectTypeOf<Effect.Services<typeof edited>>().toBeNever()
// @ts-expect-error the payload is not that of the channel
letters.requeue("0:1-0", { channel: Order, payload: { id: 1 } })
const published = publisher.publish(Order, { id: "1" })
expectTypeOf<Effect.Services<typeof published>>().toBeNever()
