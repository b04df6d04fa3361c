/**
 * A link: one socket at a time to one target, opened again when it is needed. A link queues nothing and repeats nothing.
 */
import type { Longest } from "./argumentLimit.ts"
import type { Command } from "./protocol.ts"
import { errorOf, RedisError, refusal, unavailable } from "./protocol.ts"

/**
 * The address of a server or node.
 *
 * @category models
 * @since 0.1.0
 */
export interface Address {
  readonly host: string
  readonly port: number
}

/** The commands that subscribe. */
export type Subscribe = "subscribe" | "psubscribe" | "ssubscribe"

/** A socket: one connection to a server. It is not used again once it is lost. */
export interface Socket {
  /** The name of its target. */
  readonly target: string
  /** CLIENT ID. */
  readonly id: number
  /** The run id of the server process. Ids of different processes are unrelated. */
  readonly runId: string
  readonly isReady: () => boolean
  /** Number of commands that were written and not answered. */
  readonly pending: () => number
  /**
   * Sends commands in one write, together with all others of this turn, and calls back with their replies in order. A command that was refused
   * or lost has a `RedisError` in its place.
   */
  readonly write: (
    commands: ReadonlyArray<Command>,
    isAsking: boolean,
    done: (replies: Array<unknown>) => void
  ) => void
  /** Calls back with each Pub/Sub message, and the command and name that subscribed to it. */
  readonly onMessage: (listener: (command: Subscribe, name: string, message: string) => void) => void
  /** Calls back when a subscription to a sharded channel is or was refused, because its slot is elsewhere. */
  readonly onMoved: (listener: () => void) => void
  readonly onEnd: (listener: () => void) => void
  readonly destroy: () => void
}

/** Where to connect. */
export interface Target {
  readonly name: string
  /** The name shown by CLIENT LIST. */
  readonly role: "commands" | "durable" | "reader" | "subscriber" | "topology"
  /** A socket that owes a reply and is silent for this long is destroyed. */
  readonly silenceMillis: number | undefined
  /** In a Cluster, where the options do not say it. */
  readonly address?: Address
}

export interface Settings {
  readonly commandMillis: number
  readonly connectMillis: number
  readonly maxWaiting: number
  readonly longest: Longest
  /** Fails with `Refused` when trying again makes no sense, else with `Unavailable`. Ends the predecessor at the server. */
  readonly open: (target: Target, predecessor: Socket | undefined, signal: AbortSignal) => Promise<Socket>
}

export interface Link {
  /** Returns the socket, if it can be used now. */
  readonly ready: () => Socket | undefined
  /**
   * Calls back when an attempt to connect has succeeded or failed, with an error when waiting is of no use. Returns a function that stops the
   * wait.
   */
  readonly wait: (command: string, resume: (failure?: RedisError) => void) => () => void
  readonly drop: (socket: Socket) => void
  /** Returns the reason why there is no socket. */
  readonly problem: (command: string) => RedisError
  readonly generation: () => number
  readonly close: () => void
}

/** The longest pause between attempts. Even after a long outage clients are back within two seconds: this pause, the connection, and the commands that waited. */
const longestPauseMillis = 1_000

export const makeLink = (settings: Settings, options: {
  /** Returns the target. Called before every attempt. */
  readonly target: () => Target | undefined
  /** Runs after a failed attempt, before the callers that wait are told. */
  readonly onFailure: () => Promise<unknown>
}): Link => {
  const waiting = new Set<() => void>()
  const closing = new AbortController()
  let socket: Socket | undefined
  let lost: Socket | undefined
  let generation = 0
  let failure: RedisError | undefined
  let failures = 0
  let downSince = Date.now()
  let retryAt = 0
  let timer: NodeJS.Timeout | undefined
  let isOpening = false

  const wakeAll = () => {
    const entries = [...waiting]
    waiting.clear()
    for (const entry of entries) entry()
  }

  const drop = (gone: Socket) => {
    gone.destroy()
    if (socket !== gone) return
    socket = undefined
    lost = gone
    downSince = Date.now()
  }

  const attempt = async () => {
    isOpening = true
    try {
      const target = options.target()
      if (target === undefined) throw unavailable("connect", "no node of the Cluster is known to serve this key")
      const opened = await settings.open(target, lost, closing.signal)
      opened.onEnd(() => drop(opened))
      if (closing.signal.aborted) return drop(opened)
      lost = undefined
      failure = undefined
      failures = 0
      generation++
      socket = opened
    } catch (error) {
      failure = error instanceof RedisError ? error : errorOf("connect", error)
      // Full jitter: the clients of a server that comes back must not connect all at once.
      retryAt = performance.now() + Math.random() * Math.min(longestPauseMillis, 50 * 2 ** failures++)
      await options.onFailure()
    } finally {
      isOpening = false
      wakeAll()
    }
  }

  const connect = () => {
    if (isOpening || timer !== undefined) return
    const pause = retryAt - performance.now()
    if (pause <= 0) return void attempt()
    timer = setTimeout(() => {
      timer = undefined
      if (waiting.size > 0) void attempt()
    }, pause)
  }

  const ready = () => {
    // The promises of a lost socket settle before it emits its events.
    if (socket !== undefined && !socket.isReady()) drop(socket)
    return socket
  }

  const problem = (command: string) =>
    unavailable(
      command,
      `no connection since ${new Date(downSince).toISOString()}` +
        (failure !== undefined
          ? ` (${failure.message})`
          : isOpening
          ? ` (${options.target()?.name ?? "the server"} has not answered yet)`
          : "")
    )

  return {
    ready,
    drop,
    problem,
    generation: () => generation,
    wait: (command, resume) => {
      if (closing.signal.aborted) {
        resume(unavailable(command, "the connection is closed"))
      } else if (failure?.reason === "Refused" && retryAt > performance.now()) {
        resume(refusal(command, failure))
      } else if (waiting.size >= settings.maxWaiting) {
        resume(unavailable(command, `${waiting.size} callers wait for a connection already`))
      } else {
        const entry = () => resume(failure?.reason === "Refused" ? refusal(command, failure) : undefined)
        waiting.add(entry)
        connect()
        return () => void waiting.delete(entry)
      }
      return () => {}
    },
    close: () => {
      closing.abort()
      clearTimeout(timer)
      if (socket !== undefined) drop(socket)
      wakeAll()
    }
  }
}
