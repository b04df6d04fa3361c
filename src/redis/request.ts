/**
 * Requests on a shared connection: they follow the slots, and are repeated where they were surely not executed.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import type { Connection } from "./connection.ts"
import type { Link, Settings, Socket } from "./link.ts"
import type { Command, Script } from "./protocol.ts"
import { RedisError, refusal, unavailable } from "./protocol.ts"
import type { Servers } from "./servers.ts"

const pauseMillis = () => 20 + Math.random() * 180

/** At most this many redirections in a row are followed at once. */
const maxHops = 5

const isRetryable = (reply: unknown, idempotent: boolean): reply is RedisError =>
  reply instanceof RedisError &&
  (reply.reason === "Transient" || reply.reason === "Unavailable" || (idempotent && reply.reason === "ConnectionLost"))

interface Request {
  readonly commands: ReadonlyArray<Command>
  readonly idempotent: boolean
  /** The command to send when the server does not know the script. */
  readonly instead?: Command
  /** Called with each socket on which a part was executed. */
  readonly executed?: ((socket: Socket) => void) | undefined
  /** Asked each time just before the request is sent. A request that is not current any more is `Unavailable`, and not sent. */
  readonly isCurrent?: (() => boolean) | undefined
}

type Replies = ReadonlyArray<unknown>

/** One request under way. A class, not closures: most requests are answered at once, and need none of the functions for the rest. */
class Exchange {
  readonly servers: Servers
  readonly slot: number
  readonly timeoutMillis: number
  readonly request: Request
  readonly resume: (result: Effect.Effect<Replies, RedisError>) => void
  readonly startedAt = performance.now()
  commands: ReadonlyArray<Command>
  replies: Array<unknown> = []
  asked: Link | undefined = undefined
  hops = 0
  expiry: NodeJS.Timeout | undefined = undefined
  pausing: NodeJS.Timeout | undefined = undefined
  stopWaiting: (() => void) | undefined = undefined
  isOver = false
  wasLost = false

  constructor(
    servers: Servers,
    slot: number,
    timeoutMillis: number,
    request: Request,
    resume: (result: Effect.Effect<Replies, RedisError>) => void
  ) {
    this.servers = servers
    this.slot = slot
    this.timeoutMillis = timeoutMillis
    this.request = request
    this.resume = resume
    this.commands = request.commands
  }

  get name() {
    return this.request.commands[0]![0]
  }

  stop() {
    this.isOver = true
    clearTimeout(this.expiry)
    clearTimeout(this.pausing)
    this.stopWaiting?.()
  }

  finish(failure?: RedisError) {
    this.stop()
    const { commands, replies } = this
    if (failure === undefined) return this.resume(Effect.succeed(replies))
    // The request was sent once and could not be repeated: whether it was executed is not known.
    const told = this.wasLost
      ? new RedisError({ reason: "ConnectionLost", command: failure.command, message: failure.message })
      : failure
    // Executed commands have their replies, whatever became of the rest.
    if (replies.length === 0) this.resume(Effect.fail(told))
    else this.resume(Effect.succeed([...replies, ...commands.map(() => told)]))
  }

  pause(failure: RedisError) {
    const millis = pauseMillis()
    if (performance.now() + millis - this.startedAt > this.timeoutMillis) this.finish(failure)
    else this.pausing = setTimeout(() => this.run(), millis)
  }

  waitFor(link: Link) {
    const { name } = this
    // Only a waiting request has a timer. A sent command ends with its socket at the latest.
    clearTimeout(this.expiry)
    this.expiry = setTimeout(
      () => this.finish(link.problem(name)),
      Math.max(0, this.timeoutMillis - (performance.now() - this.startedAt))
    )
    this.stopWaiting = link.wait(name, (failure) => failure === undefined ? this.run() : this.finish(failure))
  }

  find() {
    const { name, servers, slot } = this
    void servers.refresh().then((failure) =>
      this.isOver
        ? undefined
        : failure?.reason === "Refused"
        ? this.finish(refusal(name, failure))
        : servers.owner(slot) !== undefined
        ? this.run()
        : this.pause(unavailable(name, failure?.message ?? `no node of the Cluster serves slot ${slot}`))
    )
  }

  run() {
    if (this.isOver) return
    const link = this.asked ?? this.servers.owner(this.slot)
    if (link === undefined) return this.find()
    const socket = link.ready()
    if (socket === undefined) return this.waitFor(link)
    clearTimeout(this.expiry)
    if (this.request.isCurrent?.() === false) {
      return this.finish(unavailable(this.name, "its time had passed when it could be sent"))
    }
    const isAsking = this.asked !== undefined
    this.asked = undefined
    socket.write(this.commands, isAsking, (answers) => this.judge(link, socket, answers))
  }

  judge(link: Link, socket: Socket, answers: Array<unknown>) {
    // After an interruption no caller waits for a repetition.
    if (this.isOver) return
    const { request, servers } = this
    if (request.executed !== undefined && answers.some((answer) => !(answer instanceof RedisError))) {
      request.executed(socket)
    }
    let end = answers.length
    while (end > 0 && isRetryable(answers[end - 1], request.idempotent)) end--
    const refused = answers[end]
    if (!(refused instanceof RedisError)) {
      const [first] = answers
      const isLost = (reply: unknown) => reply instanceof RedisError && reply.reason === "ConnectionLost"
      if (this.replies.length === 0 && first instanceof RedisError && answers.every(isLost)) return this.finish(first)
      this.replies = this.replies.length === 0 ? answers : [...this.replies, ...answers]
      return this.finish()
    }
    this.replies.push(...answers.slice(0, end))
    this.commands = this.commands.slice(end)
    if (refused.reason === "ConnectionLost") this.wasLost = true
    const code = refused.message.split(" ", 1)[0]!
    if (code === "NOSCRIPT" && request.instead !== undefined) {
      this.commands = [request.instead]
      return this.run()
    }
    if (code === "MOVED" && servers.moved(refused.message, socket) && this.hops++ < maxHops) return this.run()
    if (code === "ASK" && this.hops++ < maxHops) {
      this.asked = servers.asked(refused.message, socket)
      return this.run()
    }
    // The server was demoted: the address may lead to its successor.
    if (code === "READONLY") link.drop(socket)
    if (code === "CLUSTERDOWN") void servers.refresh()
    this.pause(refused)
  }
}

/**
 * Sends commands to the owner of a slot and returns their replies, with refusals in their places.
 *
 * Commands that were refused for now are repeated until `timeoutMillis` after the beginning, but only those at the end: so the order of the
 * commands stays.
 */
export const exchange = (
  servers: Servers,
  slot: number,
  timeoutMillis: number,
  request: Request
): Effect.Effect<Replies, RedisError> =>
  Effect.callback((resume) => {
    const mine = new Exchange(servers, slot, timeoutMillis, request, resume)
    mine.run()
    return Effect.sync(() => mine.stop())
  })

const hashes = new WeakMap<Script, string>()

const hashOf = (script: Script): string => {
  let hash = hashes.get(script)
  if (hash === undefined) {
    hash = createHash("sha1").update(script.lua).digest("hex")
    hashes.set(script, hash)
  }
  return hash
}

const firstReply = (replies: ReadonlyArray<unknown>): Effect.Effect<unknown, RedisError> => {
  const [reply] = replies
  return reply instanceof RedisError ? Effect.fail(reply) : Effect.succeed(reply)
}

const generationOf = (servers: Servers, slot: number) => {
  let link: Link | undefined
  let of = 0
  let generation = 0
  return () => {
    const now = servers.owner(slot)
    const current = now?.generation() ?? 0
    if (now !== link || current !== of) {
      link = now
      of = current
      generation++
    }
    return generation
  }
}

export const makeConnection = (
  settings: Settings,
  servers: Servers,
  slot: number,
  executed?: (socket: Socket) => void
): Connection => ({
  generation: generationOf(servers, slot),
  send: (command, { idempotent }) => {
    const problem = settings.longest.problemOf(command[0], command)
    return problem !== undefined ? Effect.fail(problem) : Effect.flatMap(
      exchange(servers, slot, settings.commandMillis, { commands: [command], idempotent, executed }),
      firstReply
    )
  },
  pipeline: (commands, options) => {
    const problems = new Map<number, RedisError>()
    for (let i = 0; i < commands.length; i++) {
      const problem = settings.longest.problemOf(commands[i]![0], commands[i]!)
      if (problem !== undefined) problems.set(i, problem)
    }
    const sent = problems.size === 0 ? commands : commands.filter((_, i) => !problems.has(i))
    const replies: Effect.Effect<Replies, RedisError> = sent.length === 0
      ? Effect.succeed([])
      : exchange(servers, slot, settings.commandMillis, {
        commands: sent,
        idempotent: false,
        isCurrent: options?.isCurrent,
        executed
      })
    if (problems.size === 0) return replies
    // A command that is too long does not fail the others.
    return Effect.map(replies, (some) => {
      let next = 0
      return commands.map((_, i) => problems.get(i) ?? some[next++])
    })
  },
  evaluate: (script, keys, args, options) => {
    const problem = settings.longest.problemOf(script.name, args)
    if (problem !== undefined) return Effect.fail(problem)
    const rest = [keys.length, ...keys, ...args]
    return exchange(servers, slot, settings.commandMillis, {
      commands: [["evalsha", hashOf(script), ...rest]],
      instead: ["eval", script.lua, ...rest],
      idempotent: script.isIdempotent === true,
      isCurrent: options?.isCurrent,
      executed
    }).pipe(
      Effect.flatMap(firstReply),
      Effect.mapError((error) => refusal(script.name, error))
    )
  }
})
