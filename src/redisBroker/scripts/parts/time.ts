import { signalEvents } from "../../eventNames.ts"
/**
 * Times in scripts: the clock, the time at which a message is due, and who is woken for it. All times are milliseconds of the server's
 * clock.
 */

/** `clock()`: the time now. */
export const clock = `
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
`

/** `dueAt(at, now)`: a due time, from `+` and a delay or from a time; never before now. */
export const dueAt = `
local function dueAt(at, now)
  return math.max(now, string.sub(at, 1, 1) == '+' and now + tonumber(string.sub(at, 2)) or tonumber(at))
end
`

/** `firstTime(set)`: the lowest score of a sorted set; nothing when it is empty. */
export const firstTime = `
local function firstTime(set) return tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]) end
`

/** `millisUntil(time, now)`: how long until then, at most 2e9; 0 when it has come; -1 when there is none. */
export const millisUntil = `
local function millisUntil(time, now)
  if not time then return -1 end
  return time <= now and 0 or math.min(math.ceil(time - now), 2000000000)
end
`

/**
 * `wakeFor(due, first, now)`: wakes the promoters when something is due earlier than `first`, the first time that was waited for. A
 * first time that is long overdue was written by another program, without waking anybody: then they are woken as well. The script
 * has the events channel as local `events`.
 */
export const wakeFor = `${firstTime}
local function wakeFor(due, first, now)
  if due and (not first or due < first or first < now - 1000) then redis.call('PUBLISH', events, '${signalEvents.due}') end
end
`
