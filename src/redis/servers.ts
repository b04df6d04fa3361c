/**
 * The server of each slot: one server, or the nodes of a Cluster.
 */
import type { Address, Link, Settings, Socket, Target } from "./link.ts"
import { makeLink } from "./link.ts"
import { errorOf, RedisError } from "./protocol.ts"

/** Maps addresses as the servers report them (`host:port`) to addresses that can be reached from here. */
export type NatMap = Readonly<Record<string, Address>> | ((name: string) => Address | null)

export const nameOf = (address: Address): string => `${address.host}:${address.port}`

/** An IPv6 address contains colons too, and may stand in brackets. */
export const addressOf = (name: string): Address => {
  const at = name.lastIndexOf(":")
  return { host: name.slice(0, at).replace(/^\[(.*)\]$/, "$1"), port: Number(name.slice(at + 1)) }
}

export interface Servers {
  /** The shared link of the owner of a slot; `undefined` while no owner is known. */
  readonly owner: (slot: number) => Link | undefined
  /** The shared link of a server by name. */
  readonly named: (name: string) => Link
  /** The address of the owner of a slot, for a private connection; without a slot, of any server. */
  readonly target: (
    role: Target["role"],
    silenceMillis: number | undefined,
    slot: number | undefined
  ) => Target | undefined
  /** The address of a server by name, for a private connection. */
  readonly node: (role: Target["role"], silenceMillis: number | undefined, name: string) => Target
  /** Takes note of "MOVED slot host:port"; false when the address is not new. */
  readonly moved: (message: string, socket: Socket) => boolean
  /** The link that "ASK slot host:port" names. */
  readonly asked: (message: string, socket: Socket) => Link
  /** The same servers on other links, opened when needed: a wait for replicas blocks these. */
  readonly durable: Pick<Servers, "owner" | "asked">
  /** Asks the Cluster for the owners of its slots; returns the error when no node answers. */
  readonly refresh: () => Promise<RedisError | undefined>
  readonly close: () => void
}

/** One server, or the master of Sentinels: every key is there. */
export const oneServer = (settings: Settings, name: string): Servers => {
  const target: Servers["target"] = (role, silenceMillis) => ({ name, role, silenceMillis })
  const linkOf = (role: Target["role"]) =>
    makeLink(settings, {
      target: () => target(role, settings.commandMillis, undefined),
      onFailure: () => Promise.resolve()
    })
  const link = linkOf("commands")
  let durable: Link | undefined
  let isClosed = false
  const apart = () => {
    durable ??= linkOf("durable")
    if (isClosed) durable.close()
    return durable
  }
  return {
    owner: () => link,
    named: () => link,
    target,
    node: (role, silenceMillis) => ({ name, role, silenceMillis }),
    moved: () => false,
    asked: () => link,
    durable: { owner: apart, asked: apart },
    refresh: () => Promise.resolve(undefined),
    close: () => {
      isClosed = true
      link.close()
      durable?.close()
    }
  }
}

/** A node in the reply of CLUSTER SLOTS. */
type SlotRange = readonly [from: number, to: number, master: readonly [host: string | null, port: number]]

const refreshSpacingMillis = 100
/** This many nodes are asked at the same time: one of them may be frozen. */
const refreshWidth = 3

export const clusterServers = (settings: Settings, options: {
  readonly seeds: ReadonlyArray<string>
  readonly natMap: NatMap | undefined
}): Servers => {
  const links = new Map<string, Link>()
  const durable = new Map<string, Link>()
  const closing = new AbortController()
  let owners: ReadonlyArray<string> = []
  let slots = new Array<string | undefined>(16_384)
  let refreshing: Promise<RedisError | undefined> | undefined
  let refreshedAt = -Infinity

  const target = (name: string, role: Target["role"], silenceMillis: number | undefined): Target => ({
    name,
    role,
    silenceMillis,
    address: addressOf(name)
  })

  const namedIn = (some: Map<string, Link>, role: Target["role"]) => (nodeName: string): Link => {
    let link = some.get(nodeName)
    if (link === undefined) {
      link = makeLink(settings, {
        target: () => target(nodeName, role, settings.commandMillis),
        onFailure: refresh
      })
      if (closing.signal.aborted) link.close()
      some.set(nodeName, link)
    }
    return link
  }
  const named = namedIn(links, "commands")
  const apart = namedIn(durable, "durable")

  /** An empty host name in the reply means the node that was asked. */
  const reachable = (host: string | null, port: number, asked: string): string => {
    const name = nameOf({ host: host || addressOf(asked).host, port })
    const { natMap } = options
    const mapped = typeof natMap === "function" ? natMap(name) : natMap?.[name]
    return mapped ? nameOf(mapped) : name
  }

  const ask = async (nodeName: string) => {
    const socket = await settings.open(target(nodeName, "topology", settings.commandMillis), undefined, closing.signal)
    const [ranges] = await new Promise<Array<unknown>>((resolve) =>
      socket.write([["cluster", "slots"]], false, resolve)
    )
    socket.destroy()
    if (ranges instanceof RedisError) throw ranges
    return (ranges as ReadonlyArray<SlotRange>).map(([from, to, [host, port]]) => ({
      from,
      to,
      owner: reachable(host, port, nodeName)
    }))
  }

  const learn = async (): Promise<RedisError | undefined> => {
    const candidates = [...new Set([...owners, ...options.seeds])].sort(() => Math.random() - 0.5)
    let failure: RedisError | undefined
    while (candidates.length > 0 && !closing.signal.aborted) {
      try {
        const ranges = await Promise.any(candidates.splice(0, refreshWidth).map(ask))
        slots = new Array(16_384)
        for (const { from, owner, to } of ranges) slots.fill(owner, from, to + 1)
        owners = [...new Set(ranges.map((range) => range.owner))]
        for (const some of [links, durable]) {
          for (const [name, link] of some) {
            // Commands under way get their replies; a later refresh closes the link.
            if (owners.includes(name) || (link.ready()?.pending() ?? 0) > 0) continue
            some.delete(name)
            link.close()
          }
        }
        return undefined
      } catch (error) {
        const failures: ReadonlyArray<unknown> = error instanceof AggregateError ? error.errors : [error]
        for (const each of failures) {
          const known = each instanceof RedisError ? each : errorOf("cluster", each)
          if (failure === undefined || known.reason === "Refused") failure = known
        }
      }
    }
    return failure
  }

  const refresh = (): Promise<RedisError | undefined> => {
    if (refreshing !== undefined) return refreshing
    if (performance.now() - refreshedAt < refreshSpacingMillis) return Promise.resolve(undefined)
    return refreshing = learn().finally(() => {
      refreshing = undefined
      refreshedAt = performance.now()
    })
  }

  /** "MOVED 3999 127.0.0.1:6381" */
  const redirection = (message: string, socket: Socket) => {
    const [, slot, to = ""] = message.split(" ")
    const { host, port } = addressOf(to)
    return { slot: Number(slot), name: reachable(host, port, socket.target) }
  }

  const ownerBy = (find: (nodeName: string) => Link) => (slot: number) => {
    const name = slots[slot]
    return name === undefined ? undefined : find(name)
  }

  return {
    owner: ownerBy(named),
    named,
    target: (role, silenceMillis, slot) => {
      const name = slot === undefined ? owners[Math.floor(Math.random() * owners.length)] : slots[slot]
      return name === undefined ? undefined : target(name, role, silenceMillis)
    },
    node: (role, silenceMillis, name) => target(name, role, silenceMillis),
    moved: (message, socket) => {
      const { name, slot } = redirection(message, socket)
      void refresh()
      if (!(slot >= 0 && slot < slots.length)) return false
      slots[slot] = name
      return name !== socket.target
    },
    asked: (message, socket) => named(redirection(message, socket).name),
    durable: {
      owner: ownerBy(apart),
      asked: (message, socket) => apart(redirection(message, socket).name)
    },
    refresh,
    close: () => {
      closing.abort()
      for (const link of [...links.values(), ...durable.values()]) link.close()
    }
  }
}
