/** The contract of the port tells a backend that keeps it from one that does not. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer } from "effect"
import { Broker, MemoryBroker } from "rotif"
import * as Testing from "rotif/testing"
import { memoryBackend } from "../contract/kit.ts"

const cases = Testing.portContract(memoryBackend(() => Layer.empty as never))

/** The promises that a backend breaks. */
const broken = (layer: Layer.Layer<Broker.Broker>) =>
  Effect.map(
    Effect.forEach(cases, ({ check, promises }) =>
      Effect.map(
        Effect.exit(Effect.provide(Effect.scoped(check), layer, { local: true })),
        (exit) => Exit.isSuccess(exit) ? [] : [promises]
      )),
    (found) => found.flat()
  )

/** A memory broker whose members are not what they should be. */
const changed = (change: (member: Broker.Member) => Partial<Broker.Member>) =>
  Layer.effect(
    Broker.Broker,
    Effect.map(Broker.Broker, (broker) =>
      Broker.Broker.of({
        ...broker,
        join: (membership) => Effect.map(broker.join(membership), (member) => ({ ...member, ...change(member) }))
      }))
  ).pipe(Layer.provide(MemoryBroker.layer()))

describe("Testing.portContract", () => {
  it.effect("has no objection to the memory broker", () =>
    Effect.map(broken(MemoryBroker.layer()), (found) => assert.deepStrictEqual(found, [])))

  it.effect.each([
    {
      fault: "takes nothing over",
      change: () => ({ claim: () => Effect.succeed({ deliveries: [], nextInMillis: 1, vanished: 0, settings: [] }) }),
      promise: "claims no more than it is asked to, and says that there is more"
    },
    {
      fault: "acknowledges without a fence",
      change: (member: Broker.Member) => ({
        ack: (deliveries: ReadonlyArray<Broker.Delivery>) => Effect.as(member.ack(deliveries), [])
      }),
      promise: "gives an expired hand-out to the member that claims it, as a suspect, and refuses its first owner"
    },
    {
      fault: "cannot be woken",
      change: () => ({ wake: Effect.void }),
      promise: "waits until it is woken"
    }
  ])(
    "finds a backend that $fault",
    ({ change, promise }) => Effect.map(broken(changed(change)), (found) => assert.include(found, promise))
  )
})
