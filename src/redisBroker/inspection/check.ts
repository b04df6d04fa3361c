/**
 * The tools of the checks of one shard: bounded reads that pass over a key of a wrong type, and suspects that a script confirms.
 */
import { Effect, Option, Stream } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Command, Connection, Script } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import type { Finding, Page, Suspect } from "../../broker/inspection.ts"
import type { Keys } from "../keys.ts"
import { waitingMember } from "../keys.ts"
import { millisOfTime, pairsOf } from "../replies.ts"

/** Commands in one pipeline. */
const commandsPerCall = 500

/** A wrong type or a missing group. It has a finding of its own, so it does not stop the walk. */
export const isElsewhere = (error: RedisError) => error.reason === "NoGroup" || error.message.startsWith("WRONGTYPE")

export const make = (
  keys: Keys,
  connection: Connection,
  fail: (error: RedisError) => BrokerError
) => {
  /** Replies in order; `undefined` where a key has a wrong type or a stream has no such group. */
  const ask = Effect.fnUntraced(function*(
    commands: ReadonlyArray<Command>
  ): Effect.fn.Return<ReadonlyArray<unknown>, BrokerError> {
    const out: Array<unknown> = []
    for (let i = 0; i < commands.length; i += commandsPerCall) {
      const replies = yield* Effect.mapError(connection.pipeline(commands.slice(i, i + commandsPerCall)), fail)
      for (const reply of replies) {
        if (!(reply instanceof RedisError)) out.push(reply)
        else if (isElsewhere(reply)) out.push(undefined)
        else return yield* Effect.fail(fail(reply))
      }
    }
    return out
  })

  const run = (
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Effect.Effect<unknown, BrokerError> =>
    connection.evaluate(script, keys, args).pipe(
      Effect.catchIf(isElsewhere, () => Effect.succeed(undefined)),
      Effect.mapError(fail)
    )

  /** A suspect that is confirmed, and repaired, by other means than a script. */
  const report = (
    finding: Omit<Finding, "shard">,
    confirm: Suspect["confirm"],
    repair?: Suspect["repair"]
  ): Suspect => ({ finding: { shard: keys.shard, ...finding }, confirm, repair })

  /**
   * A suspect that a script confirms. If the finding has a repair, the same script does it, with `repair` for its first argument; or
   * `repair` does, after the script has confirmed the suspect.
   */
  const suspect = (
    finding: Omit<Finding, "shard">,
    script: Script,
    names: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>,
    repair?: Effect.Effect<unknown, BrokerError>
  ): Suspect => {
    const step = (name: "check" | "repair") => run(script, names, [name, ...args])
    return report(
      finding,
      Effect.map(step("check"), (reply) => reply === 1 || reply === 2),
      finding.repair === undefined
        ? undefined
        : repair === undefined
        ? Effect.map(step("repair"), (reply) => reply === 1)
        : Effect.flatMap(step("check"), (reply) => reply === 1 ? Effect.as(repair, true) : Effect.succeed(false))
    )
  }

  /** The server's clock, in ms. */
  const now = Effect.map(ask([["time"]]), ([time]) => millisOfTime(time))

  /** Whether the score of a member is a time that has passed, by more than the tolerance. */
  const isOverdue = (key: string, member: string, toleranceMillis: number): Effect.Effect<boolean, BrokerError> =>
    Effect.map(
      ask([["zscore", key, member], ["time"]]),
      ([score, time]) => typeof score === "string" && Number(score) <= millisOfTime(time) - toleranceMillis
    )

  /** Whether each of these messages waits for a retry of its group, and whether it is handed out to the group in the log. */
  const statesOf = (
    messages: ReadonlyArray<{ readonly group: string; readonly channel: string; readonly origin: string }>
  ): Effect.Effect<ReadonlyArray<{ readonly waits: boolean; readonly isLeased: boolean }>, BrokerError> =>
    Effect.map(
      ask(messages.flatMap(({ channel, group, origin }): ReadonlyArray<Command> => [
        ["zscore", keys.waiting, waitingMember(group, channel, origin)],
        ["xpending", keys.log(channel), group, origin, origin, 1]
      ])),
      (replies) =>
        messages.map((_, i) => ({
          waits: typeof replies[2 * i] === "string",
          isLeased: ((replies[2 * i + 1] ?? []) as ReadonlyArray<unknown>).length > 0
        }))
    )

  /** Walks through a hash or a sorted set, in pages of about `size` names and their values. */
  const scan = (
    command: "hscan" | "zscan",
    key: string,
    size: number,
    step: (some: ReadonlyArray<readonly [name: string, value: string]>) => Effect.Effect<Page, BrokerError>
  ): Stream.Stream<Page, BrokerError> =>
    paged(
      "0",
      Effect.fnUntraced(function*(cursor) {
        const [reply] = yield* ask([[command, key, cursor, "COUNT", size]])
        const [next, flat] = (reply ?? ["0", []]) as readonly [string, ReadonlyArray<string>]
        const page = yield* step(pairsOf(flat))
        return [page, next === "0" ? undefined : next] as const
      })
    )

  return { keys, ask, run, report, suspect, now, isOverdue, statesOf, scan }
}

export type Checks = ReturnType<typeof make>

/** Steps that follow each other: each makes a page, and gives the state from which the next one goes on. */
export const paged = <S>(
  start: S,
  step: (state: S) => Effect.Effect<readonly [page: Page, next: S | undefined], BrokerError>
): Stream.Stream<Page, BrokerError> =>
  Stream.paginate(
    start,
    (state: S) => Effect.map(step(state), ([page, next]) => [[page], Option.fromUndefinedOr(next)] as const)
  )

/** One step for each chunk of a list. */
export const chunks = <A>(
  items: ReadonlyArray<A>,
  size: number,
  step: (chunk: ReadonlyArray<A>) => Effect.Effect<Page, BrokerError>
): Stream.Stream<Page, BrokerError> =>
  items.length === 0 ? Stream.empty : paged(0, (from) =>
    Effect.map(step(items.slice(from, from + size)), (page) => [
      page,
      from + size < items.length ? from + size : undefined
    ]))
