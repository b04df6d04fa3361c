/** Messages that wait for their first delivery. */
import type { NewMessage, Window } from "../Broker.ts"
import type { Due as Time } from "../broker/publishing.ts"
import type { Place, Reference, ScheduledMessage } from "../broker/scheduled.ts"
import { order } from "../broker/scheduled.ts"
import type { Due } from "./dueQueue.ts"
import type { Content } from "./log.ts"
import { copy } from "./log.ts"
import type { First, Windows } from "./windows.ts"

export interface Later {
  readonly channel: string
  /** The deduplication window that the message has opened. */
  readonly opened: Opened | undefined
  readonly content: Content
  readonly dueAtMillis: number
}

export interface Opened extends Window {
  readonly first: First
}

/** Returns the due time of a message. A time that has passed is now. */
export const dueAt = (due: Time, nowMillis: number): number =>
  Math.max(nowMillis, Math.ceil("atMillis" in due ? due.atMillis : nowMillis + due.delayMillis))

/** The parts of the store that it uses. */
interface StoreParts {
  readonly wait: (dueAtMillis: number, later: Later) => Due<Later>
  readonly remove: (due: Due<Later>) => boolean
  readonly publish: (channel: string, content: Content, nowMillis: number, sinceMillis: number) => string
  readonly windows: Windows
}

export class Scheduled {
  private readonly channels = new Map<string, Map<string, Due<Later>>>()
  private readonly store: StoreParts

  constructor(store: StoreParts) {
    this.store = store
  }

  has({ channel, id }: Reference): boolean {
    return this.channels.get(channel)?.has(id) === true
  }

  /** Adds a message, in place of one that waits under the same id. */
  add(message: NewMessage, dueAtMillis: number): void {
    const { channel, expiresInMillis, headers, id, orderingKey, params, payload, window } = message
    const opened = window === undefined ? undefined : { ...window, first: { position: undefined, id } }
    if (opened !== undefined) {
      this.store.windows.open(channel, opened.key, opened.first, dueAtMillis + opened.millis)
    }
    this.put({
      channel,
      opened,
      dueAtMillis,
      content: { id, payload, headers: copy(headers), params: copy(params), expiresInMillis, orderingKey }
    })
  }

  private put(later: Later): void {
    const { channel, content, dueAtMillis } = later
    this.take({ channel, id: content.id })
    const ids = this.channels.get(channel) ?? new Map<string, Due<Later>>()
    this.channels.set(channel, ids)
    ids.set(content.id, this.store.wait(dueAtMillis, later))
  }

  private take({ channel, id }: Reference): Later | undefined {
    const ids = this.channels.get(channel)
    const due = ids?.get(id)
    if (ids === undefined || due === undefined) return undefined
    this.store.remove(due)
    ids.delete(id)
    if (ids.size === 0) this.channels.delete(channel)
    return due.value
  }

  /** Publishes a message that is due. */
  promoted({ channel, content, dueAtMillis }: Later, nowMillis: number): void {
    this.take({ channel, id: content.id })
    this.store.publish(channel, content, nowMillis, dueAtMillis)
  }

  cancel(message: Reference): boolean {
    const later = this.take(message)
    if (later?.opened !== undefined) {
      this.store.windows.close(message.channel, later.opened.key, later.opened.first)
    }
    return later !== undefined
  }

  reschedule(message: Reference, due: Time, nowMillis: number): boolean {
    const later = this.take(message)
    if (later === undefined) return false
    const dueAtMillis = dueAt(due, nowMillis)
    const { opened } = later
    if (opened !== undefined) {
      this.store.windows.move(message.channel, opened.key, opened.first, dueAtMillis + opened.millis)
    }
    if (dueAtMillis > nowMillis) this.put({ ...later, dueAtMillis })
    else this.store.publish(later.channel, later.content, nowMillis, nowMillis)
    return true
  }

  list(after: Place | undefined, channel: string | undefined, limit: number) {
    // Only the first ones are kept on the way: a page of a million is not worth sorting them all.
    let first: Array<ScheduledMessage> = []
    const keep = limit + 1
    let last: ScheduledMessage | undefined
    for (const [name, ids] of this.channels) {
      if (channel !== undefined && name !== channel) continue
      for (const { dueAtMillis, value: { content } } of ids.values()) {
        if (last !== undefined && dueAtMillis > last.dueAtMillis) continue
        const { expiresInMillis, headers = {}, id, orderingKey, params = {}, payload } = content
        const message = { id, channel: name, dueAtMillis, payload, headers, params, expiresInMillis, orderingKey }
        if (after !== undefined && order(message, after) <= 0) continue
        first.push(message)
        if (first.length < 2 * keep) continue
        first = first.sort(order).slice(0, keep)
        last = first.at(-1)
      }
    }
    first.sort(order)
    const messages = first.slice(0, limit)
    return { messages, next: first.length > limit ? messages.at(-1) : undefined }
  }

  count(channel: string | undefined): number {
    let count = 0
    for (const [name, ids] of this.channels) if (channel === undefined || name === channel) count += ids.size
    return count
  }
}
