/**
 * Runs effects as Promises. A Promise is rejected with an error of the Promise API, whose stack goes on with the code that waits for it.
 */
import { Effect } from "effect"
import * as Broker from "../Broker.ts"
import * as Channel from "../Channel.ts"
import * as DeadLetter from "../DeadLetter.ts"
import * as Groups from "../Groups.ts"
import * as Inspector from "../Inspector.ts"
import * as Message from "../Message.ts"
import * as Publisher from "../Publisher.ts"
import * as Redis from "../Redis.ts"
import * as Core from "../Subscription.ts"
import * as Errors from "./errors.ts"
import { issuesIn } from "./validation.ts"

/** The error of the Promise API for one of the layers below; any other value as it is. */
export const translated = (error: unknown): unknown => {
  if (error instanceof Publisher.Unavailable) return new Errors.Unavailable(only(error, "channel", "id", "message"))
  if (error instanceof Publisher.PublishUncertain) {
    return new Errors.PublishUncertain(only(error, "channel", "id", "message"))
  }
  if (error instanceof Publisher.DurabilityNotReached) {
    return new Errors.DurabilityNotReached(only(error, "channel", "id", "replicas", "message"))
  }
  if (error instanceof Publisher.PayloadTooLarge) {
    return new Errors.PayloadTooLarge(only(error, "channel", "bytes", "limit", "message"))
  }
  if (error instanceof Publisher.InvalidPublishOptions) {
    return new Errors.InvalidOption({ option: "options", message: error.message })
  }
  if (error instanceof Channel.InvalidPayload) {
    return new Errors.InvalidPayload({ ...only(error, "channel", "message"), issues: issuesIn(error) })
  }
  if (error instanceof Channel.InvalidChannelName) {
    return new Errors.InvalidChannelName({ channel: error.name, message: error.message })
  }
  if (
    error instanceof Core.InvalidSubscription || error instanceof Inspector.InvalidInspectorOption ||
    error instanceof DeadLetter.InvalidDeadLetterOption || error instanceof Groups.InvalidGroupOption
  ) return new Errors.InvalidOption(only(error, "option", "message"))
  if (error instanceof Message.LeaseLost) return new Errors.LeaseLost(only(error, "id", "message"))
  if (error instanceof DeadLetter.OfferLost) {
    return new Errors.LeaseLost({ id: error.letterId, message: error.message })
  }
  if (error instanceof Broker.GroupRemoved) return new Errors.GroupRemoved(only(error, "group", "patterns", "message"))
  if (error instanceof Broker.BrokerError) return new Errors.BrokerError(only(error, "reason", "operation", "message"))
  if (error instanceof Redis.RedisError) {
    return new Errors.BrokerError({
      reason: error.isRetryable ? "Unavailable" : "Refused",
      operation: error.command,
      message: error.message
    })
  }
  return error
}

const only = <E, K extends keyof E>(error: E, ...names: ReadonlyArray<K>): Pick<E, K> =>
  Object.fromEntries(names.map((name) => [name, error[name]])) as Pick<E, K>

/**
 * Runs an effect. The function is `async` for the stack of a failure: only inside of one does the engine know who waits for its Promise.
 */
export const toPromise = async <A>(effect: Effect.Effect<A, unknown>): Promise<A> => {
  try {
    return await Effect.runPromise(effect)
  } catch (error) {
    const mine = translated(error)
    if (mine instanceof Errors.RotifError) Error.captureStackTrace(mine, toPromise)
    throw mine
  }
}
