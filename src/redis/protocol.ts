/**
 * Commands, scripts, and their errors.
 */
import { Schema } from "effect"

/**
 * Why a command failed.
 *
 * - `Unavailable`: no connection in time; nothing was sent.
 * - `ConnectionLost`: sent, and the connection went away before the answer; it may have been executed.
 * - `Transient`: the server refused it for now (LOADING, BUSY, TRYAGAIN, CLUSTERDOWN, MASTERDOWN, READONLY, NOREPLICAS,
 *   UNBLOCKED, MISCONF, NOSCRIPT, max clients); not executed.
 * - `OutOfMemory`: refused with OOM; not executed.
 * - `NoGroup`: the stream or the consumer group is gone.
 * - `Refused`: the server will not accept it as things stand (WRONGTYPE, NOPERM, WRONGPASS, NOAUTH, CROSSSLOT, …).
 *
 * @category errors
 * @since 0.1.0
 */
export const RedisErrorReason = Schema.Literals([
  "Unavailable",
  "ConnectionLost",
  "Transient",
  "OutOfMemory",
  "NoGroup",
  "Refused"
])

/**
 * The reason of a `RedisError`, as a type.
 *
 * @category errors
 * @since 0.1.0
 */
export type RedisErrorReason = typeof RedisErrorReason.Type

/**
 * A command failed. Its message holds no arguments and no credentials.
 *
 * @category errors
 * @since 0.1.0
 */
export class RedisError extends Schema.TaggedError<RedisError>()("RedisError", {
  reason: RedisErrorReason,
  /** The name of the command, or of the script. */
  command: Schema.String,
  message: Schema.String
}) {
  /** Whether the same command may succeed later without anybody changing anything. */
  get isRetryable(): boolean {
    return this.reason !== "Refused"
  }
}

/** A name in lower case and its arguments. */
export type Command = readonly [name: string, ...args: ReadonlyArray<string | number>]

/** A Lua script. It is sent by its hash, and in full where the server does not know it (after SCRIPT FLUSH or a restart). */
export interface Script {
  readonly name: string
  readonly lua: string
  /** Whether it may run again when its reply was lost: a second run with the same arguments changes nothing more. Default false. */
  readonly isIdempotent?: boolean | undefined
}

const textLimit = 300

/** Returns the message of an error of ioredis, Node or the server, without arguments of commands, user info of URLs and values of options. */
export const messageOf = (error: unknown): string => {
  const text = error instanceof AggregateError
    // Node tries every address of a host name; the summary itself has no message.
    ? error.errors.map((inner) => inner instanceof Error ? inner.message : "").filter((inner) => inner !== "").join(
      ", "
    )
    : error instanceof Error
    ? error.message
    : String(error)
  return text
    // From Redis 7.2 on it names the user, who may be out of a URL; before it said this.
    .replace(/\bUser \S+ has no permissions/, "this user has no permissions")
    // "ERR unknown command 'x', with args beginning with: 'secret' …"
    .replace(/,? ?with args beginning with.*$/s, "")
    // "The "options.ticketKeys" property must be … Received type string ('secret')"
    .replace(/\.? Received .*$/s, "")
    .replace(/\/\/[^\s/@]*@/g, "//")
    .slice(0, textLimit)
}

const transientCodes = new Set([
  "LOADING",
  "BUSY",
  "TRYAGAIN",
  "CLUSTERDOWN",
  "MASTERDOWN",
  "READONLY",
  "NOREPLICAS",
  "UNBLOCKED",
  "MISCONF",
  "NOSCRIPT",
  "MOVED",
  "ASK"
])

/**
 * Classifies an error of ioredis by what it means for its command.
 *
 * @category errors
 * @since 0.1.0
 */
export const classify = (error: unknown): RedisErrorReason => {
  if (!(error instanceof Error)) return "ConnectionLost"
  const { message, name } = error
  if (message.startsWith("Stream isn't writeable")) return "Unavailable"
  // An error that does not come from the server: the command was sent, and its outcome is not known.
  if (name !== "ReplyError") return "ConnectionLost"
  const code = message.split(" ", 1)[0]!
  if (code === "OOM") return "OutOfMemory"
  if (code === "NOGROUP" || /^ERR (no such key|The XGROUP subcommand requires the key)/.test(message)) return "NoGroup"
  return transientCodes.has(code) || message.includes("max number of clients") ? "Transient" : "Refused"
}

/** Makes a `RedisError` of a foreign error. The foreign error holds all arguments, so it must not become the cause. */
export const errorOf = (command: string, error: unknown): RedisError =>
  new RedisError({ reason: classify(error), command, message: messageOf(error) })

/** Returns the same failure for another command. */
export const refusal = (command: string, failure: RedisError): RedisError =>
  new RedisError({ reason: failure.reason, command, message: failure.message })

const failing = (reason: RedisErrorReason) => (command: string, message: string): RedisError =>
  new RedisError({ reason, command, message })

export const unavailable = failing("Unavailable")
export const refusedCommand = failing("Refused")
