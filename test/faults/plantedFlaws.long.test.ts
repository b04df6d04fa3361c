/** The account of ordering keys is worth something: each flaw that is planted into their rules is found by the run that finds none without it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { type Flaw, flaws } from "./flaws.ts"
import { kinds, run } from "./ordering.ts"

/** The faults that show the flaw. */
const shownBy: Readonly<Record<Flaw, ReadonlyArray<(typeof kinds)[number]>>> = {
  noGapLook: [],
  noStamp: ["stop", "stop", "stop"],
  noLook: ["stop", "stop", "stop"],
  blindResend: ["lost reply", "lost reply", "lost reply"],
  freesOthers: ["stop", "stop", "stop"],
  handlesWaiting: []
}

const violationsWith = (flaw: Flaw) =>
  Effect.runPromise(
    run({ keys: 40, batches: 60, batch: 50, handlerMillis: 100, faults: shownBy[flaw], flaw }).pipe(
      Effect.scoped,
      Random.withSeed(Math.floor(Math.random() * 2 ** 30)),
      Effect.map(({ violations }) => violations.filter((text) => text.startsWith("order: ")))
    )
  )

describe("a planted flaw is found:", () => {
  for (const flaw of Object.keys(flaws) as Array<Flaw>) {
    it(`${flaws[flaw]} (${flaw})`, async () => {
      // Whether a fault hits the moment that shows it is a matter of chance.
      const found: Array<string> = []
      for (let i = 0; i < 3 && found.length === 0; i++) found.push(...(await violationsWith(flaw)))
      assert.isNotEmpty(found)
    }, 300_000)
  }
})
