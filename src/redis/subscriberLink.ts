/**
 * A line: one connection that hears, with all that it is subscribed to. It is made anew as long as somebody wants to hear.
 */
import type { Settings, Socket, Subscribe, Target } from "./link.ts"
import { makeLink } from "./link.ts"
import { RedisError } from "./protocol.ts"

/** One Pub/Sub channel, pattern or sharded channel; the object is the identity of one subscription to it. */
export interface Topic {
  readonly command: Subscribe
  readonly name: string
  isConfirmed: boolean
  /** At any time. */
  wasConfirmed: boolean
}

export interface Line<T extends Topic> {
  /** Subscribes now, or as soon as there is a connection. */
  readonly add: (topic: T) => void
  readonly remove: (topic: T) => void
  /** Why there is no connection. */
  readonly problem: () => RedisError
  readonly close: () => void
}

export const makeLine = <T extends Topic>(settings: Settings, options: {
  readonly target: () => Target | undefined
  readonly onFailure: () => Promise<unknown>
  readonly find: (command: Subscribe, name: string) => T | undefined
  readonly heard: (topic: T, message: string) => void
  readonly confirmed: (topic: T) => void
  /** The server refused the subscription; it is tried again at every heartbeat. */
  readonly refused: (topic: T, reply: RedisError, socket: Socket) => void
  /** The subscriptions ended with their connection, or the server ended them. The line goes on with those it is left. */
  readonly lost: (topics: ReadonlyArray<T>) => void
  /** No connection: the server refuses it. It is tried again. */
  readonly unreachable: (topics: ReadonlyArray<T>, failure: RedisError) => void
  /** Now and then, and after a failure to connect: the time to see whether topics belong elsewhere by now. */
  readonly check: (topics: ReadonlyArray<T>) => void
}): Line<T> => {
  const link = makeLink(settings, options)
  const topics = new Set<T>()
  let current: Socket | undefined
  let heartbeat: NodeJS.Timeout | undefined
  let retry: NodeJS.Timeout | undefined
  let stopWaiting: (() => void) | undefined

  const confirm = (topic: T) => {
    if (topic.isConfirmed) return
    topic.isConfirmed = true
    topic.wasConfirmed = true
    options.confirmed(topic)
  }

  const subscribe = (socket: Socket, topic: T, onMoved: () => void) => {
    socket.write([[topic.command, topic.name]], false, ([reply]) => {
      if (reply instanceof RedisError && reply.message.startsWith("MOVED ")) onMoved()
      if (current !== socket || !topics.has(topic)) return
      if (reply instanceof RedisError) options.refused(topic, reply, socket)
      else confirm(topic)
    })
  }
  let send = (_topic: T) => {}

  const detach = () => {
    clearInterval(heartbeat)
    clearTimeout(retry)
    stopWaiting?.()
    stopWaiting = undefined
    const socket = current
    current = undefined
    if (socket !== undefined) link.drop(socket)
  }

  const lose = () => {
    detach()
    const gone = [...topics].filter((topic) => topic.isConfirmed)
    for (const topic of gone) topic.isConfirmed = false
    options.lost(gone)
    options.check([...topics])
    if (topics.size > 0) attach()
  }

  const attach = () => {
    if (current !== undefined) return
    clearTimeout(retry)
    stopWaiting?.()
    stopWaiting = undefined
    const socket = link.ready()
    if (socket === undefined) {
      // It calls back at once when the server is known to refuse.
      stopWaiting = link.wait("subscribe", (failure) => {
        if (link.ready() === undefined) options.check([...topics])
        if (topics.size === 0) return
        if (failure === undefined) return attach()
        options.unreachable([...topics], failure)
        // Whoever listens already goes on trying, also while the server refuses: passwords get changed.
        retry = setTimeout(attach, settings.connectMillis)
      })
      return
    }
    current = socket
    // A server that gives up a slot ends the subscriptions in it. The client tells that it happened, also when a reply says so,
    // and not reliably to which ones: they are all taken for lost.
    let moves = 0
    socket.onMoved(() => {
      moves++
      setImmediate(() => {
        if (moves > 0 && current === socket) void options.onFailure().finally(() => current === socket && lose())
      })
    })
    send = (topic) => subscribe(socket, topic, () => moves--)
    socket.onMessage((command, name, message) => {
      const topic = options.find(command, name)
      if (topic === undefined || current !== socket || !topics.has(topic)) return
      // The promise of a reply settles after the messages that came with it. A new topic waits for its reply: the message may be
      // due to a subscription that is just being ended.
      if (topic.wasConfirmed) confirm(topic)
      options.heard(topic, message)
    })
    socket.onEnd(() => {
      if (current === socket) lose()
    })
    // A subscriber only hears: without a question it would never notice that the other side is gone.
    heartbeat = setInterval(() => {
      socket.write([["ping"]], false, () => {})
      options.check([...topics])
      for (const topic of topics) if (!topic.isConfirmed) send(topic)
    }, settings.commandMillis)
    for (const topic of topics) send(topic)
  }

  return {
    add: (topic) => {
      topics.add(topic)
      if (current === undefined) attach()
      else send(topic)
    },
    remove: (topic) => {
      if (!topics.delete(topic)) return
      topic.isConfirmed = false
      if (topics.size === 0) return detach()
      const command = topic.command === "subscribe"
        ? "unsubscribe"
        : topic.command === "psubscribe"
        ? "punsubscribe"
        : "sunsubscribe"
      current?.write([[command, topic.name]], false, () => {})
    },
    problem: () => link.problem("subscribe"),
    close: () => {
      topics.clear()
      detach()
      link.close()
    }
  }
}
