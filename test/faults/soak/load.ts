/** The load of the soak: channels, groups, and the events of its processes. */
import { Schema } from "effect"
import { writeSync } from "node:fs"
import type { Rotif } from "rotif"
import { Channel } from "rotif"
import type { Handled } from "../Recorder.ts"

/** The kinds of messages, by how they end in the groups that fail: `plain`, `once`, `tx` and `promise`. */
const kinds = [
  /** Handled at its first attempt, as is everything by the other groups. */
  "plain",
  /** Fails twice. */
  "flaky",
  /** Fails until it is a dead letter; the clerk sends it back as a plain one. */
  "doomed",
  /** Becomes a dead letter at its first attempt. */
  "final",
  /** Expires a millisecond after its publish: most are dead letters. */
  "brief",
  /** Of a recurring message, which has no text of its own. */
  "tick"
] as const

const payload = Schema.Struct({ text: Schema.String, kind: Schema.Literals(kinds) })
export type Item = typeof payload.Type

export const Work = Channel.make("soak.work", { payload })
export const Line = Channel.make("soak.line", { payload })
export const Tasks = Channel.make("soak.tasks", { payload })
export const Done = Channel.make("soak.done", { payload })
export const Ticks = Channel.make("soak.ticks", { payload })
export const Promised = Channel.make("soak.promised", { payload })
export const Everything = Channel.pattern("soak.*", { payload })

/** The groups of each channel. */
export const groupsOf: Readonly<Record<string, ReadonlyArray<string>>> = {
  [Work.name]: ["all", "plain", "once", "pausing"],
  [Line.name]: ["all", "ordered"],
  [Tasks.name]: ["all", "tx"],
  [Done.name]: ["all", "done"],
  [Ticks.name]: ["all"],
  [Promised.name]: ["all", "promise"]
}

/** The channels of the groups of the crew. */
export const crewStreams = (prefix: string) =>
  ([[Work, "plain"], [Work, "once"], [Tasks, "tx"], [Done, "done"]] as const).flatMap(([{ name }, group]) =>
    [`{${prefix}:0}:log:${name}`, `{${prefix}:0}:retry:${group}:${name}`].map((stream) => [stream, group] as const)
  )

export const recurring = { key: "tick", everyMillis: 1_000 }

/** The counter of the transactions, once for each task. */
export const effects = "effects"

/** Whether the clerk keeps a dead letter. */
export const isKept = ({ kind, text }: Item): boolean => (kind === "final" || kind === "brief") && text.endsWith("0")

export interface Job {
  readonly rotif: Rotif.RedisOptions & { readonly url: string; readonly prefix: string }
  /** The steady process runs from the beginning to the end; the crew comes and goes. */
  readonly role: "steady" | "crew"
  /** Of no other process of the run. */
  readonly name: string
  readonly seed: number
  /** The pause between two steps of its publisher. */
  readonly everyMillis: number
  readonly lease: number
}

export type Event =
  | { readonly event: "ready" }
  /** Published, and not changed since. */
  | { readonly event: "told"; readonly channel: string; readonly text: string; readonly dueAt?: number | undefined }
  /** From now on it may be delivered or not. */
  | { readonly event: "unsure"; readonly channel: string; readonly text: string }
  | { readonly event: "cancelled"; readonly channel: string; readonly text: string }
  | { readonly event: "handled" } & Handled
  /** The clerk is about to delete this dead letter. */
  | { readonly event: "buried"; readonly group: string; readonly channel: string; readonly text: string }
  /** MiB: of the process, and of its heap. */
  | { readonly event: "memory"; readonly rss: number; readonly heap: number }
  /** Its publisher has ended. */
  | { readonly event: "quiet" }

export const say = (event: Event) => void writeSync(1, `${JSON.stringify(event)}\n`)
