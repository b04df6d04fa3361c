// What is used here of the peers. They are installed by `npm run bench` only, and the types of the library are checked without them.

declare module "bullmq" {
  interface Connection {
    readonly port: number
    readonly host: string
    readonly maxRetriesPerRequest?: null
  }
  export class Queue {
    constructor(name: string, options: { readonly connection: Connection })
    add(name: string, data: unknown, options: object): Promise<unknown>
    addBulk(
      jobs: ReadonlyArray<{ readonly name: string; readonly data: unknown; readonly opts: object }>
    ): Promise<unknown>
    waitUntilReady(): Promise<unknown>
    close(): Promise<void>
  }
  export class Worker {
    constructor(
      name: string,
      process: (job: { readonly data: unknown }) => Promise<void>,
      options: { readonly connection: Connection; readonly concurrency: number }
    )
    on(event: "error", listener: (error: Error) => void): this
    waitUntilReady(): Promise<unknown>
    close(): Promise<void>
  }
}

declare module "bee-queue" {
  interface Job {
    retries(times: number): Job
    backoff(strategy: "immediate"): Job
    delayUntil(millis: number): Job
    save(): Promise<unknown>
  }
  export default class Queue {
    constructor(name: string, options: object)
    createJob(data: unknown): Job
    saveAll(jobs: ReadonlyArray<Job>): Promise<ReadonlyMap<Job, Error>>
    process(concurrency: number, process: (job: { readonly data: unknown }) => Promise<void>): void
    on(event: "error", listener: (error: Error) => void): this
    ready(): Promise<unknown>
    close(): Promise<void>
  }
}

declare module "groupmq" {
  export class Queue {
    constructor(
      options: { readonly redis: import("ioredis").Redis; readonly namespace: string; readonly maxAttempts: number }
    )
    add(
      job: { readonly groupId: string; readonly data: unknown; readonly delay?: number }
    ): Promise<unknown>
    close(): Promise<void>
  }
  export class Worker {
    constructor(options: {
      readonly queue: Queue
      readonly handler: (job: { readonly data: unknown }) => Promise<void>
      readonly concurrency: number
      readonly backoff: () => number
    })
    on(event: "error", listener: (error: Error) => void): this
    run(): Promise<void>
    close(): Promise<void>
  }
}
