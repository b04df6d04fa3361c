/**
 * Reports the progress of groups as metrics. Every process of a namespace may run one; a lease in the backend decides which of them reports, so
 * that no group is counted twice.
 */
import { Effect, Metric } from "effect"
import type { Broker } from "../Broker.ts"
import { Attribute, MetricName, system } from "../Telemetry.ts"
import type { ChannelStats } from "../broker/statistics.ts"
import { supervise } from "../internal/supervise.ts"

type Value = "Lag" | "Pending" | "Ready" | "Due" | "DeadLetters" | "OldestAge"
type Values = Readonly<Record<Value, number | undefined>>

const gauges: Readonly<Record<Value, Metric.Metric<number, unknown>>> = {
  Lag: Metric.gauge(MetricName.GroupLag, { description: "Messages that were not handed out to the group yet" }),
  Pending: Metric.gauge(MetricName.GroupPending, { description: "Messages handed out and not settled" }),
  Ready: Metric.gauge(MetricName.GroupReady, { description: "Messages ready again and not handed out yet" }),
  Due: Metric.gauge(MetricName.GroupDue, { description: "Messages that wait for the time of their retry" }),
  DeadLetters: Metric.gauge(MetricName.GroupDeadLetters, { description: "Dead letters that are there" }),
  OldestAge: Metric.gauge(MetricName.GroupOldestAge, {
    description: "How old the oldest message is that is not settled",
    attributes: { unit: "s" }
  })
}

const none: Values = { Lag: 0, Pending: 0, Ready: 0, Due: 0, DeadLetters: 0, OldestAge: 0 }

/** At most this many groups are reported: a registered metric stays for ever. */
const mostGroups = 1_000

/** The values of each group over all channels. An unknown lag is not reported. */
const valuesOf = (channels: ReadonlyArray<ChannelStats>): ReadonlyMap<string, Values> => {
  const sums = new Map<string, Values>()
  for (const { dead, due, group, lag, oldestMillis, pending, ready } of channels.flatMap(({ groups }) => groups)) {
    const sum = sums.get(group) ?? none
    sums.set(group, {
      Lag: lag === undefined || sum.Lag === undefined ? undefined : sum.Lag + lag,
      Pending: sum.Pending! + pending,
      Ready: sum.Ready! + ready,
      Due: sum.Due! + due,
      DeadLetters: sum.DeadLetters! + dead,
      OldestAge: Math.max(sum.OldestAge!, (oldestMillis ?? 0) / 1_000)
    })
  }
  return sums
}

export const run = (
  broker: Broker["Service"],
  intervalMillis: number,
  namespace: string | undefined
): Effect.Effect<never> =>
  Effect.suspend(() => {
    const common = {
      [Attribute.System]: system,
      ...(namespace === undefined ? {} : { [Attribute.Namespace]: namespace })
    }
    const told = new Set<string>()
    const tell = (group: string, values: Values) =>
      Effect.forEach(Object.entries(values), ([name, value]) =>
        value === undefined ? Effect.void : Metric.update(
          Metric.withAttributes(gauges[name as Value], { ...common, [Attribute.Group]: group }),
          value
        ), { discard: true })

    const look = Effect.gen(function*() {
      const leads = yield* broker.stats.lead(2 * intervalMillis + 5_000)
      const found = leads
        ? valuesOf(yield* broker.stats.read({ _tag: "Pattern", pattern: "**" }))
        : new Map<string, Values>()
      // The values of a removed group, or of one that another process reports now, must not stay.
      for (const group of told) if (!found.has(group)) yield* tell(group, none)
      for (const [group, values] of found) {
        if (!told.has(group) && told.size >= mostGroups) continue
        told.add(group)
        yield* tell(group, values)
      }
      yield* Effect.sleep(intervalMillis)
    })
    return Effect.onExit(supervise("reporting metrics of groups", look), () =>
      Effect.forEach(told, (group) => tell(group, none), { discard: true }))
  })
