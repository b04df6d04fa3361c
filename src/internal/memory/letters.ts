/** Dead letters in the order of their death. */
import type { Failure, Letter } from "../../Broker.ts"
import type { Lease } from "./group.ts"
import type { Position } from "./position.ts"
import { firstIndex, format, isAfter, parse, Positions } from "./position.ts"

interface Dead {
  readonly position: Position
  readonly letter: Letter
}

export class Letters {
  private readonly positions = new Positions()
  private readonly dead: Array<Dead> = []

  get size(): number {
    return this.dead.length
  }

  add(lease: Lease, failure: Failure, nowMillis: number): void {
    const position = this.positions.next(nowMillis)
    this.dead.push({
      position,
      letter: {
        letterId: format(position),
        group: lease.reading.group.name,
        diedAtMillis: position.millis,
        failure,
        id: lease.id,
        channel: lease.channel,
        payload: lease.payload,
        headers: lease.headers,
        params: lease.params,
        publishedAtMillis: lease.publishedAtMillis,
        attempt: lease.attempt,
        deliveryCount: lease.deliveryCount,
        crashes: lease.crashes
      }
    })
  }

  /** At most `limit` letters after the one with this id. */
  list(cursor: string | undefined, limit: number): ReadonlyArray<Letter> {
    const after = cursor === undefined ? undefined : parse(cursor)
    const from = after === undefined ? 0 : firstIndex(this.dead, 0, ({ position }) => isAfter(position, after))
    return this.dead.slice(from, from + limit).map(({ letter }) => letter)
  }
}
