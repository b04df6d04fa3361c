/** The order of one call on Redis, when the server forgets the scripts between and under it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema } from "effect"
import { Channel, Publisher, Rotif } from "rotif"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { listen } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

describe("Publisher.publishAll when the server does not know the scripts", () => {
  it.live("stores in the order of the call", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      yield* Effect.gen(function*() {
        const past = new Date(0)
        const kinds = (
          i: number
        ): ReadonlyArray<Publisher.PublishOptions> => [{}, { id: `${i}` }, { at: past }, { id: `${i}`, at: past }]
        const texts = Array.from({ length: 40 }, (_, i) => `${i}`)
        for (let round = 0; round < 3; round++) {
          yield* server.command("script", "flush")
          yield* Publisher.publishAll(Text, texts, (_, i) => kinds(round * 100 + i)[(i * 7) % 4]!)
        }
        const { seen } = yield* listen(Text)
        const messages = yield* Queue.takeN(seen, 120)
        assert.deepStrictEqual(messages.map(({ payload }) => payload), [...texts, ...texts, ...texts])
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: server.url, drainTimeout: 1000 })))
    }))
})
