/**
 * Pub/Sub: one connection for all listeners.
 */
import { Effect } from "effect"
import { makeLink, type Settings, type Socket } from "./link.ts"
import { RedisError } from "./protocol.ts"
import type { Servers } from "./servers.ts"

interface Handler {
  readonly onMessage: (channel: string, message: string) => void
  readonly onGap: () => void
}

interface Listener {
  readonly channels: ReadonlyArray<string>
  readonly handler: Handler
  /** Not confirmed on the present socket. */
  missing: Set<string>
  isEstablished: boolean
  readonly resume: (exit: Effect.Effect<void, RedisError>) => void
}

export const makeSubscriber = (settings: Settings, servers: Servers) => {
  const link = makeLink(settings, {
    target: () => servers.target("subscriber", settings.commandMillis, undefined),
    onFailure: servers.refresh
  })
  const listeners = new Map<string, Set<Listener>>()
  const confirmed = new Set<string>()
  let current: Socket | undefined
  let heartbeat: NodeJS.Timeout | undefined
  let retry: NodeJS.Timeout | undefined
  let stopWaiting: (() => void) | undefined

  const all = () => new Set([...listeners.values()].flatMap((set) => [...set]))

  const confirm = (channel: string) => {
    confirmed.add(channel)
    for (const listener of listeners.get(channel) ?? []) {
      if (!listener.missing.delete(channel) || listener.missing.size > 0) continue
      if (listener.isEstablished) listener.handler.onGap()
      listener.isEstablished = true
      listener.resume(Effect.void)
    }
  }

  const subscribe = (socket: Socket) => {
    for (const channel of listeners.keys()) {
      if (confirmed.has(channel)) continue
      socket.write([["subscribe", channel]], false, ([reply]) => {
        if (current !== socket) return
        if (!(reply instanceof RedisError)) return confirm(channel)
        for (const listener of listeners.get(channel) ?? []) listener.resume(Effect.fail(reply))
      })
    }
  }

  const detach = () => {
    clearInterval(heartbeat)
    clearTimeout(retry)
    stopWaiting?.()
    stopWaiting = undefined
    confirmed.clear()
    const socket = current
    current = undefined
    if (socket !== undefined) link.drop(socket)
  }

  const attach = () => {
    const socket = link.ready()
    if (socket === undefined) {
      clearTimeout(retry)
      stopWaiting?.()
      stopWaiting = link.wait("subscribe", (failure) => {
        if (failure === undefined) return attach()
        for (const listener of all()) {
          if (!listener.isEstablished) listener.resume(Effect.fail(failure))
        }
        // Whoever listens already goes on trying, also while the server refuses: passwords get changed.
        retry = setTimeout(attach, settings.connectMillis)
      })
      return
    }
    stopWaiting = undefined
    current = socket
    for (const listener of all()) listener.missing = new Set(listener.channels)
    socket.onMessage((channel, message) => {
      for (const { handler } of listeners.get(channel) ?? []) handler.onMessage(channel, message)
    })
    socket.onEnd(() => {
      if (current !== socket) return
      detach()
      attach()
    })
    // A subscriber only hears: without a question it would never notice that the other side is gone.
    heartbeat = setInterval(() => {
      socket.write([["ping"]], false, () => {})
      subscribe(socket)
    }, settings.commandMillis)
    subscribe(socket)
  }

  const remove = (listener: Listener) => {
    for (const channel of listener.channels) {
      const others = listeners.get(channel)
      if (others === undefined || !others.delete(listener) || others.size > 0) continue
      listeners.delete(channel)
      if (confirmed.delete(channel) && current !== undefined) current.write([["unsubscribe", channel]], false, () => {})
    }
    if (listeners.size === 0) detach()
  }

  const add = (channels: ReadonlyArray<string>, handler: Handler) => {
    let listener: Listener | undefined
    const established = Effect.callback<void, RedisError>((resume) => {
      const timer = setTimeout(() => resume(Effect.fail(link.problem("subscribe"))), settings.commandMillis)
      const added: Listener = {
        channels,
        handler,
        missing: new Set(channels.filter((channel) => !confirmed.has(channel))),
        isEstablished: false,
        resume: (exit) => {
          clearTimeout(timer)
          resume(exit)
        }
      }
      listener = added
      for (const channel of channels) {
        const others = listeners.get(channel)
        if (others === undefined) listeners.set(channel, new Set([added]))
        else others.add(added)
      }
      if (added.missing.size === 0) {
        added.isEstablished = true
        added.resume(Effect.void)
      } else if (current !== undefined) {
        subscribe(current)
      } else if (stopWaiting === undefined) {
        attach()
      }
      return Effect.sync(() => clearTimeout(timer))
    })
    return Effect.acquireRelease(
      established.pipe(Effect.onError(() => Effect.sync(() => listener && remove(listener)))),
      () => Effect.sync(() => listener && remove(listener)),
      { interruptible: true }
    )
  }

  return {
    listen: add,
    close: () => {
      detach()
      listeners.clear()
      link.close()
    }
  }
}
