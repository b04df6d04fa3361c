/** What Redis has handed to a consumer, and what is not settled: a consumer that died or is frozen holds it until others take it over. */
import { Effect } from "effect"
import type { RedisServer } from "../fixtures/RedisServer.ts"

/** Of the streams that exist; in Redis the name of a consumer begins with the one it was given. */
export const pendingOf = (
  server: RedisServer,
  consumer: string,
  groups: ReadonlyArray<readonly [stream: string, group: string]>
) =>
  Effect.map(
    Effect.forEach(groups, ([stream, group]) =>
      server.command("xpending", stream, group, "-", "+", 10_000).pipe(
        Effect.map((reply) =>
          (reply as ReadonlyArray<readonly [position: string, consumer: string]>)
            .filter(([, name]) => name.startsWith(`${consumer}:`))
            .map(([position]) => `${group} ${stream} ${position}`)
        ),
        Effect.catchIf(({ message }) => message.startsWith("NOGROUP"), () => Effect.succeed([]))
      )),
    (found) => found.flat()
  )
