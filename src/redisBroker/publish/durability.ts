/**
 * Publishing what is to be durable on Redis: it is written on the connection that is waited on, and what was there already is followed
 * by a write, because Redis waits for nothing where a connection has only read.
 */
import { Effect } from "effect"
import type { Appended, Broker, Durability, NewMessage, Shortfall } from "../../Broker.ts"
import { BrokerError } from "../../Broker.ts"
import type { Connection, DurableConnection, RedisError } from "../../Redis.ts"
import type { Evidence } from "../evidence.ts"
import type { Keys } from "../keys.ts"
import { confirmable } from "../scripts/publish/confirmable.ts"
import type { Shards } from "../shards.ts"
import type { Way } from "./waiting.ts"

export interface Options {
  readonly durable: (shard: number) => DurableConnection
  readonly appendBy: (messages: ReadonlyArray<NewMessage>, way: Way) => Effect.Effect<ReadonlyArray<Appended>>
  /** What will tell of the message, if it is sent plainly. */
  readonly evidenceFor: (message: NewMessage) => Effect.Effect<Evidence, RedisError>
  /** A repetition of the message is to ask for it: by this, where it was sent plainly. */
  readonly remember: (message: NewMessage, evidence: Evidence) => void
}

const isStored = (appended: Appended): appended is Exclude<Appended, { readonly _tag: "Failed" | "Uncertain" }> =>
  appended._tag !== "Failed" && appended._tag !== "Uncertain"

/** Replicas that take longer at the start are missed there, which says no more than a warning. */
const checkMillis = 1_000

const keyOf = ({ onDisk, replicas, timeoutMillis }: Durability) => `${replicas} ${onDisk} ${timeoutMillis}`

export const make = (
  { all, connectionOf, fail, keysOf, shardOf }: Shards,
  { appendBy, durable, evidenceFor, remember }: Options
) => {
  const usual: Way = { connectionOf }
  /** What this process has found the server to know. */
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

  /** Sees whether a server has the command, without making it wait. */
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

  /** Follows what was found in a shard by a write; why that was not possible, if it was not. */
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
        [],
        { idempotent: true }
      ),
      { onSuccess: () => undefined, onFailure: (error) => error.message }
    )

  const appendDurably = Effect.fnUntraced(function*(
    messages: ReadonlyArray<NewMessage>
  ): Effect.fn.Return<ReadonlyArray<Appended>> {
    for (const { channel, durability } of messages) {
      if (durability === undefined || confirmed.has(durability.onDisk ? "waitaof" : "wait")) continue
      const probed = yield* Effect.result(probe(shardOf(channel), durability))
      // Nothing of it is stored: there would be no way to tell what is durable.
      if (probed._tag === "Failure") return messages.map(() => ({ _tag: "Failed", error: probed.failure }))
    }
    // Where a repetition has to begin to look; what is not known by now cannot be stored either.
    const evidence = yield* Effect.forEach(messages, (message) => Effect.result(evidenceFor(message)))
    const connections = new Map<number, DurableConnection>()
    const connect = (shard: number) => {
      let connection = connections.get(shard)
      if (connection === undefined) connections.set(shard, connection = durable(shard))
      return connection
    }
    const found = new Map<number, Set<NewMessage>>()
    const outcomes = yield* appendBy(messages, {
      connectionOf: connect,
      onFound: (message) => {
        const shard = shardOf(message.channel)
        const some = found.get(shard)
        if (some === undefined) found.set(shard, new Set([message]))
        else some.add(message)
      }
    })

    // One wait for each shard and each kind of durability.
    const waits = new Map<string, { readonly shard: number; readonly durability: Durability }>()
    const waitOf = (shard: number, durability: Durability) => `${shard} ${keyOf(durability)}`
    for (const [i, { channel, durability }] of messages.entries()) {
      if (durability === undefined || !isStored(outcomes[i]!)) continue
      const shard = shardOf(channel)
      waits.set(waitOf(shard, durability), { shard, durability })
    }
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
    if (shortfalls.size === 0) return outcomes

    return outcomes.map((outcome, i) => {
      const message = messages[i]!
      const { durability } = message
      if (durability === undefined || !isStored(outcome)) return outcome
      const shortfall = shortfalls.get(waitOf(shardOf(message.channel), durability))
      if (shortfall === undefined) return outcome
      const before = evidence[i]!
      if (before._tag === "Success") remember(message, before.success)
      return { ...outcome, shortfall }
    })
  })

  const append: Broker["Service"]["append"] = (messages) => {
    for (let i = 0; i < messages.length; i++) if (messages[i]!.durability !== undefined) return appendDurably(messages)
    return appendBy(messages, usual)
  }

  return { append, check }
}
