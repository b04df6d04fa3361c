/**
 * groupmq; a group of its own is a queue in order, so the messages are spread over as many groups as are handled at a time.
 */
import { Queue, Worker } from "groupmq"
import { Redis } from "ioredis"
import { handler, type Open, type Payload, publishers } from "./peer.ts"

const groups = 1000

export const open: Open = async (port, name) => {
  const redis = new Redis({ port, host: "127.0.0.1", maxRetriesPerRequest: null })
  const queue = new Queue({ redis, namespace: name, maxAttempts: 5 })
  const workers = new Set<Worker>()
  const add = (payload: Payload, delay?: number) =>
    queue.add({ groupId: `g${payload.id % groups}`, data: payload, ...(delay === undefined ? {} : { delay }) })
  return {
    ...publishers((payload) => add(payload), (payloads) => Promise.all(payloads.map((payload) => add(payload)))),
    schedule: (payloads) => Promise.all(payloads.map((payload) => add(payload, 86_400_000))),
    consume: async (options) => {
      const run = handler(options)
      const worker = new Worker({
        queue,
        concurrency: options.concurrency,
        backoff: () => 0,
        handler: ({ data }) => run(data as Payload)
      })
      worker.on("error", (error) => console.error(error.message))
      void worker.run()
      workers.add(worker)
      return () => {
        workers.delete(worker)
        return worker.close()
      }
    },
    close: async () => {
      for (const worker of workers) await worker.close()
      await queue.close()
      redis.disconnect()
    }
  }
}
