/** Recurring messages: their definitions, each with its next tick. */
import type { Advance, Definition, DueTicks, Recurring as Described } from "../broker/recurring.ts"
import { Signal } from "../internal/wake.ts"
import { copy } from "./log.ts"
import type { Store } from "./store.ts"

export class Recurring {
  private readonly definitions = new Map<string, Described>()
  private readonly store: Store
  /** Woken when a definition has changed. */
  readonly changed = new Signal()

  constructor(store: Store) {
    this.store = store
  }

  upsert(definition: Definition, nextAtMillis: number): number {
    const before = this.definitions.get(definition.key)
    const stays = before?.recurrence === definition.recurrence && before.channel === definition.channel
    const next = stays ? before.nextAtMillis : nextAtMillis
    this.definitions.set(definition.key, {
      ...definition,
      headers: copy(definition.headers),
      params: copy(definition.params),
      nextAtMillis: next
    })
    this.store.wake(this.changed)
    return next
  }

  remove(key: string): boolean {
    return this.definitions.delete(key)
  }

  list(): ReadonlyArray<Described> {
    return [...this.definitions.values()].sort((a, b) => a.nextAtMillis - b.nextAtMillis)
  }

  due(limit: number, nowMillis: number): DueTicks {
    const all = this.list()
    const first = all[0]?.nextAtMillis
    return {
      nowMillis,
      ticks: all.filter(({ nextAtMillis }) => nextAtMillis <= nowMillis).slice(0, limit),
      nextInMillis: first === undefined ? undefined : Math.max(0, first - nowMillis)
    }
  }

  advance({ fromMillis, key, messages, nextAtMillis, recurrence }: Advance, nowMillis: number): boolean {
    const definition = this.definitions.get(key)
    if (definition?.nextAtMillis !== fromMillis || definition.recurrence !== recurrence) return false
    for (const { id, window } of messages) this.store.append({ ...definition, id, window }, nowMillis)
    this.definitions.set(key, { ...definition, nextAtMillis })
    return true
  }
}
