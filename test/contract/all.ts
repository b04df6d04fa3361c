/** The contract: every feature suite, which runs on each backend. */
import { describe } from "@effect/vitest"
import { acceptedSuite } from "./accepted.ts"
import { crashesSuite } from "./crashes.ts"
import { agreementSuite } from "./agreement.ts"
import { batchesSuite } from "./batches.ts"
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
import { groupsSuite } from "./groups.ts"
import { healthSuite } from "./health.ts"
import { inspectorSuite } from "./inspector.ts"
import { leasesSuite } from "./leases.ts"
import { lifecycleSuite } from "./lifecycle.ts"
import { limitsSuite } from "./limits.ts"
import { middlewareSuite } from "./middleware.ts"
import { orderSuite } from "./order.ts"
import { orderingSuite } from "./ordering.ts"
import { orderingPortSuite } from "./orderingPort.ts"
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

/** The suites by what they are about, so that each part of the contract can run in a file of its own. */
const parts = {
  publishing: [
    brokerSuite,
    publisherSuite,
    orderSuite,
    schedulingSuite,
    recurringSuite,
    acceptedSuite,
    transactionSuite,
    exactlyOnceSuite,
    deduplicationSuite,
    windowsSuite,
    broadcastSuite
  ],
  consuming: [
    sourcesSuite,
    settlementSuite,
    batchesSuite,
    capacitySuite,
    orderingSuite,
    lifecycleSuite,
    endsSuite,
    removalSuite,
    scopesSuite,
    streamsSuite
  ],
  crashes: [leasesSuite, orderingPortSuite, crashesSuite, limitsSuite, agreementSuite],
  failures: [retriesSuite, deadLettersSuite, deadLetterOffersSuite],
  operations: [statsSuite, groupsSuite, healthSuite, groupMetricsSuite, inspectorSuite],
  // Above the port: on a Cluster these run no code that they do not run on one Redis.
  program: [runtimeValuesSuite, reportsSuite, middlewareSuite, shippedMiddlewareSuite, preparedSuite]
} satisfies Readonly<Record<string, ReadonlyArray<(backend: Backend) => void>>>

/** Declares one part of the contract on a backend; without a part, all of it. */
export const runSuites = (backend: Backend, part?: keyof typeof parts): void => {
  describe(backend.name, () => {
    for (const suite of part === undefined ? Object.values(parts).flat() : parts[part]) suite(backend)
  })
}
