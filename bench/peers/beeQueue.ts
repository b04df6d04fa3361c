/**
 * bee-queue as its documentation sets it up for speed: no events, no jobs kept in memory, what succeeded removed.
 */
import Queue from "bee-queue"
import { handler, type Open, type Payload, publishers } from "./peer.ts"

export const open: Open = async (port, name) => {
  const common = {
    redis: { port, host: "127.0.0.1" },
    removeOnSuccess: true,
    getEvents: false,
    sendEvents: false,
    storeJobs: false
  }
  const producer = new Queue(name, { ...common, isWorker: false })
  await producer.ready()
  const workers = new Set<Queue>()
  const job = (payload: Payload) => producer.createJob(payload).retries(5).backoff("immediate")
  const many = async (payloads: ReadonlyArray<Payload>, make: typeof job) => {
    for (const error of (await producer.saveAll(payloads.map(make))).values()) throw error
  }
  return {
    ...publishers((payload) => job(payload).save(), (payloads) => many(payloads, job)),
    schedule: (payloads) => many(payloads, (payload) => job(payload).delayUntil(Date.now() + 86_400_000)),
    consume: async (options) => {
      const run = handler(options)
      const worker = new Queue(name, common)
      worker.on("error", (error) => console.error(error.message))
      await worker.ready()
      worker.process(options.concurrency, ({ data }) => run(data as Payload))
      workers.add(worker)
      return () => {
        workers.delete(worker)
        return worker.close()
      }
    },
    close: async () => {
      for (const worker of workers) await worker.close()
      await producer.close()
    }
  }
}
