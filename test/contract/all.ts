/** Every feature suite: what is promised on each backend. */
import { describe } from "@effect/vitest"
import { acceptedSuite } from "./accepted.ts"
import { crashesSuite } from "./crashes.ts"
import { agreementSuite } from "./agreement.ts"
import { broadcastSuite } from "./broadcast.ts"
import { brokerSuite } from "./broker.ts"
import { capacitySuite } from "./capacity.ts"
import { deadLetterOffersSuite } from "./deadLetterOffers.ts"
import { deadLettersSuite } from "./deadLetters.ts"
import { deduplicationSuite } from "./deduplication.ts"
import { endsSuite } from "./ends.ts"
import { exactlyOnceSuite } from "./exactlyOnce.ts"
import { groupMetricsSuite } from "./groupMetrics.ts"
import type { Backend } from "./kit.ts"
import { healthSuite } from "./health.ts"
import { inspectorSuite } from "./inspector.ts"
import { leasesSuite } from "./leases.ts"
import { lifecycleSuite } from "./lifecycle.ts"
import { limitsSuite } from "./limits.ts"
import { middlewareSuite } from "./middleware.ts"
import { orderSuite } from "./order.ts"
import { preparedSuite } from "./prepared.ts"
import { publisherSuite } from "./publisher.ts"
import { recurringSuite } from "./recurring.ts"
import { reportsSuite } from "./reports.ts"
import { removalSuite } from "./removal.ts"
import { retriesSuite } from "./retries.ts"
import { runtimeValuesSuite } from "./runtimeValues.ts"
import { schedulingSuite } from "./scheduling.ts"
import { settlementSuite } from "./settlement.ts"
import { shippedMiddlewareSuite } from "./shippedMiddleware.ts"
import { sourcesSuite } from "./sources.ts"
import { scopesSuite } from "./scopes.ts"
import { statsSuite } from "./stats.ts"
import { streamsSuite } from "./streams.ts"
import { transactionSuite } from "./transaction.ts"
import { windowsSuite } from "./windows.ts"

const suites: ReadonlyArray<(backend: Backend) => void> = [
  brokerSuite,
  publisherSuite,
  orderSuite,
  sourcesSuite,
  settlementSuite,
  capacitySuite,
  lifecycleSuite,
  endsSuite,
  removalSuite,
  scopesSuite,
  streamsSuite,
  leasesSuite,
  crashesSuite,
  limitsSuite,
  agreementSuite,
  schedulingSuite,
  recurringSuite,
  exactlyOnceSuite,
  acceptedSuite,
  transactionSuite,
  deduplicationSuite,
  windowsSuite,
  broadcastSuite,
  retriesSuite,
  runtimeValuesSuite,
  deadLettersSuite,
  deadLetterOffersSuite,
  middlewareSuite,
  shippedMiddlewareSuite,
  preparedSuite,
  statsSuite,
  healthSuite,
  groupMetricsSuite,
  reportsSuite,
  inspectorSuite
]

export const runSuites = (backend: Backend): void => {
  describe(backend.name, () => {
    for (const suite of suites) suite(backend)
  })
}
