/**
 * The demo: a few hundred orders, two groups and a wildcard subscription, retries, a delay, a consumer that is lost on the way, dead
 * letters that are requeued, and an account of every message at the end. It ends with code 1 when the account does not add up.
 *
 *     npm run demo                                     in memory
 *     REDIS_URL=redis://localhost:6379 npm run demo    on Redis; the lost consumer is a process that is killed
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Data, Effect, Option, Schedule, Stream } from "effect"
import { join } from "node:path"
import { Broker, Channel, DeadLetters, Publisher, Retry, Scheduler, Subscription } from "rotif"
import { backend, redisUrl, runPrefix } from "../backend.ts"
import * as Account from "./account.ts"
import * as Crash from "./crash.ts"
import * as Orders from "./orders.ts"

class CardDeclined extends Data.TaggedError("CardDeclined")<{ readonly message: string }> {}
class GatewayDown extends Data.TaggedError("GatewayDown")<{ readonly message: string }> {}
class NoCarrier extends Data.TaggedError("NoCarrier")<{ readonly message: string }> {}
class DoesNotAddUp extends Data.TaggedError("DoesNotAddUp")<{ readonly message: string }> {}
class StillWorking extends Data.TaggedError("StillWorking")<{ readonly message: string }> {}

const file = join(import.meta.dirname, "../data/orders.ndjson")

const startedAt = performance.now()
const say = (text: string) =>
  Console.log(`${((performance.now() - startedAt) / 1000).toFixed(2).padStart(6)} s  ${text}`)

/** Whether all groups have settled everything on all channels. */
const isDone = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  const info = yield* broker.info(Channel.selector(Orders.AnyOrder))
  const groups = info.channels.flatMap((channel) => channel.groups)
  return info.waiting === 0 && groups.every(({ lag, pending, ready }) => lag === 0 && pending === 0 && ready === 0)
})

const untilDone = Effect.gen(function*() {
  // These counts are not read at one instant: the second read sees a message that moved meanwhile.
  if (!(yield* isDone) || !(yield* isDone)) {
    return yield* new StillWorking({ message: "some orders are not settled after 30 seconds" })
  }
}).pipe(Effect.retry({
  schedule: Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "30 seconds" })),
  while: (error) => error._tag === "StillWorking"
}))

/** How long refunds are delayed. */
const refundDelayMillis = 500

/** How many of the orders to Antarctica are requeued once shipping there is possible. */
const shippable = 6

const program = Effect.gen(function*() {
  const input = yield* Orders.read(file)
  const { placed, refunded } = input
  const url = yield* redisUrl
  yield* say(`read ${input.lines} lines, working ${Option.isSome(url) ? "on Redis" : "in memory"}`)

  const placedIds = new Set(placed.map(({ id }) => id))
  const refundIds = refunded.map(({ order }, index) => `refund-${index + 1}-of-${order}`)
  const billing = Account.makeGroup("billing", placedIds)
  const shipping = Account.makeGroup(Crash.group, placedIds)
  const audit = Account.makeGroup("audit", new Set([...placedIds, ...refundIds]))
  let hasPolarCarrier = false
  let firstRefundAt: number | undefined

  /** Records what a group handles, around its handler. */
  const booked = Effect.fnUntraced(function*<E>(
    group: Account.Group,
    message: { readonly id: string; readonly attempt: number; readonly deliveryCount: number },
    work: Effect.Effect<void, E>
  ) {
    if (message.attempt > 1) group.retried.add(message.id)
    // Delivered more often than it failed: its first consumer was lost.
    if (message.deliveryCount > message.attempt) {
      group.recovered.add(message.id)
      if (group.recovered.size === Crash.held) yield* say(`${group.name} has taken over all ${Crash.held} lost orders`)
    }
    yield* work
    group.handled.add(message.id)
    if (group.handled.size % 100 === 0) yield* say(`${group.name} has handled ${group.handled.size}`)
  })

  yield* Subscription.make(Orders.OrderPlaced, {
    group: billing.name,
    concurrency: 8,
    handler: (message) =>
      booked(
        billing,
        message,
        Effect.gen(function*() {
          yield* Effect.sleep("5 millis")
          const { card } = message.payload
          if (card === "0002") return yield* new CardDeclined({ message: "insufficient funds" })
          if (card === "0119" && message.attempt < 3) return yield* new GatewayDown({ message: "no answer" })
        })
      ),
    retry: Retry.make({
      CardDeclined: Retry.term,
      GatewayDown: Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 5 }))
    })
  })

  yield* Subscription.make(Orders.AnyOrder, {
    group: audit.name,
    concurrency: 4,
    handler: (message) =>
      booked(
        audit,
        message,
        Effect.suspend(() => {
          if (message.channel === Orders.OrderRefunded.name) firstRefundAt ??= performance.now()
          return Effect.sleep("1 millis")
        })
      )
  })

  // The first consumer of "shipping" takes some orders and dies with them.
  const doomed = yield* Option.isSome(url) ? Crash.killedProcess(url.value, runPrefix) : Crash.silentMember
  yield* doomed.joined

  const early = placed.slice(0, 60)
  yield* Publisher.publishAll(Orders.OrderPlaced, early, ({ id }) => ({ id }))
  yield* say(`published ${early.length} orders`)
  yield* say(yield* doomed.end)

  yield* Subscription.make(Orders.OrderPlaced, {
    group: shipping.name,
    concurrency: 8,
    lease: Crash.leaseMillis,
    handler: (message) =>
      booked(
        shipping,
        message,
        Effect.gen(function*() {
          yield* Effect.sleep("5 millis")
          if (message.payload.customer.country === "AQ" && !hasPolarCarrier) {
            return yield* new NoCarrier({ message: "nobody ships to Antarctica" })
          }
        })
      ),
    retry: Retry.make({ NoCarrier: Retry.term })
  })
  yield* say(`another consumer of "${shipping.name}" is there; the leases end after ${Crash.leaseMillis} ms`)

  yield* Publisher.publishAll(Orders.OrderPlaced, placed.slice(early.length), ({ id }) => ({ id }))
  yield* say(`published ${placed.length - early.length} more orders`)
  const scheduledAt = performance.now()
  yield* Publisher.publishAll(Orders.OrderRefunded, refunded, (_, index) => ({
    id: refundIds[index]!,
    delay: refundDelayMillis
  }))
  const waiting = yield* Scheduler.count(Orders.OrderRefunded)
  yield* say(`${waiting} refunds are scheduled, in ${refundDelayMillis} ms`)

  yield* untilDone
  const waited = Math.floor((firstRefundAt ?? Number.NaN) - scheduledAt)
  yield* say(`everything is settled; the first refund came after ${waited} ms`)
  yield* say(`${billing.name} tried ${billing.retried.size} orders again, with growing delays`)

  const lost = yield* DeadLetters.count({ group: shipping.name })
  hasPolarCarrier = true
  const { moved } = yield* DeadLetters.requeueAll({ group: shipping.name }, { limit: shippable })
  yield* say(
    `somebody ships to Antarctica: ${moved} of ${lost} dead letters go back to ${shipping.name}, and to nobody else`
  )
  yield* untilDone
  const letters = [...(yield* Stream.runCollect(DeadLetters.all()))]
  yield* say(`${shipping.name} has handled them`)

  const rows = [billing, shipping, audit].map((group) => Account.rowOf(group, letters))
  const published = placed.length + refunded.length
  const isRead = published + input.malformed + input.invalid === input.lines
  yield* Console.log(`
Lines of ${file.slice(file.lastIndexOf("/") + 1)}
  published ${published} (${placed.length} orders, ${refunded.length} refunds), not JSON ${input.malformed}, \
not an order ${input.invalid}; together ${published + input.malformed + input.invalid} of ${input.lines}

Groups
${Account.table(rows).join("\n")}

Dead letters
${Account.causes(letters).join("\n")}
`)
  const isOnTime = waiting === refunded.length && waited >= refundDelayMillis - 1
  if (!isRead || !isOnTime || moved !== shippable || !rows.every(({ addsUp }) => addsUp)) {
    return yield* new DoesNotAddUp({ message: "the account does not add up" })
  }
  yield* Console.log("The account adds up: every message was handled or is a dead letter, in every group.")
})

program.pipe(Effect.scoped, Effect.provide(backend()), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
