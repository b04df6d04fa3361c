/**
 * The fault runs that `npm test` plays: one of each kind, among the shortest of it. `npm run test:long` plays the others, whose rules
 * are also shown by quicker tests:
 *
 * | run | is shown in `npm test` by |
 * | --- | --- |
 * | `kill-processes`, `consumer-stopped` | `redis/processes.test.ts`, `contract/crashes.ts` |
 * | `transactions` | `redis/outbox.test.ts`, `contract/transaction.ts` |
 * | `state-lost`, `slot-migration`, `redis-stopped` | `redis/faults.test.ts`, `redis/Redis.test.ts` |
 * | `network`, `network-cluster` | `redis/faults.test.ts`, on a Cluster too. Beside the whole suite its recoveries would be those of a starved machine |
 * | `data-removed` | `contract/removal.ts`, `redis/faults.test.ts` |
 * | `cluster-failover-async`, `sentinel-failover`, `sentinel-failover-async` | `cluster-failover`, `redis/sentinel.test.ts` |
 * | `start-errors` | `redis/silence.test.ts`, `redis/credentials.test.ts`, `redis/permissions.test.ts` |
 * | `two-worlds` | `redis/worlds.test.ts` |
 * | `poison`, `hung` | `contract/crashes.ts` |
 * | `memory-full-due` | `out-of-memory`, `scripts/whole.test.ts` |
 * | `lost-answer-windows`, `huge-search` | `redis/lost-answers.test.ts`, `redis/huge.test.ts` |
 * | `limits-deploy` | `redis/limits.test.ts`, `contract/limits.ts` |
 * | `hostile-data` | `redis/faults.test.ts`, `redis/huge.test.ts`, `scripts/deadLetters.test.ts` |
 * | `end-from-inside` | `contract/ends.ts`, `contract/promiseEnds.ts` |
 * | `ordering` | `contract/ordering.ts`, `contract/orderingPort.ts`, `scripts/ordering.test.ts` |
 * | `wrong-clock` | `contract/retries.ts`, `redis/outbox.test.ts` |
 * | `batches` | `contract/batches.ts` |
 * | `soak` | all of these together |
 */
export const representative: ReadonlySet<string> = new Set([
  "redis-restart",
  "out-of-memory",
  "cluster-failover",
  "hostile-handlers"
])
