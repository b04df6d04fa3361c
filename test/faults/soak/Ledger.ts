/** The events of the processes of the soak, by channel, and their account against Redis at the end. */
import { Effect, Stream } from "effect"
import { Broker, Channel, DeadLetters, Stats } from "rotif"
import { type Account, type Handled, Recorder } from "../Recorder.ts"
import { isNothing, leftTwice } from "../Run.ts"
import type { Event } from "./load.ts"
import { Done, effects, Everything, groupsOf, isKept, recurring, Tasks, Ticks, Work } from "./load.ts"

const keyOf = ({ group, text }: { readonly group: string; readonly text: string }) => `${group}\n${text}`

const channels = Object.keys(groupsOf)

interface Letter {
  readonly group: string
  readonly channel: string
  readonly text: string
  readonly isKept: boolean
}

const lettersNow = DeadLetters.all().pipe(
  Stream.mapEffect(({ channel, group, raw }) =>
    Effect.map(Channel.decode(Work, raw), (item): Letter => ({ group, channel, text: item.text, isKept: isKept(item) }))
  ),
  Stream.runCollect
)

export class Ledger {
  readonly #of = new Map(channels.map((channel) => [channel, new Recorder()]))
  readonly #cancelled = new Set<string>()
  readonly #buried = new Map(channels.map((channel) => [channel, new Set<string>()]))
  readonly #lately: Array<Handled> = []
  /** MiB of the steady process and of its heap, in order of time. */
  readonly rss: Array<number> = []
  readonly heap: Array<number> = []

  #recorder(channel: string): Recorder {
    const recorder = this.#of.get(channel)
    if (recorder === undefined) throw new Error(`nobody publishes to ${channel}`)
    return recorder
  }

  take(event: Event): void {
    switch (event.event) {
      case "told":
        return this.#recorder(event.channel).told(event.text, event.dueAt)
      case "unsure":
        return this.#recorder(event.channel).unsure(event.text)
      case "cancelled":
        return void this.#cancelled.add(event.text)
      case "handled":
        this.#lately.push(event)
        return this.#recorder(event.channel).handled(event)
      case "buried":
        return void this.#buried.get(event.channel)!.add(keyOf(event))
      case "memory":
        this.rss.push(event.rss)
        return void this.heap.push(event.heap)
    }
  }

  get messages(): number {
    return channels.reduce((sum, channel) => sum + this.#recorder(channel).messages, 0)
  }

  /** Sets the moment from which `firstSince` counts. */
  mark(): void {
    this.#lately.length = 0
  }

  /** When a group first handled a message after a moment; only deliveries after the mark count. */
  firstSince(at: number, group: string): number | undefined {
    return this.#lately.find((delivery) => delivery.group === group && delivery.at >= at)?.at
  }

  /** Whether all is done: no message is left, and no dead letter but those that the clerk keeps. */
  readonly isDone = Effect.gen(function*() {
    if (!isNothing(yield* leftTwice(Everything))) return false
    return (yield* lettersNow).every((letter) => letter.isKept)
  })

  /** Compares the events with Redis, when all is done. */
  account(): Effect.Effect<Account, unknown, Broker.Broker | DeadLetters.DeadLetters | Stats.Stats> {
    return Effect.gen({ self: this }, function*() {
      const letters = yield* lettersNow
      const stats = yield* Stats.channels(Everything)
      const broker = yield* Broker.Broker
      const counted = Number((yield* broker.own.read(broker.own.keyFor(Tasks.name, effects))) ?? 0)
      const violations: Array<string> = []
      const check = (what: string, found: unknown, expected: unknown) => {
        if (found !== expected) violations.push(`${what}: ${String(found)}, expected ${String(expected)}`)
      }
      const accounts = channels.map((channel) => {
        const recorder = this.#recorder(channel)
        const dead = new Set(letters.filter((letter) => letter.channel === channel).map(keyOf))
        const buried = this.#buried.get(channel)!
        const handled = Map.groupBy(recorder.deliveries, ({ group }) => group)
        const textsOf = (group: string) => new Set(handled.get(group)?.map(({ text }) => text))
        const one = recorder.account({
          groups: groupsOf[channel]!,
          ordered: ["ordered"],
          isKept: (group, text) => dead.has(keyOf({ group, text })) || buried.has(keyOf({ group, text }))
        })
        violations.push(...one.violations.map((text) => `${channel}: ${text}`))
        for (const { group, text } of recorder.deliveries) {
          if (this.#cancelled.has(text)) violations.push(`${text} was cancelled in time, and handled by ${group}`)
        }

        // The group "all" has seen every stored message, acknowledged or not.
        const known = (group: string) => {
          const texts = textsOf(group)
          for (const key of [...dead, ...buried]) {
            if (key.startsWith(`${group}\n`)) texts.add(key.slice(group.length + 1))
          }
          return texts.size
        }
        const found = stats.find((one) => one.channel === channel)
        check(`stats of ${channel}: published`, found?.published, known("all"))
        check(`stats of ${channel}: scheduled`, found?.scheduled, 0)
        check(
          `groups of ${channel}`,
          found?.groups.map(({ group }) => group).sort().join(", "),
          groupsOf[channel]!.toSorted().join(", ")
        )
        for (const group of found?.groups ?? []) {
          const name = `stats of ${group.group} on ${channel}`
          const { acked, duplicates } = group.totals
          const sum = Number(group.skipped) + acked + group.dead + group.removed
          check(`${name}: skipped + acked + dead + removed`, sum, found!.published)
          check(
            `${name}: pending + ready + due + lag + lost`,
            group.pending + group.ready + group.due + Number(group.lag) + Number(group.lost),
            0
          )
          check(`${name}: dead`, group.dead, [...dead].filter((key) => key.startsWith(`${group.group}\n`)).length)
          // A consumer that took over a lost lease may see the key as done: a duplicate for this consumer only.
          if (!["once", "tx"].includes(group.group)) check(`${name}: duplicates`, duplicates, 0)
        }
        return one
      })

      const done = new Set(this.#recorder(Done.name).deliveries.map(({ text }) => text)).size
      const tasks = new Set(
        this.#recorder(Tasks.name).deliveries.flatMap(({ group, text }) => group === "tx" ? [text] : [])
      ).size
      check("I2: effects of the transactions", counted, tasks)
      check("I2: messages of the transactions", stats.find(({ channel }) => channel === Done.name)?.published, tasks)
      check("I2: distinct messages of the transactions", done, tasks)

      const ticks = [...new Set(this.#recorder(Ticks.name).deliveries.map(({ text }) => text))]
        .map((id) => Date.parse(id.slice(recurring.key.length + 1))).sort((a, b) => a - b)
      const gaps = ticks.filter((at, i) => i > 0 && at - ticks[i - 1]! !== recurring.everyMillis)
      if (gaps.length > 0) violations.push(`${gaps.length} of ${ticks.length} ticks do not follow the one before`)
      return {
        messages: accounts.reduce((sum, { messages }) => sum + messages, 0),
        lost: accounts.reduce((sum, { lost }) => sum + lost, 0),
        repeated: accounts.reduce((sum, { repeated }) => sum + repeated, 0),
        violations
      }
    })
  }
}
