/**
 * Pub/Sub mode on Redis.
 *
 * Each channel is a Pub/Sub channel of its own. On a Cluster it is a sharded one, which patterns cannot subscribe to: there each message
 * also goes to a second channel, one for the whole shard, on which patterns listen. `pattern.ts` decides what a pattern matches; Redis
 * only narrows down the messages that are sent here.
 */
import { Effect } from "effect"
import type { Command, Connection, Redis } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import type { BroadcastMessage, BroadcastPort } from "../broker/broadcast.ts"
import { matcherOf } from "../internal/pattern.ts"
import { messagesPerWrite, portioned } from "./batches.ts"
import * as Wire from "./broadcastWire.ts"
import type { Keys } from "./keys.ts"
import type { Shards } from "./shards.ts"

export const make = ({ all, connectionOf, fail, keysOf, shardOf }: Shards, redis: Redis["Service"]): BroadcastPort => {
  const failed = fail("broadcast")
  const isSharded = redis.mode === "cluster"

  const commandsFor = (cast: BroadcastMessage, keys: Keys, text: string): ReadonlyArray<Command> =>
    isSharded
      ? [["spublish", keys.broadcast(cast.channel), text], ["spublish", keys.broadcasts, text]]
      : [["publish", keys.broadcast(cast.channel), text]]

  const write = (connection: Connection, commands: ReadonlyArray<Command>) =>
    Effect.flatMap(connection.pipeline(commands), (replies) => {
      const refused = replies.find((reply) => reply instanceof RedisError)
      return refused === undefined ? Effect.void : Effect.fail(refused)
    })

  const publishAll = Effect.fnUntraced(function*(casts: ReadonlyArray<BroadcastMessage>) {
    const shard = shardOf(casts[0]!.channel)
    const texts = casts.map((cast) => ({ cast, payload: Wire.encode(cast) }))
    for (const some of portioned(texts, messagesPerWrite)) {
      yield* write(connectionOf(shard), some.flatMap(({ cast, payload }) => commandsFor(cast, keysOf(shard), payload)))
    }
  })

  const publishOne = (cast: BroadcastMessage) => {
    const shard = shardOf(cast.channel)
    const commands = commandsFor(cast, keysOf(shard), Wire.encode(cast))
    return commands.length === 1
      ? Effect.asVoid(connectionOf(shard).send(commands[0]!, { idempotent: false }))
      : write(connectionOf(shard), commands)
  }

  return {
    publish: (casts) =>
      casts.length === 0
        ? Effect.void
        : Effect.mapError(casts.length === 1 ? publishOne(casts[0]!) : publishAll(casts), failed),
    listen: (selector, handler) => {
      const matches = matcherOf(selector)
      const listen = (names: ReadonlyArray<string>, command: "subscribe" | "psubscribe" | "ssubscribe") =>
        redis.listen(names, {
          onMessage: (topic, text) => {
            const cast = Wire.decode(text)
            if (cast === undefined) handler.onMalformed(topic)
            else if (matches(cast.channel)) handler.onMessage(cast)
          },
          onGap: handler.onGap
        }, command)
      if (selector._tag === "Channels") {
        const names = selector.names.map((name) => keysOf(shardOf(name)).broadcast(name))
        return Effect.mapError(listen(names, isSharded ? "ssubscribe" : "subscribe"), failed)
      }
      if (isSharded) return Effect.mapError(listen(all.map((keys) => keys.broadcasts), "ssubscribe"), failed)
      const globs = (pattern: string) => listen(all.map((keys) => keys.broadcastGlob(pattern)), "psubscribe")
      return globs(selector.pattern).pipe(
        // An ACL permits a glob only as it is written, so it can only name the one glob that serves every pattern.
        Effect.catchIf((error) => error.reason === "Refused", () => globs("**")),
        Effect.mapError(failed)
      )
    }
  }
}
