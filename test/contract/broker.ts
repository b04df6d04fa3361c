/** The port itself: leases, fencing, blocking reads. The other suites test it through subscriptions. */
import { describe } from "@effect/vitest"
import { portContract } from "rotif/testing"
import { type Backend, promises } from "./kit.ts"

export const brokerSuite = (backend: Backend): void => {
  const test = promises(backend)
  const cases = Map.groupBy(portContract(backend), ({ about }) => about)
  for (const [about, some] of cases) {
    describe(about, () => {
      for (const one of some) test(one.promises, one.check)
    })
  }
}
