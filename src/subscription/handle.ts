/** The handle of a subscription, and its end. */
import type { Fiber } from "effect"
import { Effect, Exit, Scope } from "effect"
import type { Broker, BrokerError, GroupRemoved, Membership } from "../Broker.ts"
import * as Ending from "../internal/ending.ts"
import * as Given from "../internal/optionChecks.ts"
import type { Consumer } from "./consumer.ts"
import type { Processing } from "./handlerTimes.ts"
import type { Counts } from "./heldDelivery.ts"
import type { Settings } from "./settings.ts"

/**
 * The statistics of a subscription: counts in this process since it started or was reset.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats extends Readonly<Counts> {
  /** The number of handlers that run now. */
  readonly inFlight: number
  /** The number of messages that are leased to this process now: they run, wait, or have a settlement that is not stored yet. */
  readonly held: number
  /** How long messages took, from their decoding to the end of their handler, with any outcome. `undefined` before the first has ended. */
  readonly processing: Processing | undefined
}

/**
 * The handle of a running subscription.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription {
  /** The name of the channel, the pattern, or the names of a union joined by `,`. */
  readonly pattern: string
  readonly group: string
  /** The name of its consumer, unique among the consumers of the group. */
  readonly consumer: string
  readonly stats: Effect.Effect<Stats>
  /** Sets its counts to 0. The totals of the group, which the backend keeps (`Stats`), stay. */
  readonly resetStats: Effect.Effect<void>
  readonly isPaused: Effect.Effect<boolean>
  /** Stops taking messages, lets running handlers finish, and gives back the messages that wait here. */
  readonly pause: Effect.Effect<void>
  /** Takes messages again after `pause`. */
  readonly resume: Effect.Effect<void>
  /**
   * Ends the subscription: it takes no more messages, lets running handlers finish (for at most `drainTimeout`), gives the rest back, and leaves
   * the group. It is one end for all who ask for it. From inside of a handler it waits for everything but the handlers that wait for an end.
   */
  readonly drain: Effect.Effect<void>
  /** Drains; with `removeGroup` it then removes the group, with all messages that the group has not handled. */
  readonly unsubscribe: (
    options?: { readonly removeGroup?: boolean | undefined }
  ) => Effect.Effect<void, BrokerError>
  /** Completes when the subscription has ended. Fails with `GroupRemoved` if it ended because its group was removed. */
  readonly ended: Effect.Effect<void, GroupRemoved>
  /**
   * The fiber of the subscription: it runs as long as the subscription. `Fiber.await` and `Fiber.join` complete with the end, as `ended` does.
   * `Fiber.interrupt` drains the subscription and waits as `drain` does, also from inside of a handler; then the fiber completes when nothing is
   * left but handlers that wait for the end.
   */
  readonly fiber: Fiber.Fiber<void, GroupRemoved>
}
/** The end of a subscription, and the removal of its group if somebody asks for it. */
export const makeEnd = (
  broker: Broker["Service"],
  { group, selector }: Pick<Membership, "group" | "selector">,
  guard: Scope.Closeable
) => {
  let isOver = false
  let isGroupUnwanted = false
  let removal: Exit.Exit<void, BrokerError> | undefined
  const removeGroup = Effect.flatMap(Effect.exit(broker.removeGroup(group, selector)), (exit) => {
    removal = exit
    return exit
  })
  return {
    isOver: () => isOver,
    /** The last part of the end. */
    after: Effect.gen(function*() {
      if (isGroupUnwanted) {
        // A handler that asked for it has ended, and cannot be told.
        yield* Effect.tapError(
          removeGroup,
          (error) => Effect.logWarning(`rotif: group "${group}" was not removed: ${error.message}`)
        ).pipe(Effect.ignore)
      }
      isOver = true
      yield* Scope.close(guard, Exit.void)
    }),
    /** Asks for the end, and removes the group after it. */
    removeGroup: (ask: Effect.Effect<void>): Effect.Effect<void, BrokerError> => {
      if (isOver) return removal !== undefined && Exit.isSuccess(removal) ? Effect.void : removeGroup
      isGroupUnwanted = true
      return Effect.andThen(ask, Effect.suspend(() => removal ?? Effect.void))
    }
  }
}

const unsubscribeNames: ReadonlySet<string> = new Set(["removeGroup"])

/** Dies of any other value: it would silently count as "no". */
const removeGroupOf = (options: { readonly removeGroup?: boolean | undefined } | undefined): Effect.Effect<boolean> =>
  Effect.flatMap(
    Given.orDie(Given.known("the options of unsubscribe", options, unsubscribeNames)),
    (options) => Given.orDie(Given.flag("removeGroup", options?.removeGroup, false))
  )

export const make = (
  consumer: Consumer,
  { membership, pattern }: Pick<Settings<never, never>, "membership" | "pattern">,
  end: ReturnType<typeof makeEnd>
): Subscription => {
  const ended = Effect.andThen(
    consumer.ending.over,
    Effect.suspend(() => {
      const removed = consumer.removed()
      return removed === undefined ? Effect.void : Effect.fail(removed)
    })
  )
  return {
    pattern,
    group: membership.group,
    consumer: membership.consumer,
    stats: Effect.sync(() => ({
      ...consumer.counts,
      inFlight: consumer.inFlight(),
      held: consumer.held(),
      processing: consumer.processing()
    })),
    resetStats: Effect.sync(consumer.reset),
    isPaused: Effect.sync(consumer.isPaused),
    pause: consumer.pause,
    resume: consumer.resume,
    drain: consumer.ending.ask,
    unsubscribe: (options) =>
      Effect.flatMap(
        removeGroupOf(options),
        (isUnwanted) => isUnwanted ? end.removeGroup(consumer.ending.ask) : consumer.ending.ask
      ),
    ended,
    fiber: Ending.fiberOf(consumer.ending, ended)
  }
}
