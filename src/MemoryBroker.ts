import { Effect, Layer } from "effect"
import { Broker } from "./Broker.ts"
export const layer: Layer.Layer<Broker> = Layer.effect(
  Broker,
  Effect.die("placeholder while the memory broker is being written")
)
