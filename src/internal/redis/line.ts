/**
 * A line: one connection that hears, with all that it is subscribed to. It is made anew as long as somebody wants to hear.
 */
import { makeLink, type Settings, type Socket, type Subscribe, type Target } from "./link.ts"
import { RedisError } from "./protocol.ts"

/** One Pub/Sub channel, pattern or sharded channel; the object is the identity of one subscription to it. */
export interface Topic {
  readonly command: Subscribe
  readonly name: string
  isConfirmed: boolean
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
  readonly heard: (command: Subscribe, name: string, message: string) => void
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

  const subscribe = (socket: Socket, topic: T, onMoved: () => void) => {
    socket.write([[topic.command, topic.name]], false, ([reply]) => {
      if (reply instanceof RedisError && reply.message.startsWith("MOVED ")) onMoved()
      if (current !== socket || !topics.has(topic)) return
      if (reply instanceof RedisError) return options.refused(topic, reply, socket)
      if (topic.isConfirmed) return
      topic.isConfirmed = true
      options.confirmed(topic)
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
    if (current !== undefined || stopWaiting !== undefined) return
    const socket = link.ready()
    if (socket === undefined) {
      clearTimeout(retry)
      stopWaiting = link.wait("subscribe", (failure) => {
        stopWaiting = undefined
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
    socket.onMessage(options.heard)
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
