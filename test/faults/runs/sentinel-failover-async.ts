/** A master that Sentinels watch is killed after its replica was cut off; publishes do not wait for the replica. */
import { failover, withSentinels } from "../Failover.ts"

export default failover({
  number: 8,
  title: "Sentinel failover, replication cut off before, without `durability`",
  isDurable: false,
  faults: { short: 1, long: 3 },
  site: withSentinels
})
