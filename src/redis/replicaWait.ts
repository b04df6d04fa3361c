/**
 * WAIT and WAITAOF: waiting until replicas have a write, or until it is on disk.
 *
 * Redis answers for the writes of the connection that asks, and serves nothing else on it meanwhile. So durable messages are written on a
 * connection of its own to each node, and all callers on it share one WAIT, which covers everything written before it. A WAIT is short
 * and is repeated, so that new writes are not held up for long when a replica is away.
 */
import { Effect } from "effect"
import type { Need, Reached } from "./connection.ts"
import type { Settings, Socket } from "./link.ts"
import type { Command } from "./protocol.ts"
import { RedisError } from "./protocol.ts"
import { makeConnection } from "./request.ts"
import type { Servers } from "./servers.ts"

/** A new write on the connection waits at most this long for a WAIT that is under way. */
const sliceMillis = 100

interface Waiting {
  readonly need: Need
  readonly until: number
  readonly tell: (reached: Reached) => void
}

const commandOf = ({ onDisk, replicas }: Need, millis: number): Command =>
  onDisk ? ["waitaof", 1, replicas, millis] : ["wait", replicas, millis]

/** Reads a reply: WAIT gives the number of replicas, WAITAOF [1 if it is on the disk of the master, number of replicas]. */
const reachedBy = ({ onDisk, replicas }: Need, reply: unknown): Reached => {
  if (reply instanceof RedisError) return { isReached: false, replicas: 0, problem: reply.message }
  const [local, count] = onDisk ? (reply as ReadonlyArray<unknown>).map(Number) as [number, number] : [1, Number(reply)]
  return { isReached: count >= replicas && local >= 1, replicas: count }
}

/** The callers that wait on one socket. One command is under way at a time, for all callers with the same need. */
class WaitQueue {
  private readonly waiting = new Set<Waiting>()
  private isBusy = false
  private readonly socket: Socket

  constructor(socket: Socket) {
    this.socket = socket
  }

  readonly join = (need: Need): Effect.Effect<Reached> =>
    Effect.callback((resume) => {
      const until = performance.now() + need.timeoutMillis
      const tell = (reached: Reached) => {
        clearTimeout(timer)
        this.waiting.delete(mine)
        resume(Effect.succeed(reached))
      }
      const mine: Waiting = { need, until, tell }
      // A frozen server does not answer. The command itself ends at most one slice after its time.
      const timer = setTimeout(
        () => tell({ isReached: false, replicas: 0, problem: "the server did not answer in time" }),
        need.timeoutMillis + 2 * sliceMillis
      )
      this.waiting.add(mine)
      this.round()
      return Effect.sync(() => {
        clearTimeout(timer)
        this.waiting.delete(mine)
      })
    })

  private round() {
    const [first] = this.waiting
    if (this.isBusy || first === undefined) return
    const { need } = first
    const batch = [...this.waiting].filter((other) =>
      other.need.replicas === need.replicas && other.need.onDisk === need.onDisk
    )
    const longest = Math.max(...batch.map(({ until }) => until)) - performance.now()
    this.isBusy = true
    // 0 would mean for ever.
    const millis = Math.max(1, Math.min(sliceMillis, Math.ceil(longest)))
    this.socket.write([commandOf(need, millis)], false, ([reply]) => {
      this.isBusy = false
      const reached = reachedBy(need, reply)
      const now = performance.now()
      for (const one of batch) {
        if (!this.waiting.has(one)) continue
        if (reached.isReached || reached.problem !== undefined || now >= one.until) one.tell(reached)
        else {
          // Behind the callers with another need.
          this.waiting.delete(one)
          this.waiting.add(one)
        }
      }
      this.round()
    })
  }
}

/** The lower of two results. */
const worse = (a: Reached, b: Reached): Reached =>
  a.isReached !== b.isReached ? (a.isReached ? b : a) : a.replicas <= b.replicas ? a : b

export const makeDurable = (settings: Settings, servers: Servers) => {
  const apart: Servers = { ...servers, ...servers.durable }
  const queues = new WeakMap<Socket, WaitQueue>()
  const queueOf = (socket: Socket) => {
    let queue = queues.get(socket)
    if (queue === undefined) queues.set(socket, queue = new WaitQueue(socket))
    return queue
  }
  return (slot: number) => {
    const sockets = new Set<Socket>()
    return {
      ...makeConnection(settings, apart, slot, (socket) => sockets.add(socket)),
      confirm: (need: Need): Effect.Effect<Reached> =>
        Effect.suspend(() =>
          Effect.map(
            Effect.forEach(
              [...sockets],
              (socket): Effect.Effect<Reached> =>
                // Another connection does not cover these writes.
                socket.isReady()
                  ? queueOf(socket).join(need)
                  : Effect.succeed({ isReached: false, replicas: 0, problem: "the connection was lost" }),
              { concurrency: "unbounded" }
            ),
            (found) =>
              found.length === 0
                ? { isReached: false, replicas: 0, problem: "nothing was written" }
                : found.reduce(worse)
          )
        )
    }
  }
}
