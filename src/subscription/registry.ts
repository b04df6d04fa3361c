/** The registry of the subscriptions that run in a program, and what they share. */
import type { Cause } from "effect"
import { Context, Effect, Layer } from "effect"
import type { Delivery, Selector } from "../Broker.ts"
import type * as Message from "../Message.ts"
import * as Retry from "../Retry.ts"
import * as Ending from "../internal/ending.ts"
import type * as Reporting from "../internal/reports.ts"
import type { Settlement } from "../internal/settlement.ts"
import type { SharedFibers } from "../internal/sharedFibers.ts"
import type * as Unnamed from "../internal/unnamedGroups.ts"
import * as Middleware from "../middleware/definition.ts"
import type { Subscription } from "./handle.ts"
import * as Settings from "./settings.ts"
import type { Vitals } from "./vitals.ts"

/** What `Health` and `stream` use of a subscription. */
interface Watched {
  readonly selector: Selector
  readonly vitals: () => Vitals
  /** The verdict on an attempt that failed, by the policy of the subscription. */
  readonly failed: (
    message: Message.Envelope,
    delivery: Delivery,
    cause: Cause.Cause<unknown>
  ) => Effect.Effect<Settlement>
}

/**
 * The registry of the subscriptions that run in this program, and what they share.
 *
 * @category services
 * @since 0.1.0
 */
export class Subscriptions extends Context.Service<Subscriptions, {
  /** The defaults of the program. */
  readonly defaults: Settings.ProgramDefaults
  /** @internal */
  readonly running: Set<Subscription>
  /**
   * The ends of all subscriptions that have not ended yet.
   *
   * @internal
   */
  readonly endings: Ending.Registry
  /**
   * What `Health` reads about each subscription.
   *
   * @internal
   */
  readonly watched: WeakMap<Subscription, Watched>
  /** The middleware of the program. */
  readonly middleware: Middleware.Program
  /** The retry policies of the program, with the default of its options. */
  readonly retry: Retry.Retry
  /**
   * The log budget of each group.
   *
   * @internal
   */
  readonly budgets: Reporting.Budgets
  /**
   * The promoters of retries, for a program without the promoter duty; `undefined` with it.
   *
   * @internal
   */
  readonly retries: SharedFibers<number> | undefined
  /**
   * Streams that ended with a failure, by group and pattern, until one is started again.
   *
   * @internal
   */
  readonly failures: Map<string, Failed>
  /**
   * The subscriptions without a group of their own.
   *
   * @internal
   */
  readonly unnamed: Unnamed.Unnamed
}>()("rotif/Subscriptions") {}

/** A stream whose consumer failed: its messages are not handled any more. */
interface Failed {
  readonly group: string
  readonly pattern: string
  readonly message: string
}

/**
 * Makes the registry of running subscriptions. The end of the layer ends the subscriptions that are left.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRegistry = (
  defaults: Settings.ProgramDefaults & { readonly delayed?: boolean | undefined } = {}
): Layer.Layer<Subscriptions> =>
  Layer.effect(
    Subscriptions,
    Effect.gen(function*() {
      yield* Settings.checkDefaults(defaults)
      const endings = yield* Ending.registry
      return {
        defaults: Settings.defaultsOf(defaults),
        running: new Set<Subscription>(),
        endings,
        watched: new WeakMap<Subscription, Watched>(),
        middleware: yield* Middleware.Program,
        retry: Retry.within(yield* Retry.Retry, { default: defaults.retry, policies: new Map() }),
        budgets: new Map(),
        retries: defaults.delayed === false ? new Map() : undefined,
        failures: new Map(),
        unnamed: new Map()
      }
    })
  )

/**
 * Lists the subscriptions that run in this program.
 *
 * @category operations
 * @since 0.1.0
 */
export const running: Effect.Effect<ReadonlyArray<Subscription>, never, Subscriptions> = Subscriptions.useSync((
  { running }
) => [...running])
