/** A publish with unknown outcome is searched for only when its lost connection can do nothing more. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { NewMessage } from "../../src/Broker.ts"
import * as Channels from "../../src/redisBroker/channels.ts"
import * as Keys from "../../src/redisBroker/keys.ts"
import { brokerError } from "../../src/redisBroker/brokerError.ts"
import * as RedisAppend from "../../src/redisBroker/publish/append.ts"
import { type Connection, RedisError } from "../../src/Redis.ts"

const lost = (command: string) => new RedisError({ reason: "ConnectionLost", command, message: "as the test wants it" })
const message: NewMessage = { id: "m-1", channel: "texts", payload: "x" }
const durable = { ...message, durability: { replicas: 1, onDisk: false, timeoutMillis: 1 } }

/** Connections that record their commands; those in `down` lose them. */
const setup = () => {
  const sent: Array<string> = []
  const down = new Set<string>()
  const noted = (name: string, what: string, reply: unknown) =>
    Effect.suspend(() => {
      sent.push(`${name} ${what}`)
      return down.has(name) ? Effect.fail(lost(what)) : Effect.succeed(reply)
    })
  const connection = (name: string): Connection => ({
    generation: () => 1,
    send: ([command]) => noted(name, command, command === "xadd" ? "2-0" : 1),
    pipeline: (commands) => noted(name, "pipeline", commands.map(() => "2-0")) as Effect.Effect<ReadonlyArray<unknown>>,
    evaluate: ({ name: script }, _, args) =>
      // The channel is always known: only its messages get lost.
      script === "createChannel" ? Effect.succeed("1-0") : noted(name, script, ["2-0", 1, 0, args[2], "2-0"])
  })
  const shared = connection("shared")
  const keys = Keys.make("rotif", 0)
  const shards = { all: [keys], keysOf: () => keys, shardOf: () => 0, connectionOf: () => shared, fail: brokerError }
  const channels = Channels.make(shards, { touch: () => {}, onFlush: Effect.void })
  const { append } = RedisAppend.make(shards, channels, {
    durable: () => ({ ...connection("durable"), confirm: () => Effect.succeed({ isReached: true, replicas: 1 }) }),
    graceMillis: 10_000
  })
  /** The outcome for the message, and the commands that were sent. */
  const publish = (one: NewMessage) => Effect.map(append([one]), ([outcome]) => [outcome!._tag, ...sent.splice(0)])
  return { down, publish }
}

describe("a publish that could not be decided", () => {
  it.effect("is searched for on another connection when the one it was lost on answers again", () =>
    Effect.gen(function*() {
      for (
        const [first, then, name, other] of [
          [durable, message, "durable", "shared"],
          [message, durable, "shared", "durable"]
        ] as const
      ) {
        const { down, publish } = setup()
        yield* publish({ ...durable, id: "the server has WAIT" })
        down.add(name)
        assert.deepStrictEqual(yield* publish(first), ["Uncertain", `${name} xadd`, `${name} search`])
        assert.deepStrictEqual(yield* publish(then), ["Uncertain", `${name} ping`])
        down.delete(name)
        assert.deepStrictEqual((yield* publish(then)).slice(0, 3), ["Stored", `${name} ping`, `${other} search`])
      }
    }))

  it.effect("is searched for at once on the same connection", () =>
    Effect.gen(function*() {
      const { down, publish } = setup()
      down.add("shared")
      assert.deepStrictEqual(yield* publish(message), ["Uncertain", "shared xadd", "shared search"])
      down.delete("shared")
      assert.deepStrictEqual(yield* publish(message), ["Stored", "shared search"])
    }))
})
