/**
 * What every peer has to do here, and the messages it does it with.
 */

export interface Payload {
  readonly id: number
  /** When it was published, by `performance.now()`; 0 where nobody asks. */
  readonly at: number
  readonly note: string
  readonly tags: ReadonlyArray<string>
}

const tags = ["alpha", "beta"]

/** Payloads whose JSON has exactly so many bytes. */
export const payloadsOf = (count: number, bytes: number, from = 0): Array<Payload> =>
  Array.from({ length: count }, (_, i) => payloadOf(from + i, bytes, 0))

export const payloadOf = (id: number, bytes: number, at: number): Payload => {
  const bare = JSON.stringify({ id, at, note: "", tags }).length
  return { id, at, note: "x".repeat(bytes - bare), tags }
}

export interface Consume {
  readonly concurrency: number
  /** Where a peer has groups; else there is one. */
  readonly group?: string | undefined
  /** What the handler waits for, in milliseconds; 0 is no wait. */
  readonly waitMillis: number
  /** False makes the handler fail: the message comes again, at once. */
  readonly handle: (payload: Payload) => boolean
  /** What the handler waits for before it is done, when it is to hold its message. */
  readonly hold?: Promise<void> | undefined
}

export interface Peer {
  /** Publishes one message; when it resolves, the message is stored. */
  readonly one: (payload: Payload) => Promise<unknown>
  /** One after the other, each awaited. */
  readonly sequential: (payloads: ReadonlyArray<Payload>) => Promise<unknown>
  /** Each by itself, as many at a time as given. */
  readonly concurrent: (payloads: ReadonlyArray<Payload>, width: number) => Promise<unknown>
  /** As many in one go as the peer has a way for. */
  readonly bulk: (payloads: ReadonlyArray<Payload>) => Promise<unknown>
  /** Due in a day. */
  readonly schedule?: (payloads: ReadonlyArray<Payload>) => Promise<unknown>
  /** Handles what is published until it is stopped; what was handled is settled then. */
  readonly consume: (options: Consume) => Promise<() => Promise<unknown>>
  readonly close: () => Promise<unknown>
}

/** Opens a peer; what it stores is told apart by the name. */
export type Open = (port: number, name: string) => Promise<Peer>

export const batch = 500

/** The ways to publish of a peer that has promises. */
export const publishers = (
  one: Peer["one"],
  many: (payloads: ReadonlyArray<Payload>) => Promise<unknown>
): Pick<Peer, "one" | "sequential" | "concurrent" | "bulk"> => ({
  one,
  sequential: async (payloads) => {
    for (const payload of payloads) await one(payload)
  },
  concurrent: async (payloads, width) => {
    let next = 0
    const worker = async () => {
      while (next < payloads.length) await one(payloads[next++]!)
    }
    await Promise.all(Array.from({ length: width }, worker))
  },
  bulk: async (payloads) => {
    for (let from = 0; from < payloads.length; from += batch) await many(payloads.slice(from, from + batch))
  }
})

export const sleep = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

/** What a handler of a peer with promises does. */
export const handler = ({ handle, hold, waitMillis }: Consume) => async (payload: Payload): Promise<void> => {
  const done = handle(payload)
  if (waitMillis > 0) await sleep(waitMillis)
  if (hold !== undefined) await hold
  if (!done) throw new Error("again")
}
