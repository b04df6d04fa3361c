/** How long handlers take: a histogram of fixed size, whose quantiles are right to within 1 %. */
import { createHistogram } from "node:perf_hooks"

/** The times of handlers in one process. Quantiles are in milliseconds. */
export interface Processing {
  /** The number of timed messages: the first 1,000, then every eighth. */
  readonly count: number
  readonly p50Millis: number
  readonly p90Millis: number
  readonly p99Millis: number
  readonly maxMillis: number
}

/** Longer spans count as this one: 71 minutes, in nanoseconds. */
const longest = 4_294_967_295_000

export class HandlerTimes {
  readonly #spans = createHistogram({ lowest: 1_000, highest: longest, figures: 2 })
  // The histogram rounds what it holds, its maximum too.
  #most = 0

  /** Records a span in nanoseconds. */
  record(nanos: number): void {
    this.#spans.record(Math.min(Math.max(1, Math.round(nanos)), longest))
    if (nanos > this.#most) this.#most = nanos
  }

  get summary(): Processing | undefined {
    const { count } = this.#spans
    if (count === 0) return undefined
    const quantile = (percent: number) => Math.min(this.#spans.percentile(percent), this.#most) / 1e6
    return {
      count,
      p50Millis: quantile(50),
      p90Millis: quantile(90),
      p99Millis: quantile(99),
      maxMillis: this.#most / 1e6
    }
  }

  reset(): void {
    this.#spans.reset()
    this.#most = 0
  }
}
