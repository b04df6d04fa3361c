/**
 * Pub/Sub: one connection for all listeners; for sharded channels one to each node of the Cluster that owns some.
 */
import { Effect } from "effect"
import type { Settings, Socket, Subscribe } from "./link.ts"
import { RedisError } from "./protocol.ts"
import type { Servers } from "./servers.ts"
import type { Line, Topic } from "./subscriberLink.ts"
import { makeLine } from "./subscriberLink.ts"

interface Handler {
  readonly onMessage: (channel: string, message: string) => void
  readonly onGap: () => void
}

interface Listener {
  readonly topics: Set<Heard>
  readonly handler: Handler
  /** Not confirmed at present. */
  readonly missing: Set<Heard>
  isEstablished: boolean
  /** The next message comes after an interruption that was not told yet. */
  isUntold: boolean
  readonly resume: (exit: Effect.Effect<void, RedisError>) => void
}

interface Heard extends Topic {
  readonly listeners: Set<Listener>
  line: { readonly name: string; readonly line: Line<Heard> } | undefined
  /** Why the server did not take the subscription. */
  refusal: RedisError | undefined
  hops: number
}

/** So many redirections in a row are followed at once; the heartbeat goes on with it. */
const maxHops = 5

/** How long it takes to look again for the owner of a slot, or to ask a server that refuses for now. */
const pauseMillis = 200

/** The name of the line for everything that is not sharded. */
const shared = ""

export const makeSubscriber = (settings: Settings, servers: Servers, slotOf: (channel: string) => number) => {
  const topics: Record<Subscribe, Map<string, Heard>> = {
    subscribe: new Map(),
    psubscribe: new Map(),
    ssubscribe: new Map()
  }
  const lines = new Map<string, Line<Heard>>()
  const pauses = new Set<NodeJS.Timeout>()
  let isClosed = false

  const isAlive = (topic: Heard) => topics[topic.command].get(topic.name) === topic

  const later = (run: () => void) => {
    const timer = setTimeout(() => {
      pauses.delete(timer)
      run()
    }, pauseMillis)
    pauses.add(timer)
  }

  const missed = (topic: Heard) => {
    for (const listener of topic.listeners) {
      listener.missing.add(topic)
      listener.isUntold = true
    }
  }

  const confirmed = (topic: Heard) => {
    topic.refusal = undefined
    topic.hops = 0
    for (const listener of topic.listeners) {
      if (!listener.missing.delete(topic)) continue
      // What comes before the last one is confirmed belongs after a gap, too.
      listener.isUntold = listener.missing.size > 0
      if (listener.isUntold) continue
      if (listener.isEstablished) listener.handler.onGap()
      listener.isEstablished = true
      listener.resume(Effect.void)
    }
  }

  const giveUp = (topic: Heard, failure: RedisError) => {
    for (const listener of topic.listeners) {
      if (!listener.isEstablished) listener.resume(Effect.fail(failure))
    }
  }

  const refused = (topic: Heard, reply: RedisError, socket: Socket) => {
    topic.refusal = reply
    if (reply.message.startsWith("MOVED ")) {
      if (servers.moved(reply.message, socket) && topic.hops++ < maxHops) place(topic)
    } else if (reply.reason === "Transient") {
      void servers.refresh()
      later(() => {
        // Its line sends it again.
        if (isAlive(topic) && !topic.isConfirmed) topic.line?.line.add(topic)
      })
    } else if (reply.reason !== "ConnectionLost" && reply.reason !== "Unavailable") {
      giveUp(topic, reply)
    }
    // Else its line connects and subscribes again, in the time that the listener has.
  }

  const lineTo = (name: string): Line<Heard> => {
    let line = lines.get(name)
    if (line === undefined) {
      line = makeLine<Heard>(settings, {
        target: () =>
          name === shared
            ? servers.target("subscriber", settings.commandMillis, undefined)
            : servers.node("subscriber", settings.commandMillis, name),
        onFailure: servers.refresh,
        find: (command, name) => topics[command].get(name),
        heard: (topic, message) => {
          for (const listener of topic.listeners) {
            if (listener.isUntold && listener.isEstablished) {
              listener.isUntold = false
              listener.handler.onGap()
            }
            listener.handler.onMessage(topic.name, message)
          }
        },
        confirmed,
        refused,
        lost: (gone) => gone.forEach(missed),
        unreachable: (all, failure) => all.forEach((topic) => giveUp(topic, failure)),
        check: (all) => {
          for (const topic of all) {
            topic.hops = 0
            place(topic)
          }
        }
      })
      lines.set(name, line)
    }
    return line
  }

  /** Puts a topic on the line it belongs to, if it is not there. */
  const place = (topic: Heard): void => {
    if (isClosed || !isAlive(topic)) return
    const owner = topic.command === "ssubscribe"
      ? servers.target("subscriber", settings.commandMillis, slotOf(topic.name))?.name
      : shared
    if (owner === undefined) {
      void servers.refresh()
      return later(() => topic.line === undefined && place(topic))
    }
    if (topic.line?.name === owner) return
    if (topic.isConfirmed) missed(topic)
    topic.line?.line.remove(topic)
    topic.line = { name: owner, line: lineTo(owner) }
    topic.line.line.add(topic)
  }

  const remove = (listener: Listener) => {
    for (const topic of listener.topics) {
      topic.listeners.delete(listener)
      if (topic.listeners.size > 0 || !isAlive(topic)) continue
      topics[topic.command].delete(topic.name)
      topic.line?.line.remove(topic)
    }
  }

  const listen = (names: ReadonlyArray<string>, handler: Handler, command: Subscribe = "subscribe") => {
    let listener: Listener | undefined
    const problem = () => {
      const [topic] = listener?.missing ?? []
      return topic?.refusal ?? topic?.line?.line.problem() ??
        new RedisError({
          reason: "Unavailable",
          command,
          message: "no node of the Cluster is known to serve the channel"
        })
    }
    const established = Effect.callback<void, RedisError>((resume) => {
      const timer = setTimeout(() => resume(Effect.fail(problem())), settings.commandMillis)
      const added: Listener = {
        topics: new Set(),
        handler,
        missing: new Set(),
        isEstablished: false,
        isUntold: false,
        resume: (exit) => {
          clearTimeout(timer)
          resume(exit)
        }
      }
      listener = added
      const fresh: Array<Heard> = []
      for (const name of names) {
        let topic = topics[command].get(name)
        if (topic === undefined) {
          topic = {
            command,
            name,
            isConfirmed: false,
            wasConfirmed: false,
            listeners: new Set(),
            line: undefined,
            refusal: undefined,
            hops: 0
          }
          topics[command].set(name, topic)
          fresh.push(topic)
        }
        topic.listeners.add(added)
        added.topics.add(topic)
        if (!topic.isConfirmed) added.missing.add(topic)
      }
      for (const topic of fresh) place(topic)
      if (added.missing.size === 0) {
        added.isEstablished = true
        added.resume(Effect.void)
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
    listen,
    close: () => {
      isClosed = true
      for (const timer of pauses) clearTimeout(timer)
      for (const line of lines.values()) line.close()
      for (const map of Object.values(topics)) map.clear()
    }
  }
}
