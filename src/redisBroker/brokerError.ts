/** Errors of Redis as errors of the port. */
import type { BrokerErrorReason } from "../Broker.ts"
import { BrokerError } from "../Broker.ts"
import type { RedisError, RedisErrorReason } from "../redis/protocol.ts"

const reasons: Record<RedisErrorReason, BrokerErrorReason> = {
  Unavailable: "Unavailable",
  ConnectionLost: "Uncertain",
  Transient: "Unavailable",
  OutOfMemory: "Overloaded",
  NoGroup: "Unavailable",
  Refused: "Refused"
}

export const brokerError = (operation: string) => (error: RedisError): BrokerError =>
  new BrokerError({ reason: reasons[error.reason], operation, message: `${operation}: ${error.message}` })
