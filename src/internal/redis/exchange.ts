/**
 * The shared connection: sends, follows the slots, and repeats what was surely not executed.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import type { Link, Settings, Socket } from "./link.ts"
import { type Command, RedisError, refusal, type Script, unavailable } from "./protocol.ts"
import type { Servers } from "./servers.ts"

const pauseMillis = () => 20 + Math.random() * 180

/** So many redirections in a row are followed at once. */
const maxHops = 5

const isRetryable = (reply: unknown, idempotent: boolean): reply is RedisError =>
  reply instanceof RedisError &&
  (reply.reason === "Transient" || reply.reason === "Unavailable" || (idempotent && reply.reason === "ConnectionLost"))

/**
 * Sends commands to the owner of a slot and gives their replies, refusals in their places.
 *
 * The refusals at the end of the replies are repeated until `timeoutMillis` after the beginning: with them everything in
 * front of them keeps its place before them. `instead` is sent when the server does not know the script. `executed` is told where
 * something of it was executed.
 */
export const exchange = (servers: Servers, slot: number, timeoutMillis: number, request: {
  readonly commands: ReadonlyArray<Command>
  readonly idempotent: boolean
  readonly instead?: Command
  readonly executed?: ((socket: Socket) => void) | undefined
}): Effect.Effect<ReadonlyArray<unknown>, RedisError> =>
  Effect.callback((resume) => {
    const startedAt = performance.now()
    const [name] = request.commands[0]!
    let commands = request.commands
    let replies: Array<unknown> = []
    let asked: Link | undefined
    let hops = 0
    let expiry: NodeJS.Timeout | undefined
    let pausing: NodeJS.Timeout | undefined
    let stopWaiting = () => {}
    let isOver = false
    let wasLost = false

    const stop = () => {
      isOver = true
      clearTimeout(expiry)
      clearTimeout(pausing)
      stopWaiting()
    }
    const finish = (failure?: RedisError) => {
      stop()
      if (failure === undefined) return resume(Effect.succeed(replies))
      // It could not be repeated, but it was sent once: whether it was executed is not known.
      const told = wasLost
        ? new RedisError({ reason: "ConnectionLost", command: failure.command, message: failure.message })
        : failure
      // What was executed is told, whatever became of the rest.
      if (replies.length === 0) resume(Effect.fail(told))
      else resume(Effect.succeed([...replies, ...commands.map(() => told)]))
    }
    const pause = (failure: RedisError) => {
      const millis = pauseMillis()
      if (performance.now() + millis - startedAt > timeoutMillis) finish(failure)
      else pausing = setTimeout(run, millis)
    }
    const waitFor = (link: Link) => {
      // Only those who wait have a timer; a sent command ends with its socket at the latest.
      clearTimeout(expiry)
      expiry = setTimeout(() => finish(link.problem(name)), timeoutMillis - (performance.now() - startedAt))
      stopWaiting = link.wait(name, (failure) => failure === undefined ? run() : finish(failure))
    }
    const run = () => {
      if (isOver) return
      const link = asked ?? servers.owner(slot)
      if (link === undefined) {
        void servers.refresh().then((failure) =>
          isOver
            ? undefined
            : failure?.reason === "Refused"
            ? finish(refusal(name, failure))
            : servers.owner(slot) !== undefined
            ? run()
            : pause(unavailable(name, failure?.message ?? `no node of the Cluster serves slot ${slot}`))
        )
        return
      }
      const socket = link.ready()
      if (socket === undefined) return waitFor(link)
      clearTimeout(expiry)
      const isAsking = asked !== undefined
      asked = undefined
      socket.write(commands, isAsking, (answers) => judge(link, socket, answers))
    }
    const judge = (link: Link, socket: Socket, answers: Array<unknown>) => {
      // Interrupted: nobody waits for a repetition.
      if (isOver) return
      if (request.executed !== undefined && answers.some((answer) => !(answer instanceof RedisError))) {
        request.executed(socket)
      }
      let end = answers.length
      while (end > 0 && isRetryable(answers[end - 1], request.idempotent)) end--
      const refused = answers[end]
      if (!(refused instanceof RedisError)) {
        const [first] = answers
        const isLost = (reply: unknown) => reply instanceof RedisError && reply.reason === "ConnectionLost"
        if (replies.length === 0 && first instanceof RedisError && answers.every(isLost)) return finish(first)
        replies = replies.length === 0 ? answers : [...replies, ...answers]
        return finish()
      }
      replies.push(...answers.slice(0, end))
      commands = commands.slice(end)
      if (refused.reason === "ConnectionLost") wasLost = true
      const code = refused.message.split(" ", 1)[0]!
      if (code === "NOSCRIPT" && request.instead !== undefined) {
        commands = [request.instead]
        return run()
      }
      if (code === "MOVED" && servers.moved(refused.message, socket) && hops++ < maxHops) return run()
      if (code === "ASK" && hops++ < maxHops) {
        asked = servers.asked(refused.message, socket)
        return run()
      }
      // The server was demoted: the address may lead to its successor.
      if (code === "READONLY") link.drop(socket)
      if (code === "CLUSTERDOWN") void servers.refresh()
      pause(refused)
    }

    run()
    return Effect.sync(stop)
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

export const makeConnection = (
  settings: Settings,
  servers: Servers,
  slot: number,
  executed?: (socket: Socket) => void
) => ({
  send: (command: Command, { idempotent }: { readonly idempotent: boolean }) =>
    Effect.flatMap(
      exchange(servers, slot, settings.commandMillis, { commands: [command], idempotent, executed }),
      firstReply
    ),
  pipeline: (commands: ReadonlyArray<Command>): Effect.Effect<ReadonlyArray<unknown>, RedisError> =>
    commands.length === 0
      ? Effect.succeed([])
      : exchange(servers, slot, settings.commandMillis, { commands, idempotent: false, executed }),
  evaluate: (
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>,
    { idempotent }: { readonly idempotent: boolean }
  ) => {
    const rest = [keys.length, ...keys, ...args]
    return exchange(servers, slot, settings.commandMillis, {
      commands: [["evalsha", hashOf(script), ...rest]],
      instead: ["eval", script.lua, ...rest],
      idempotent,
      executed
    }).pipe(
      Effect.flatMap(firstReply),
      Effect.mapError((error) => new RedisError({ reason: error.reason, command: script.name, message: error.message }))
    )
  }
})
