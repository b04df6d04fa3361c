/** A proxy between the program and a standalone Redis, for every way a network fails. */
import { Effect } from "effect"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as TcpProxy from "../../fixtures/TcpProxy.ts"
import * as Network from "../network.ts"
import type { Run } from "../Run.ts"

export default {
  number: 5,
  title: "Network: cuts, lost answers, half-open, 1 % dropped, slow",
  recoveryWithin: Network.recoveryWithin,
  body: Network.body(Effect.gen(function*() {
    const server = yield* RedisServer.make()
    const proxy = yield* TcpProxy.make(server)
    return { proxies: [proxy], through: { url: proxy.url }, direct: { url: server.url } }
  }))
} satisfies Run
