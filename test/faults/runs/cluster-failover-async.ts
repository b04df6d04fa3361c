/** The master of a Cluster's channel is killed after its replica was cut off; publishes do not wait for the replica. */
import { failover, inCluster } from "../Failover.ts"

export default failover({
  number: 8,
  title: "Failover of a Cluster's master, replication cut off before, without `durability`",
  isDurable: false,
  faults: { short: 1, long: 3 },
  site: inCluster
})
