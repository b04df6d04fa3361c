/**
 * The names of the events of a shard, for the scripts that publish them and for `events.ts`, which wakes fibers by them. An event is its name,
 * and its parts behind line feeds.
 */

/** The events that members of a shard are told of. */
export const memberEvents = {
  /** A channel was registered. Part: channel. */
  channel: "channel",
  /** A group has a new retry stream. Parts: group, channel. */
  retry: "retry",
  /** A group was removed, from some of its channels at least. Part: group. */
  removed: "removed",
  /** A group was paused or resumed, from some of its channels at least. Part: group. */
  paused: "paused"
} as const

/** The events that wake the duties of a shard. They have no parts. */
export const signalEvents = {
  /** A message waits for an earlier time than all others. */
  due: "due",
  /** A recurring message has changed. */
  tick: "tick",
  /** A dead letter may be offered. */
  letter: "letter",
  /** The outbox has a message. */
  outbox: "outbox"
} as const

export type SignalEvent = keyof typeof signalEvents
