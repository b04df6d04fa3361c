/**
 * Random histories: programs that use Rotif, as data. A seed alone makes a history, so that it can be repeated. Each of its steps can be
 * left out, so that a history with a difference can be made smaller.
 */
import { Effect, Random } from "effect"

/** The plan of a handler for a message: one action for each delivery. */
export const actions = [
  "ok",
  "fail",
  "fatal",
  "die",
  "nack",
  "release",
  "term",
  "ack-then-fail",
  "interrupt"
] as const
export type Action = (typeof actions)[number]

export interface Content {
  /** Counts up within a history. */
  readonly n: number
  readonly plan: ReadonlyArray<Action>
}

export const channels = ["a.one", "a.two", "b.one", "capped"] as const
export type ChannelName = (typeof channels)[number] | "users.:user.notes"

export interface Publish {
  readonly channel: ChannelName
  readonly content: Content
  readonly id?: string
  readonly deduplicate?: true
  readonly throttle?: string
  readonly debounce?: string
  /** `short`: the history waits for it. `long`: it is not due within the history. `past`: it was due before. */
  readonly when?: "short" | "long" | "past"
  readonly expires?: "short" | "long"
  readonly headers?: true
  /** Its payload does not fit the schema of its channel. */
  readonly malformed?: true | undefined
}

export interface Group {
  readonly source: "a.one" | "a.two" | "capped" | "notes" | "both" | "a.*" | "**"
  readonly from: "earliest" | "latest"
  readonly concurrency: number
  readonly mode: "plain" | "exactlyOnce" | "transactional"
  readonly expired: "dead-letter" | "drop"
}

export type Step =
  | { readonly _tag: "Subscribe"; readonly group: string; readonly options: Group }
  | { readonly _tag: "End"; readonly group: string; readonly remove: boolean }
  | { readonly _tag: "Pause"; readonly group: string }
  | { readonly _tag: "Resume"; readonly group: string }
  | { readonly _tag: "Publish"; readonly message: Publish }
  | { readonly _tag: "PublishAll"; readonly channel: ChannelName; readonly messages: ReadonlyArray<Publish> }
  | { readonly _tag: "Cancel"; readonly channel: ChannelName; readonly id: string }
  | { readonly _tag: "Reschedule"; readonly channel: ChannelName; readonly id: string; readonly when: "short" | "long" }
  | { readonly _tag: "DeliverNow"; readonly channel: ChannelName; readonly id: string }
  | { readonly _tag: "Requeue"; readonly group: string; readonly edit: Content | undefined }
  | { readonly _tag: "RequeueAll"; readonly group: string }
  | { readonly _tag: "RemoveLetter"; readonly group: string }
  | { readonly _tag: "Purge"; readonly group: string }
  | { readonly _tag: "Expire" }
  | { readonly _tag: "Trim" }

export interface History {
  readonly seed: number
  readonly shards: number
  readonly steps: ReadonlyArray<Step>
}

const groups = ["g1", "g2", "g3", "g4"]
const ids = ["m1", "m2", "m3", "m4", "m5"]

const oneOf = <A>(values: ReadonlyArray<A>) =>
  Effect.map(Random.nextIntBetween(0, values.length, { halfOpen: true }), (i) => values[i]!)

const chance = (percent: number) => Effect.map(Random.nextIntBetween(0, 99), (value) => value < percent)

/** One of the values, each as often as its weight says. */
const weighted = <A>(values: ReadonlyArray<readonly [weight: number, value: A]>) =>
  Effect.map(Random.nextIntBetween(0, values.reduce((sum, [weight]) => sum + weight, 0), { halfOpen: true }), (at) => {
    let left = at
    for (const [weight, value] of values) if ((left -= weight) < 0) return value
    return values[0]![1]
  })

const action: Effect.Effect<Action> = weighted([
  [12, "ok"],
  [6, "fail"],
  [2, "fatal"],
  [2, "die"],
  [2, "nack"],
  [2, "release"],
  [1, "term"],
  [1, "ack-then-fail"],
  [1, "interrupt"]
])

const channelName = weighted<ChannelName>([[4, "a.one"], [3, "a.two"], [1, "b.one"], [2, "capped"], [
  2,
  "users.:user.notes"
]])

export const make = (seed: number): Effect.Effect<History> =>
  Effect.gen(function*() {
    let n = 0
    const content = Effect.gen(function*() {
      const length = yield* Random.nextIntBetween(1, 4)
      const plan: Array<Action> = []
      for (let i = 0; i < length; i++) plan.push(yield* action)
      return { n: n++, plan }
    })
    const message = (channel: ChannelName) =>
      Effect.gen(function*() {
        const identity = yield* weighted<Partial<Publish>>([
          [10, {}],
          [4, { id: yield* oneOf(ids) }],
          [3, { id: yield* oneOf(ids), deduplicate: true }],
          [2, { throttle: yield* oneOf(["t1", "t2"]) }],
          [2, { debounce: yield* oneOf(["d1", "d2"]) }]
        ])
        const when = identity.debounce !== undefined
          ? undefined
          : yield* weighted<Publish["when"]>([[12, undefined], [3, "short"], [3, "long"], [1, "past"]])
        const expires = yield* weighted<Publish["expires"]>([[14, undefined], [1, "short"], [2, "long"]])
        return {
          channel,
          content: yield* content,
          ...identity,
          ...(when === undefined ? {} : { when }),
          ...(expires === undefined ? {} : { expires }),
          ...((yield* chance(20)) ? { headers: true as const } : {}),
          ...((yield* chance(4)) ? { malformed: true as const } : {})
        } satisfies Publish
      })
    const group = oneOf(groups)
    const subscribe = Effect.gen(function*() {
      const options: Group = {
        source: yield* weighted<Group["source"]>([
          [4, "a.one"],
          [2, "a.two"],
          [2, "capped"],
          [2, "notes"],
          [2, "both"],
          [3, "a.*"],
          [2, "**"]
        ]),
        from: yield* weighted<Group["from"]>([[3, "earliest"], [1, "latest"]]),
        concurrency: yield* oneOf([1, 1, 3, 10]),
        mode: yield* weighted<Group["mode"]>([[5, "plain"], [2, "exactlyOnce"], [2, "transactional"]]),
        expired: yield* weighted<Group["expired"]>([[2, "dead-letter"], [1, "drop"]])
      }
      return { _tag: "Subscribe", group: yield* group, options } as const
    })
    const step: Effect.Effect<Step> = Effect.flatten(weighted<Effect.Effect<Step>>([
      [3, subscribe],
      [
        1,
        Effect.gen(function*() {
          return { _tag: "End", group: yield* group, remove: yield* chance(30) } as const
        })
      ],
      [2, Effect.map(group, (group) => ({ _tag: "Pause", group }) as const)],
      [3, Effect.map(group, (group) => ({ _tag: "Resume", group }) as const)],
      [20, Effect.map(Effect.flatMap(channelName, message), (message) => ({ _tag: "Publish", message }) as const)],
      [
        6,
        Effect.gen(function*() {
          const channel = yield* channelName
          const count = yield* Random.nextIntBetween(2, 8)
          return {
            _tag: "PublishAll",
            channel,
            messages: yield* Effect.replicateEffect(
              Effect.map(message(channel), (message) => ({ ...message, malformed: undefined })),
              count
            )
          } as const
        })
      ],
      [
        2,
        Effect.gen(function*() {
          return { _tag: "Cancel", channel: yield* channelName, id: yield* oneOf(ids) } as const
        })
      ],
      [
        2,
        Effect.gen(function*() {
          const when = yield* oneOf(["short", "long"] as const)
          return { _tag: "Reschedule", channel: yield* channelName, id: yield* oneOf(ids), when } as const
        })
      ],
      [
        1,
        Effect.gen(function*() {
          return { _tag: "DeliverNow", channel: yield* channelName, id: yield* oneOf(ids) } as const
        })
      ],
      [
        3,
        Effect.gen(function*() {
          return {
            _tag: "Requeue",
            group: yield* group,
            edit: (yield* chance(30)) ? yield* content : undefined
          } as const
        })
      ],
      [1, Effect.map(group, (group) => ({ _tag: "RequeueAll", group }) as const)],
      [1, Effect.map(group, (group) => ({ _tag: "RemoveLetter", group }) as const)],
      [1, Effect.map(group, (group) => ({ _tag: "Purge", group }) as const)],
      [1, Effect.succeed<Step>({ _tag: "Expire" })],
      [1, Effect.succeed<Step>({ _tag: "Trim" })]
    ]))
    const steps: Array<Step> = [yield* subscribe]
    const length = yield* Random.nextIntBetween(8, 40)
    while (steps.length < length) steps.push(yield* step)
    return { seed, shards: yield* oneOf([1, 1, 3]), steps }
  }).pipe(Random.withSeed(`history ${seed}`))
