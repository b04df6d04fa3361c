/**
 * Waiting until replicas have what was written, or until it is on disk (WAIT and WAITAOF).
 *
 * Redis answers for the writes of the connection that asks, and serves nothing else on it meanwhile. So what is to be durable is
 * written on a connection of its own to each node, and all who wait on it share one WAIT: it speaks for everything written before it.
 * A WAIT is short and is repeated, so that new writes are not held up for long when a replica is away.
 */
import { Effect } from "effect"
import type { Settings, Socket } from "./link.ts"
import type { Command } from "./protocol.ts"
import { RedisError } from "./protocol.ts"
import { makeConnection } from "./request.ts"
import type { Servers } from "./servers.ts"

/** What is waited for. */
export interface Need {
  readonly replicas: number
  /** On disk there, and on the master's. */
  readonly onDisk: boolean
  readonly timeoutMillis: number
}

/** What was reached in time; `problem` tells why not, where it is not that time ran out. */
export interface Reached {
  readonly isReached: boolean
  readonly replicas: number
  readonly problem?: string | undefined
}

/** New writes on the connection wait at most so long for a WAIT that others began. */
const sliceMillis = 100

interface Waiting {
  readonly need: Need
  readonly until: number
  readonly tell: (reached: Reached) => void
}

const commandOf = ({ onDisk, replicas }: Need, millis: number): Command =>
  onDisk ? ["waitaof", 1, replicas, millis] : ["wait", replicas, millis]

/** The reply of WAIT is the number of replicas, that of WAITAOF [1 if it is on the disk of the master, number of replicas]. */
const judge = ({ onDisk, replicas }: Need, reply: unknown): Reached => {
  if (reply instanceof RedisError) return { isReached: false, replicas: 0, problem: reply.message }
  const [local, count] = onDisk ? (reply as ReadonlyArray<unknown>).map(Number) as [number, number] : [1, Number(reply)]
  return { isReached: count >= replicas && local >= 1, replicas: count }
}

/** All who wait on one socket: one command at a time, for those who need the same. */
class Lane {
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
      // A frozen server answers nothing; the command itself ends a slice after its time at the latest.
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
    // 0 would be for ever.
    const millis = Math.max(1, Math.min(sliceMillis, Math.ceil(longest)))
    this.socket.write([commandOf(need, millis)], false, ([reply]) => {
      this.isBusy = false
      const reached = judge(need, reply)
      const now = performance.now()
      for (const one of batch) {
        if (!this.waiting.has(one)) continue
        if (reached.isReached || reached.problem !== undefined || now >= one.until) one.tell(reached)
        else {
          // Behind those who need something else.
          this.waiting.delete(one)
          this.waiting.add(one)
        }
      }
      this.round()
    })
  }
}

/** The least of what was reached. */
const worse = (a: Reached, b: Reached): Reached =>
  a.isReached !== b.isReached ? (a.isReached ? b : a) : a.replicas <= b.replicas ? a : b

export const makeDurable = (settings: Settings, servers: Servers) => {
  const apart: Servers = { ...servers, ...servers.durable }
  const lanes = new WeakMap<Socket, Lane>()
  const laneOf = (socket: Socket) => {
    let lane = lanes.get(socket)
    if (lane === undefined) lanes.set(socket, lane = new Lane(socket))
    return lane
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
                // Another connection would not know of these writes.
                socket.isReady()
                  ? laneOf(socket).join(need)
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
