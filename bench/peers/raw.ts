/**
 * ioredis and nothing else, as fast as a stream and a consumer group can be used from one process: pipelined writes, reads of as
 * many as are wanted, acknowledgements and deletions in one write that nobody waits for before the next read.
 */
import { Redis } from "ioredis"
import { handler, type Open, type Payload, publishers } from "./peer.ts"

type Reply = ReadonlyArray<readonly [string, ReadonlyArray<readonly [string, ReadonlyArray<string>]>]> | null

export const makeOpen = (isPipelined: boolean): Open => async (port, name) => {
  const client = new Redis({ port, host: "127.0.0.1" })
  const readers = new Set<Redis>()
  const day = 86_400_000
  const one = (payload: Payload) => client.xadd(name, "*", "i", String(payload.id), "p", JSON.stringify(payload))
  const many = (payloads: ReadonlyArray<Payload>) => {
    if (!isPipelined) return Promise.all(payloads.map(one))
    const pipeline = client.pipeline()
    for (const payload of payloads) pipeline.xadd(name, "*", "i", String(payload.id), "p", JSON.stringify(payload))
    return pipeline.exec()
  }
  await client.ping()
  return {
    ...publishers(one, many),
    schedule: async (payloads) => {
      const pipeline = client.pipeline()
      const due = Date.now() + day
      for (const payload of payloads) {
        pipeline.zadd(`${name}:due`, due, payload.id)
        pipeline.hset(`${name}:bodies`, payload.id, JSON.stringify(payload))
      }
      await pipeline.exec()
    },
    consume: async (options) => {
      const group = options.group ?? "g"
      const reader = new Redis({ port, host: "127.0.0.1" })
      readers.add(reader)
      await client.xgroup("CREATE", name, group, "0", "MKSTREAM").catch((error: Error) => {
        if (!error.message.startsWith("BUSYGROUP")) throw error
      })
      const run = handler(options)
      const isPlain = options.waitMillis === 0 && options.hold === undefined
      const count = isPipelined ? options.concurrency : 1
      const settle = (ids: ReadonlyArray<string>) => {
        const pipeline = client.pipeline().xack(name, group, ...ids)
        // With several groups nobody may delete what others have not read.
        if (options.group === undefined) pipeline.xdel(name, ...ids)
        return pipeline.exec()
      }
      let isStopped = false
      let last: Promise<unknown> = Promise.resolve()
      const loop = (async () => {
        while (!isStopped) {
          const reply = await reader.xreadgroup(
            "GROUP",
            group,
            "c",
            "COUNT",
            count,
            "BLOCK",
            100,
            "STREAMS",
            name,
            ">"
          ) as Reply
          if (reply === null) continue
          const entries = reply[0]![1]
          const payloads = entries.map(([, fields]) => JSON.parse(fields[3]!) as Payload)
          if (isPlain) { for (const payload of payloads) options.handle(payload) }
          else {
            const work = Promise.all(payloads.map(run))
            // What is held is not waited for: there is room for more.
            if (options.hold !== undefined) {
              last = work.then(() => settle(entries.map(([id]) => id)))
              continue
            }
            await work
          }
          last = settle(entries.map(([id]) => id))
          if (!isPipelined) await last
        }
      })()
      return async () => {
        isStopped = true
        await loop
        await last
      }
    },
    close: async () => {
      for (const reader of readers) reader.disconnect()
      client.disconnect()
    }
  }
}

export const open = makeOpen(true)
