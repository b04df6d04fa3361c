/**
 * A blocking connection: the private connection of one reader.
 */
import { Effect } from "effect"
import type { Settings, Socket } from "./link.ts"
import { makeLink } from "./link.ts"
import * as Permissions from "./permissions.ts"
import type { Command } from "./protocol.ts"
import { RedisError } from "./protocol.ts"
import { exchange } from "./request.ts"
import type { Servers } from "./servers.ts"
import { sleep } from "./startWait.ts"

const unblockSpacingMillis = 5

/** Closing waits at most this long for a blocked command to return. */
const farewellMillis = 1000

export const makeReader = Effect.fnUntraced(function*(
  settings: Settings,
  servers: Servers,
  slot: number,
  /** The permission to unblock, shared by all readers. It is checked once. */
  unblocking: { isRefused: boolean }
) {
  const link = makeLink(settings, {
    // A socket timeout would have to know how long each command blocks: `send` does.
    target: () => servers.target("reader", undefined, slot),
    onFailure: servers.refresh
  })
  let blocked: { readonly socket: Socket; onEnd: () => void } | undefined

  const send = (command: Command, deadlineMillis: number): Effect.Effect<unknown, RedisError> =>
    Effect.callback((resume) => {
      const [name] = command
      let stopWaiting = () => {}
      let expiry: NodeJS.Timeout | undefined
      const run = () => {
        const socket = link.ready()
        if (socket === undefined) {
          // Only a command that waits has a timer.
          expiry ??= setTimeout(() => {
            stopWaiting()
            resume(Effect.fail(link.problem(name)))
          }, settings.commandMillis)
          stopWaiting = link.wait(name, (failure) => {
            if (failure === undefined) return run()
            clearTimeout(expiry)
            resume(Effect.fail(failure))
          })
          return
        }
        clearTimeout(expiry)
        const mine = { socket, onEnd: () => {} }
        blocked = mine
        const watchdog = setTimeout(() => link.drop(socket), deadlineMillis)
        stopWaiting = () => {
          // Nobody takes the reply any more. On a new socket the next command does not queue behind this one, and the new generation shows that
          // a reply was lost.
          clearTimeout(watchdog)
          link.drop(socket)
        }
        socket.write([command], false, ([reply]) => {
          clearTimeout(watchdog)
          if (blocked === mine) blocked = undefined
          mine.onEnd()
          if (!(reply instanceof RedisError)) return resume(Effect.succeed(reply))
          if (reply.message.startsWith("MOVED ")) {
            servers.moved(reply.message, socket)
            link.drop(socket)
          } else if (reply.message.startsWith("READONLY ")) {
            link.drop(socket)
          }
          resume(Effect.fail(reply))
        })
      }
      run()
      return Effect.sync(() => {
        clearTimeout(expiry)
        stopWaiting()
      })
    })

  const unblock: Effect.Effect<void> = Effect.suspend(() => {
    const mine = blocked
    if (mine === undefined || unblocking.isRefused) return Effect.void
    const shared = servers.named(mine.socket.target)
    const toShared = (command: Command) =>
      exchange({ ...servers, owner: () => shared }, slot, settings.commandMillis, {
        commands: [command],
        idempotent: true
      })
    const again: Effect.Effect<void, RedisError> = Effect.suspend(() => {
      if (blocked !== mine) return Effect.void
      const socket = shared.ready()
      if (socket === undefined) return Effect.andThen(toShared(["ping"]), again)
      // The reader is connected to a server that is not the master any more. Here its id may belong to another client.
      if (socket.runId !== mine.socket.runId) return Effect.sync(() => link.drop(mine.socket))
      return Effect.flatMap(toShared(["client", "unblock", mine.socket.id]), ([reply]) => {
        if (reply instanceof RedisError && reply.reason === "Refused" && !unblocking.isRefused) {
          unblocking.isRefused = true
          return Permissions.tell([Permissions.unblock])
        }
        // 0: the command has not arrived yet, or its reply is on the way.
        return reply === 0 ? Effect.andThen(sleep(unblockSpacingMillis), again) : Effect.void
      })
    })
    // Where nothing can be sent, the command ends by its block time.
    return Effect.catch(again, () => Effect.void)
  })

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      const mine = blocked
      const close = Effect.sync(link.close)
      if (mine === undefined) return close
      // The reply is taken while the reader still waits: messages that are lost with the socket would stay leased for nothing.
      const answered = new Promise<void>((resolve) => {
        mine.onEnd = resolve
      })
      const farewell = Effect.andThen(unblock, Effect.promise(() => answered))
      return Effect.ensuring(Effect.raceFirst(farewell, sleep(farewellMillis)), close)
    })
  )
  return { send, unblock, mayUnblock: () => !unblocking.isRefused, generation: link.generation }
})
