/**
 * How long things took: a histogram of fixed size on a logarithmic scale, so that recording is a few instructions and quantiles are
 * right to within 3 %.
 */

/** Steps between two powers of two. */
const steps = 16
const buckets = 32 * steps

/** What was measured. Quantiles are in milliseconds. */
export interface Processing {
  /** How many were timed: the first 1,000, then one in eight. */
  readonly count: number
  readonly p50Millis: number
  readonly p90Millis: number
  readonly p99Millis: number
  readonly maxMillis: number
}

export class HandlerTimes {
  private readonly counts = new Float64Array(buckets)
  private count = 0
  private most = 0

  /** Takes a span in nanoseconds; up to 71 minutes are told apart. */
  record(nanos: number): void {
    const micros = Math.min(nanos / 1000, 0xffffffff) >>> 0
    const power = 31 - Math.clz32(micros | 1)
    // Below 16 µs every microsecond has a bucket; above, the four bits behind the highest one choose it.
    const index = power < 4 ? micros : (power - 3) * steps + ((micros >>> (power - 4)) & (steps - 1))
    this.counts[index]!++
    this.count++
    if (nanos > this.most) this.most = nanos
  }

  private quantile(part: number): number {
    const rank = Math.max(1, Math.ceil(this.count * part))
    let seen = 0
    for (let index = 0; index < buckets; index++) {
      seen += this.counts[index]!
      if (seen >= rank) {
        const power = index < steps ? 0 : Math.floor(index / steps) - 1
        const low = index < steps ? index : (steps + (index % steps)) * 2 ** power
        // The middle of the bucket, but nothing that was never seen.
        return Math.min((low + 2 ** power / 2) / 1000, this.most / 1e6)
      }
    }
    return 0
  }

  get summary(): Processing | undefined {
    if (this.count === 0) return undefined
    return {
      count: this.count,
      p50Millis: this.quantile(0.5),
      p90Millis: this.quantile(0.9),
      p99Millis: this.quantile(0.99),
      maxMillis: this.most / 1e6
    }
  }

  reset(): void {
    this.counts.fill(0)
    this.count = 0
    this.most = 0
  }
}
