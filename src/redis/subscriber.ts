/**
 * Pub/Sub: listeners, their topics, and the link of each topic.
 *
 * All topics share one link, except for sharded channels of a Cluster: these have one link for each node that owns some.
 */
import { Effect } from "effect"
import type { Settings, Socket, Subscribe } from "./link.ts"
import type { RedisError } from "./protocol.ts"
import { unavailable } from "./protocol.ts"
import type { Servers } from "./servers.ts"
import type { SubscriberLink, Topic } from "./subscriberLink.ts"
import { makeSubscriberLink } from "./subscriberLink.ts"

/** What a listener is told. */
export interface Handler {
  readonly onMessage: (channel: string, message: string) => void
  readonly onGap: () => void
}

interface Listener {
  readonly topics: Set<ListenedTopic>
  readonly handler: Handler
  /** The topics that are not confirmed now. */
  readonly missing: Set<ListenedTopic>
  isEstablished: boolean
  /** The listener has not been told of a gap before the next message. */
  isUntold: boolean
  readonly resume: (exit: Effect.Effect<void, RedisError>) => void
}

interface ListenedTopic extends Topic {
  readonly listeners: Set<Listener>
  link: { readonly name: string; readonly link: SubscriberLink<ListenedTopic> } | undefined
  /** The error by which the server refused the subscription. */
  refusal: RedisError | undefined
  hops: number
}

/** At most this many redirections in a row are followed at once; the heartbeat follows the next ones. */
const maxHops = 5

/** After this long the owner of a slot is looked up again, or a server that refused for now is asked again. */
const pauseMillis = 200

/** The name of the link for all topics that are not sharded. */
const shared = ""

export const makeSubscriber = (settings: Settings, servers: Servers, slotOf: (channel: string) => number) => {
  const topics: Record<Subscribe, Map<string, ListenedTopic>> = {
    subscribe: new Map(),
    psubscribe: new Map(),
    ssubscribe: new Map()
  }
  const links = new Map<string, SubscriberLink<ListenedTopic>>()
  const pauses = new Set<NodeJS.Timeout>()
  let isClosed = false

  const isAlive = (topic: ListenedTopic) => topics[topic.command].get(topic.name) === topic

  const later = (run: () => void) => {
    const timer = setTimeout(() => {
      pauses.delete(timer)
      run()
    }, pauseMillis)
    pauses.add(timer)
  }

  const missed = (topic: ListenedTopic) => {
    for (const listener of topic.listeners) {
      listener.missing.add(topic)
      listener.isUntold = true
    }
  }

  const confirmed = (topic: ListenedTopic) => {
    topic.refusal = undefined
    topic.hops = 0
    for (const listener of topic.listeners) {
      if (!listener.missing.delete(topic)) continue
      // Messages that come before the last topic is confirmed belong after a gap, too.
      listener.isUntold = listener.missing.size > 0
      if (listener.isUntold) continue
      if (listener.isEstablished) listener.handler.onGap()
      listener.isEstablished = true
      listener.resume(Effect.void)
    }
  }

  const giveUp = (topic: ListenedTopic, failure: RedisError) => {
    for (const listener of topic.listeners) {
      if (!listener.isEstablished) listener.resume(Effect.fail(failure))
    }
  }

  const refused = (topic: ListenedTopic, reply: RedisError, socket: Socket) => {
    topic.refusal = reply
    if (reply.message.startsWith("MOVED ")) {
      if (servers.moved(reply.message, socket) && topic.hops++ < maxHops) place(topic)
    } else if (reply.reason === "Transient") {
      void servers.refresh()
      later(() => {
        // Its link subscribes again.
        if (isAlive(topic) && !topic.isConfirmed) topic.link?.link.add(topic)
      })
    } else if (reply.reason !== "ConnectionLost" && reply.reason !== "Unavailable") {
      giveUp(topic, reply)
    }
    // Otherwise its link connects and subscribes again, within the time that the listener has.
  }

  const linkTo = (name: string): SubscriberLink<ListenedTopic> => {
    let link = links.get(name)
    if (link === undefined) {
      link = makeSubscriberLink<ListenedTopic>(settings, {
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
      links.set(name, link)
    }
    return link
  }

  /** Moves a topic to the link it belongs to. */
  const place = (topic: ListenedTopic): void => {
    if (isClosed || !isAlive(topic)) return
    const owner = topic.command === "ssubscribe"
      ? servers.target("subscriber", settings.commandMillis, slotOf(topic.name))?.name
      : shared
    if (owner === undefined) {
      void servers.refresh()
      return later(() => topic.link === undefined && place(topic))
    }
    if (topic.link?.name === owner) return
    if (topic.isConfirmed) missed(topic)
    topic.link?.link.remove(topic)
    topic.link = { name: owner, link: linkTo(owner) }
    topic.link.link.add(topic)
  }

  const remove = (listener: Listener) => {
    for (const topic of listener.topics) {
      topic.listeners.delete(listener)
      if (topic.listeners.size > 0 || !isAlive(topic)) continue
      topics[topic.command].delete(topic.name)
      topic.link?.link.remove(topic)
    }
  }

  const listen = (names: ReadonlyArray<string>, handler: Handler, command: Subscribe = "subscribe") => {
    let listener: Listener | undefined
    const problem = () => {
      const [topic] = listener?.missing ?? []
      return topic?.refusal ?? topic?.link?.link.problem() ??
        unavailable(command, "no node of the Cluster is known to serve the channel")
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
      const fresh: Array<ListenedTopic> = []
      for (const name of names) {
        let topic = topics[command].get(name)
        if (topic === undefined) {
          topic = {
            command,
            name,
            isConfirmed: false,
            wasConfirmed: false,
            listeners: new Set(),
            link: undefined,
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
      for (const link of links.values()) link.close()
      for (const map of Object.values(topics)) map.clear()
    }
  }
}
