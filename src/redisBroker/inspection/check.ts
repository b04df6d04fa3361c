/**
 * The tools of the checks of one shard: bounded reads that pass over a key of a wrong type, and suspects that a script confirms.
 */
import { Effect, Option, Stream } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Command, Connection, Script } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import type { Finding, Page, Suspect } from "../../broker/inspection.ts"
import type { Keys } from "../keys.ts"
import { millisOfTime } from "../replies.ts"

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

  return { keys, ask, run, report, suspect, now }
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

export const isPosition = (text: string): boolean => /^\d{1,16}-\d{1,20}$/.test(text)

/** The groups of a stream, by the reply of XINFO GROUPS; none if there is no stream. */
export const groupsIn = (
  reply: unknown
): ReadonlyMap<string, { readonly pending: number; readonly at: string }> =>
  new Map((Array.isArray(reply) ? reply as ReadonlyArray<ReadonlyArray<unknown>> : []).map((flat) => {
    const valueOf = (name: string) => flat[flat.indexOf(name) + 1]
    return [String(flat[1]), { pending: Number(valueOf("pending")), at: String(valueOf("last-delivered-id")) }]
  }))
