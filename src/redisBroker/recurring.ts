/**
 * Recurring messages on Redis: a sorted set of keys by their next tick, and a hash of their definitions: recurrence, channel, and the
 * body of the message, with line feeds between them.
 *
 * A definition is in the shard of its channel. When a key moves to a channel of another shard, the new definition first replaces the old one in
 * the old shard, where it does not tick. If the process dies then, the process that finds it due moves it to its shard. So it neither ticks
 * twice nor ends.
 */
import { Effect } from "effect"
import type { BrokerError, NewMessage } from "../Broker.ts"
import type { RedisError } from "../Redis.ts"
import type { Recurring, RecurringStore } from "../broker/recurring.ts"
import * as Entry from "./entry.ts"
import { millisOfTime } from "./replies.ts"
import { dueTicks } from "./scripts/recurring/dueTicks.ts"
import { publishTicks } from "./scripts/recurring/publishTicks.ts"
import { removeRecurring } from "./scripts/recurring/removeRecurring.ts"
import { upsertRecurring } from "./scripts/recurring/upsertRecurring.ts"
import type { Shards } from "./shards.ts"

/** At most this many definitions are read in one command. */
const page = 500

/** `introduce` registers a channel, with its limits, and creates its log. */
export const make = (
  { all, connectionOf, fail, keysOf, shardOf }: Shards,
  introduce: (channel: Pick<NewMessage, "channel" | "limits">) => Effect.Effect<unknown, RedisError>,
  waitForTick: (shard: number) => Effect.Effect<void>
): RecurringStore => {
  const removeFrom = (shard: number, key: string, definition = "") => {
    const keys = keysOf(shard)
    return Effect.map(
      connectionOf(shard).evaluate(removeRecurring, [keys.ticks, keys.recurring], [key, definition]),
      (reply) => reply === 1
    )
  }

  const define = (
    shard: number,
    key: string,
    head: string,
    body: string,
    nextAtMillis: number,
    how: "set" | "replace" | "keep"
  ) => {
    const keys = keysOf(shard)
    return Effect.map(
      connectionOf(shard).evaluate(upsertRecurring, [keys.recurring, keys.ticks], [
        keys.events,
        key,
        head,
        body,
        nextAtMillis,
        how
      ]),
      String
    )
  }

  /** Moves a definition to the shard of its channel: the process that defined it died in between. */
  const bringHome = Effect.fnUntraced(function*(shard: number, key: string, channel: string, nextAtMillis: number) {
    const definition = yield* connectionOf(shard).send(["hget", keysOf(shard).recurring, key], { idempotent: true })
    if (typeof definition !== "string") return
    const head = definition.indexOf("\n", definition.indexOf("\n") + 1)
    yield* introduce({ channel })
    yield* define(
      shardOf(channel),
      key,
      definition.slice(0, head),
      definition.slice(head + 1),
      nextAtMillis,
      "keep"
    )
    yield* removeFrom(shard, key, definition)
  })

  const due: RecurringStore["due"] = Effect.fnUntraced(function*(shard, limit) {
    const keys = keysOf(shard)
    const [now, wait, ...rest] =
      (yield* connectionOf(shard).evaluate(dueTicks, [keys.ticks, keys.recurring], [limit])) as readonly [
        string,
        number,
        ...ReadonlyArray<string>
      ]
    const found: Array<Pick<Recurring, "key" | "channel" | "recurrence" | "nextAtMillis">> = []
    for (let i = 0; i < rest.length; i += 3) {
      const key = rest[i]!
      const [recurrence = "", channel = ""] = rest[i + 2]!.split("\n")
      if (channel !== "" && shardOf(channel) !== shard) {
        yield* bringHome(shard, key, channel, Number(rest[i + 1]))
      } else if (channel !== "") {
        found.push({ key, channel, recurrence, nextAtMillis: Number(rest[i + 1]) })
      } else {
        yield* Effect.logError(`rotif: the recurring message "${key}" had no readable definition and was removed`)
      }
    }
    return { nowMillis: Number(now), ticks: found, nextInMillis: wait < 0 ? undefined : wait }
  }, Effect.mapError((error: RedisError): BrokerError => fail("ticks")(error)))

  const advance: RecurringStore["advance"] = Effect.fnUntraced(function*(shard, advance) {
    const keys = keysOf(shard)
    while (true) {
      const reply = yield* connectionOf(shard).evaluate(
        publishTicks,
        [
          keys.ticks,
          keys.recurring,
          keys.log(advance.channel),
          ...advance.messages.map(({ window }) => keys.seen(advance.channel, window.key))
        ],
        [
          advance.key,
          advance.recurrence,
          advance.fromMillis,
          advance.nextAtMillis,
          ...advance.messages.flatMap(({ id, window }) => [id, window.millis])
        ]
      )
      if (reply !== -1) return reply === 1
      yield* introduce(advance)
    }
  }, Effect.mapError((error: RedisError): BrokerError => fail("tick")(error)))

  const list: RecurringStore["list"] = Effect.fnUntraced(function*(shard) {
    const keys = keysOf(shard)
    const connection = connectionOf(shard)
    const order = (yield* connection.send(["zrange", keys.ticks, 0, -1, "WITHSCORES"], {
      idempotent: true
    })) as ReadonlyArray<string>
    const out: Array<Recurring> = []
    for (let i = 0; i < order.length; i += 2 * page) {
      const slice = order.slice(i, i + 2 * page)
      const names = slice.filter((_, j) => j % 2 === 0)
      const definitions = (yield* connection.send(["hmget", keys.recurring, ...names], {
        idempotent: true
      })) as ReadonlyArray<string | null>
      for (const [j, key] of names.entries()) {
        const definition = definitions[j] ?? ""
        const a = definition.indexOf("\n")
        const b = definition.indexOf("\n", a + 1)
        const body = b < 0 ? undefined : Entry.decodeBody(definition.slice(b + 1))
        if (body === undefined) continue
        out.push({
          key,
          recurrence: definition.slice(0, a),
          channel: definition.slice(a + 1, b),
          payload: body.payload,
          headers: body.headers ?? Entry.none,
          params: body.params ?? Entry.none,
          expiresInMillis: body.expiresInMillis,
          orderingKey: body.orderingKey,
          nextAtMillis: Number(slice[2 * j + 1])
        })
      }
    }
    return out
  }, Effect.mapError((error: RedisError): BrokerError => fail("list")(error)))

  return {
    nowMillis: (shard) =>
      connectionOf(shard).send(["time"], { idempotent: true }).pipe(
        Effect.map(millisOfTime),
        Effect.mapError(fail("time"))
      ),
    upsert: (definition, nextAtMillis) =>
      Effect.gen(function*() {
        const { channel, key, recurrence } = definition
        const shard = shardOf(channel)
        const head = `${recurrence}\n${channel}`
        const body = Entry.encodeBody(definition)
        // The key may have had a channel of another shard before.
        const former = yield* Effect.filter(
          all.filter((other) => other.shard !== shard),
          (other) => Effect.map(define(other.shard, key, head, body, nextAtMillis, "replace"), (next) => next !== ""),
          { concurrency: 16 }
        )
        yield* introduce(definition)
        const next = yield* define(shard, key, head, body, nextAtMillis, "set")
        yield* Effect.forEach(former, (other) => removeFrom(other.shard, key, `${head}\n${body}`), { discard: true })
        return Number(next)
      }).pipe(Effect.mapError(fail("recur"))),
    remove: (key) =>
      Effect.forEach(all, ({ shard }) => removeFrom(shard, key), { concurrency: 16 }).pipe(
        Effect.map((removed) => removed.includes(true)),
        Effect.mapError(fail("forget"))
      ),
    list,
    due,
    advance,
    awaitChange: waitForTick
  }
}
