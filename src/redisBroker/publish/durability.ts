/**
 * Durability of a publish: WAIT or WAITAOF on the connection that wrote the messages.
 *
 * Redis waits for the writes of one connection only. So a durable publish has a connection for itself, and a message that was found
 * instead of written is followed by a write.
 */
import { Effect } from "effect"
import type { Broker } from "../../Broker.ts"
import { BrokerError } from "../../broker/error.ts"
import type { Appended, Durability, NewMessage, Shortfall } from "../../broker/publishing.ts"
import type { Connection, DurableConnection } from "../../redis/connection.ts"
import type { RedisError } from "../../redis/protocol.ts"
import type { Keys } from "../keys.ts"
import { confirmable } from "../scripts/publish/confirmable.ts"
import type { Shards } from "../shards.ts"
import type { Route } from "./route.ts"

/** The check at the start waits at most this long for replicas; a slower replica only causes a warning. */
const checkMillis = 1_000

const isStored = (appended: Appended): appended is Exclude<Appended, { readonly _tag: "Failed" | "Uncertain" }> =>
  appended._tag !== "Failed" && appended._tag !== "Uncertain"

const keyOf = ({ onDisk, replicas, timeoutMillis }: Durability) => `${replicas} ${onDisk} ${timeoutMillis}`

export const make = (
  { all, connectionOf, fail, keysOf, shardOf }: Shards,
  durable: (shard: number) => DurableConnection
) => {
  /** Commands that the server was found to know. */
  const confirmed = new Set<"wait" | "waitaof">()

  const explain = (command: string) => (error: RedisError): BrokerError => {
    if (error.reason !== "Refused") return fail("append")(error)
    const why = command === "wait"
      ? "durability needs the command WAIT: allow it in the ACL (+wait)"
      : error.message.includes("unknown command")
      ? "durability with fsync needs WAITAOF, which Redis has from 7.2 on: use a newer server, or leave fsync out"
      : "durability with fsync needs the command WAITAOF (+waitaof in the ACL) and appendonly yes"
    return new BrokerError({ reason: "Refused", operation: "append", message: `${why} (${error.message})` })
  }

  /** Checks that a server has the command, without making it wait. */
  const probe = (shard: number, { onDisk }: Durability): Effect.Effect<void, BrokerError> =>
    Effect.suspend(() => {
      const command = onDisk ? "waitaof" : "wait"
      return connectionOf(shard).send(onDisk ? ["waitaof", 1, 0, 1] : ["wait", 0, 1], { idempotent: true }).pipe(
        Effect.mapError(explain(command)),
        Effect.map(() => void confirmed.add(command))
      )
    })

  const check: Broker["Service"]["checkDurability"] = Effect.fnUntraced(function*(durability) {
    const found = yield* Effect.forEach(all, ({ shard }) => {
      const connection = durable(shard)
      return probe(shard, durability).pipe(
        Effect.andThen(Effect.mapError(connection.send(["ping"], { idempotent: true }), fail("open"))),
        Effect.andThen(connection.confirm({ ...durability, timeoutMillis: checkMillis }))
      )
    }, { concurrency: "unbounded" })
    const fewest = Math.min(...found.map(({ replicas }) => replicas))
    if (fewest >= durability.replicas) return
    yield* Effect.logWarning(
      `rotif: durability asks for ${durability.replicas} replicas, and a server has ${fewest} that answer: publishing fails with ` +
        `DurabilityNotReached until there are more`
    )
  })

  /** Checks the commands that the messages need, where this process has not done so yet. */
  const probeAll = Effect.fnUntraced(function*(messages: ReadonlyArray<NewMessage>) {
    for (const { channel, durability } of messages) {
      if (durability === undefined || confirmed.has(durability.onDisk ? "waitaof" : "wait")) continue
      yield* probe(shardOf(channel), durability)
    }
  })

  /** Follows found messages of a shard by a write; returns the problem when that was not possible. */
  const follow = (connection: Connection, keys: Keys, found: ReadonlyArray<NewMessage>) =>
    Effect.match(
      connection.evaluate(
        confirmable,
        [
          ...new Set([
            keys.meta,
            ...found.flatMap(({ channel, due }) =>
              due === undefined ? [keys.log(channel)] : [keys.log(channel), keys.waiting, keys.bodies("", channel)]
            )
          ])
        ],
        []
      ),
      { onSuccess: () => undefined, onFailure: (error) => error.message }
    )

  /** Starts a durable publish: a route of its own, and the wait that follows the writes. */
  const begin = () => {
    const connections = new Map<number, DurableConnection>()
    const connect = (shard: number) => {
      let connection = connections.get(shard)
      if (connection === undefined) connections.set(shard, connection = durable(shard))
      return connection
    }
    const found = new Map<number, Set<NewMessage>>()
    const route: Route = {
      connectionOf: connect,
      onFound: (message) => {
        const shard = shardOf(message.channel)
        const some = found.get(shard)
        if (some === undefined) found.set(shard, new Set([message]))
        else some.add(message)
      }
    }

    /** Waits once for each shard and each kind of durability; returns the shortfall of each message that has one. */
    const confirm = Effect.fnUntraced(function*(
      messages: ReadonlyArray<NewMessage>,
      outcomes: ReadonlyArray<Appended>
    ): Effect.fn.Return<ReadonlyArray<Shortfall | undefined>> {
      const waits = new Map<string, { readonly shard: number; readonly durability: Durability }>()
      const names = messages.map(({ channel, durability }, i) => {
        if (durability === undefined || !isStored(outcomes[i]!)) return undefined
        const shard = shardOf(channel)
        const name = `${shard} ${keyOf(durability)}`
        waits.set(name, { shard, durability })
        return name
      })
      const problems = new Map<number, string>()
      yield* Effect.forEach(
        found,
        ([shard, some]) =>
          Effect.map(follow(connect(shard), keysOf(shard), [...some]), (problem) => {
            if (problem !== undefined) problems.set(shard, problem)
          }),
        { concurrency: "unbounded", discard: true }
      )
      const shortfalls = new Map<string, Shortfall>()
      yield* Effect.forEach(waits, ([name, { durability, shard }]) => {
        const problem = problems.get(shard)
        if (problem !== undefined) {
          return Effect.sync(() => void shortfalls.set(name, { replicas: 0, problem }))
        }
        return Effect.map(connect(shard).confirm(durability), ({ isReached, problem, replicas }) => {
          if (!isReached) shortfalls.set(name, { replicas, problem })
        })
      }, { concurrency: "unbounded", discard: true })
      return names.map((name) => name === undefined ? undefined : shortfalls.get(name))
    })

    return { route, confirm }
  }

  return { check, probeAll, begin }
}
