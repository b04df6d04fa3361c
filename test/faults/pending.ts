/** Pending messages of a consumer: Redis has delivered them, and they are not settled. A dead or frozen consumer holds them until others take over. */
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
