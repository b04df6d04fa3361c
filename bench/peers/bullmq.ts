/**
 * BullMQ, with completed jobs removed.
 */
import { Queue, Worker } from "bullmq"
import { handler, type Open, type Payload, publishers } from "./peer.ts"

const day = 86_400_000
const plain = { removeOnComplete: true, attempts: 5 }

export const open: Open = async (port, name) => {
  const connection = { port, host: "127.0.0.1", maxRetriesPerRequest: null } as const
  const queue = new Queue(name, { connection })
  await queue.waitUntilReady()
  const workers = new Set<Worker>()
  const many = (payloads: ReadonlyArray<Payload>, opts: object) =>
    queue.addBulk(payloads.map((data) => ({ name: "m", data, opts })))
  return {
    ...publishers((payload) => queue.add("m", payload, plain), (payloads) => many(payloads, plain)),
    schedule: (payloads) => many(payloads, { ...plain, delay: day }),
    consume: async (options) => {
      const run = handler(options)
      const worker = new Worker(name, ({ data }) => run(data as Payload), {
        connection,
        concurrency: options.concurrency
      })
      worker.on("error", (error) => console.error(error.message))
      await worker.waitUntilReady()
      workers.add(worker)
      return () => worker.close()
    },
    close: async () => {
      for (const worker of workers) await worker.close()
      await queue.close()
    }
  }
}
