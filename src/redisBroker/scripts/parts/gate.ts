/**
 * The gate of a group on a channel: which messages with ordering keys may run.
 *
 * An ordering key is in `busy` while it has a message that may run, its head. The others wait in its line, pending for the consumer
 * `~gate`. `lines` has the first and the last of each line, with a space between, and `behind` has the next one of each that is not the
 * last. They are named by the kind of their stream (`l` for the log, `r` for the retry stream) and their position.
 *
 * Who is head follows from this: it is entered (its position is not above the one in `reached`), pending, and in no line; or its
 * description says so, while it waits for a retry and in the retry stream.
 */

/** The consumer for which the messages that wait are pending. Nobody takes them over. */
export const gateConsumer = "~gate"

/**
 * `putBehind(key, link)`: puts a message at the end of a line. `isWaiting(key, link)`: whether it is in the line. The script has the keys
 * as locals `lines` and `behind`.
 */
export const line = `
local function putBehind(key, link)
  local first, last = string.match(redis.call('HGET', lines, key) or '', '^(%S+) (%S+)$')
  if last then redis.call('HSET', behind, last, link) end
  redis.call('HSET', lines, key, (first or link) .. ' ' .. link)
end
local function isWaiting(key, link)
  local last = string.match(redis.call('HGET', lines, key) or '', ' (%S+)$')
  return last == link or redis.call('HEXISTS', behind, link) == 1
end
`

/**
 * `keyOfBody(body)`: the ordering key in a body (see `redisBroker/entry.ts`), and whether it is that of a head. `orderingKeyOf(entry)`: the same
 * of an entry.
 */
export const orderingKeyOf = `
local function keyOfBody(body)
  local from = 1
  while string.byte(body, from) == 119 or string.byte(body, from) == 104 or string.byte(body, from) == 114 or string.byte(body, from) == 120 do
    from = (string.find(body, '\\n', from, true) or #body) + 1
  end
  local first, stop = string.byte(body, from), string.find(body, '\\n', from, true) or 0
  -- A description, or the line of the key.
  local json = first == 123 and string.sub(body, from, stop - 1) or first == 107 and '{"k":' .. string.sub(body, from + 1, stop - 1) .. '}'
  local isRead, meta = pcall(cjson.decode, json or '')
  if not isRead or type(meta) ~= 'table' or type(meta.k) ~= 'string' or meta.k == '' then return nil end
  return meta.k, meta.kh == 1
end
local function orderingKeyOf(entry)
  for i = 1, entry and #entry[2] or 0, 2 do
    local name, value = entry[2][i], entry[2][i + 1]
    if name == 'k' and value ~= '' then return value end
    if name == 'b' then return keyOfBody(value) end
  end
end
`

/**
 * `gateProblem()`: whether a key of the gate has a wrong type, asked before the first write. `free(key)`: frees an ordering key whose head
 * has ended. The first of its line becomes the head, and pending for this consumer. `handedOver`: these messages, as {kind, position,
 * fields}; after about 1 MiB without fields. `vanished`: the number of those that were gone from their stream.
 *
 * A message that only waited has been handed out once: its delivery count is 1 again.
 *
 * The script has the keys as locals `log`, `retry`, `busy`, `lines` and `behind`, and `group` and `consumer`. It has `wrongType`.
 */
export const free = `
local handedOver, vanished, handedBytes = {}, 0, 0
local function gateProblem()
  return wrongType(log, 'stream') or wrongType(retry, 'stream') or wrongType(busy, 'set') or wrongType(lines, 'hash')
    or wrongType(behind, 'hash')
end
local function free(key)
  local link, last = string.match(redis.call('HGET', lines, key) or '', '^(%S+) (%S+)$')
  while link do
    local after = link ~= last and redis.call('HGET', behind, link)
    if after then
      redis.call('HDEL', behind, link)
      redis.call('HSET', lines, key, after .. ' ' .. last)
    else
      redis.call('HDEL', lines, key)
    end
    local kind, position = string.sub(link, 1, 1), string.sub(link, 2)
    local isLarge = handedBytes >= 1048576
    local claim = {'XCLAIM', kind == 'r' and retry or log, group, consumer, 0, position, 'RETRYCOUNT', 1}
    if isLarge then claim[9] = 'JUSTID' end
    -- Without its group nothing of a stream waits any more.
    local entry = redis.pcall(unpack(claim))[1]
    if entry then
      for _, field in ipairs(isLarge and {} or entry[2]) do handedBytes = handedBytes + #field end
      handedOver[#handedOver + 1] = {kind, position, not isLarge and entry[2] or nil}
      return
    end
    vanished = vanished + 1
    link = after
  end
  redis.call('SREM', busy, key)
end
`

/**
 * `lost(owner)`: changes the stamp of a consumer that has lost a delivery, so that it looks at each of its deliveries from then on. A consumer
 * without a stamp has entered nothing yet. The script has the key as local `taken`.
 */
export const lost = `
local function lost(owner)
  if redis.call('HEXISTS', taken, owner) == 1 and type(redis.pcall('HINCRBY', taken, owner, 1)) == 'table' then
    redis.call('HDEL', taken, owner)
  end
end
`
