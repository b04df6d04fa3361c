/**
 * A subscriber link: one connection in subscriber mode, and its topics. It is opened again for as long as it has topics.
 */
import type { Settings, Socket, Subscribe, Target } from "./link.ts"
import { makeLink } from "./link.ts"
import { RedisError } from "./protocol.ts"

/** A Pub/Sub channel, pattern or sharded channel. Each subscription to it is an object of its own. */
export interface Topic {
  readonly command: Subscribe
  readonly name: string
  isConfirmed: boolean
  /** Whether it was ever confirmed. */
  wasConfirmed: boolean
}

export interface SubscriberLink<T extends Topic> {
  /** Subscribes now, or once there is a connection. */
  readonly add: (topic: T) => void
  readonly remove: (topic: T) => void
  /** The reason why there is no connection. */
  readonly problem: () => RedisError
  readonly close: () => void
}

/** The owner of a link: where it connects, and what it is told. */
export interface LinkOwner<T extends Topic> {
  readonly target: () => Target | undefined
  readonly onFailure: () => Promise<unknown>
  readonly find: (command: Subscribe, name: string) => T | undefined
  readonly heard: (topic: T, message: string) => void
  readonly confirmed: (topic: T) => void
  /** The server refused the subscription. Every heartbeat tries it again. */
  readonly refused: (topic: T, reply: RedisError, socket: Socket) => void
  /** The subscriptions ended, with their connection or by the server. The link goes on with the topics that are left. */
  readonly lost: (topics: ReadonlyArray<T>) => void
  /** The server refuses the connection. It is tried again. */
  readonly unreachable: (topics: ReadonlyArray<T>, failure: RedisError) => void
  /** Called now and then, and after a failure to connect: topics may belong to another server by now. */
  readonly check: (topics: ReadonlyArray<T>) => void
}

export const makeSubscriberLink = <T extends Topic>(settings: Settings, owner: LinkOwner<T>): SubscriberLink<T> => {
  const link = makeLink(settings, owner)
  const topics = new Set<T>()
  let current: Socket | undefined
  let heartbeat: NodeJS.Timeout | undefined
  let retry: NodeJS.Timeout | undefined
  let stopWaiting: (() => void) | undefined

  const confirm = (topic: T) => {
    if (topic.isConfirmed) return
    topic.isConfirmed = true
    topic.wasConfirmed = true
    owner.confirmed(topic)
  }

  const subscribe = (socket: Socket, topic: T, onMoved: () => void) => {
    socket.write([[topic.command, topic.name]], false, ([reply]) => {
      if (reply instanceof RedisError && reply.message.startsWith("MOVED ")) onMoved()
      if (current !== socket || !topics.has(topic)) return
      if (reply instanceof RedisError) owner.refused(topic, reply, socket)
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
    owner.lost(gone)
    owner.check([...topics])
    if (topics.size > 0) attach()
  }

  const attach = () => {
    if (current !== undefined) return
    clearTimeout(retry)
    stopWaiting?.()
    stopWaiting = undefined
    const socket = link.ready()
    if (socket === undefined) {
      // The callback runs at once when the server is known to refuse.
      stopWaiting = link.wait("subscribe", (failure) => {
        if (link.ready() === undefined) owner.check([...topics])
        if (topics.size === 0) return
        if (failure === undefined) return attach()
        owner.unreachable([...topics], failure)
        // Established listeners go on trying, also while the server refuses: passwords get changed.
        retry = setTimeout(attach, settings.connectMillis)
      })
      return
    }
    current = socket
    // A server that loses a slot ends the subscriptions in it. The client reports that it happened, also when a reply says so, but does not
    // reliably name the subscriptions: all of them are taken for lost.
    let moves = 0
    socket.onMoved(() => {
      moves++
      setImmediate(() => {
        if (moves > 0 && current === socket) void owner.onFailure().finally(() => current === socket && lose())
      })
    })
    send = (topic) => subscribe(socket, topic, () => moves--)
    socket.onMessage((command, name, message) => {
      const topic = owner.find(command, name)
      if (topic === undefined || current !== socket || !topics.has(topic)) return
      // The promise of a reply settles after the messages that came with it. A new topic waits for its reply: the message may come from a
      // subscription that is just being ended.
      if (topic.wasConfirmed) confirm(topic)
      owner.heard(topic, message)
    })
    socket.onEnd(() => {
      if (current === socket) lose()
    })
    // A subscriber sends nothing by itself: without a PING it would never notice that the server is gone.
    heartbeat = setInterval(() => {
      socket.write([["ping"]], false, () => {})
      owner.check([...topics])
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
