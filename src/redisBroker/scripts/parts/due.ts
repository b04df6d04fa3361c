/**
 * Lua functions for the scripts that let something wait: they wake the promoters where it is due earlier than all else. What is long
 * overdue nobody tends: another program has put it there without a word, and then they are woken in any case.
 */
export const announcing = `
local function firstDue(waiting)
  return tonumber(redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2])
end
local function announceDue(events, first, due, now)
  if due and (not first or due < first or first < now - 1000) then redis.call('PUBLISH', events, 'due') end
end
`
