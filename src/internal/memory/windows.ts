/** Deduplication windows: which ids were stored on which channel, and where, until their time is over. */
import { DueQueue } from "./dueQueue.ts"

interface Window {
  readonly channel: string
  readonly id: string
}

export class Windows {
  private readonly positions = new Map<string, Map<string, string>>()
  private readonly ends = new DueQueue<Window>()

  /** Where the message with this id is, if its window is open. */
  find(channel: string, id: string, nowMillis: number): string | undefined {
    this.close(nowMillis)
    return this.positions.get(channel)?.get(id)
  }

  open(channel: string, id: string, position: string, endAtMillis: number): void {
    const ids = this.positions.get(channel)
    if (ids === undefined) this.positions.set(channel, new Map([[id, position]]))
    else ids.set(id, position)
    this.ends.add(endAtMillis, { channel, id })
  }

  /** Forgets the windows whose time is over. */
  close(nowMillis: number): void {
    for (let ended = this.ends.takeDue(nowMillis); ended !== undefined; ended = this.ends.takeDue(nowMillis)) {
      const { channel, id } = ended.value
      const ids = this.positions.get(channel)!
      ids.delete(id)
      if (ids.size === 0) this.positions.delete(channel)
    }
  }
}
