/**
 * Redis as a worker sees it in the run of ordering keys: it also records which settlements were accepted, in their order; and, where the run
 * plants a flaw into the rules of ordering keys, the scripts and their callers break that rule.
 */
import { Effect, Layer } from "effect"
import { Redis } from "rotif"

/** A rule of ordering keys that is broken on purpose. The account has to find each. */
export const flaws = {
  noGapLook: "what a consumer enters need not join on to what was entered before",
  noStamp: "a takeover does not change the stamp of the consumer that loses",
  noLook: "a consumer whose stamp has changed does not look at what it holds",
  blindResend: "a settlement is sent again after a lost answer, and not looked at",
  freesOthers: "a refused settlement frees the key",
  handlesWaiting: "a consumer handles what waits behind its key"
} as const

export type Flaw = keyof typeof flaws

const replaced = (lua: string, text: string, by: string): string => {
  if (!lua.includes(text)) throw new Error(`the script has no ${text}`)
  return lua.replace(text, by)
}

/** The list of settled payloads, beside the keys of the namespace. */
export const settledKey = (prefix: string) => `{${prefix}:0}:own:settled`

/** Records the payload of a message: it is the last line of the last field of its entry. */
const record = `
local function record(stream, position)
  local entry = redis.call('XRANGE', stream, position, position)[1]
  local payload = entry and string.match(entry[2][#entry[2]], '[^\\n]*$')
  if payload then redis.call('RPUSH', string.match(stream, '^{.-}') .. ':own:settled', payload) end
end
`

const changed = (script: Redis.Script, flaw: Flaw | undefined): Redis.Script => {
  let { lua } = script
  if (script.name === "settle") {
    lua = record +
      replaced(lua, "    if action == 'ack' then\n", "    if action == 'ack' then\n      record(stream, position)\n")
  }
  if (script.name === "leave") {
    lua = record + replaced(
      lua,
      "local acked = redis.call('XACK', stream, group, unpack(positions))",
      `local acked = 0
  for _, position in ipairs(positions) do
    if redis.call('XACK', stream, group, position) == 1 then
      acked = acked + 1
      record(stream, position)
    end
  end`
    )
    if (flaw === "noLook" || flaw === "blindResend") {
      lua = replaced(lua, "if not stamp or stamp ~= known then", "if false then")
    }
    if (flaw === "freesOthers") {
      lua = replaced(lua, "refused[#refused + 1] = i", "refused[#refused + 1] = i\n      free(keys[i])")
    }
  }
  if (script.name === "enter" && flaw === "noGapLook") {
    lua = replaced(lua, "if isJoined and #redis.call('XPENDING'", "if false and #redis.call('XPENDING'")
  }
  if (script.name === "takeOver" && flaw === "noStamp") {
    lua = replaced(lua, "if owner ~= consumer then lost(owner) end", "")
  }
  const isIdempotent = script.isIdempotent === true || (flaw === "blindResend" && script.name === "leave")
  return { ...script, lua, isIdempotent }
}

const scripts = new Map<string, Redis.Script>()

const changedOnce = (script: Redis.Script, flaw: Flaw | undefined): Redis.Script => {
  let found = scripts.get(script.name)
  if (found === undefined) {
    found = changed(script, flaw)
    scripts.set(script.name, found)
  }
  return found
}

/** Provides `Redis`, which records, and breaks the rule. */
export const layer = (options: Redis.Options, flaw?: Flaw): Layer.Layer<Redis.Redis, Redis.RedisError> =>
  Layer.effect(
    Redis.Redis,
    Effect.map(Redis.make(options), (redis) =>
      Redis.Redis.of({
        ...redis,
        connection: (key) => {
          const connection = redis.connection(key)
          return {
            ...connection,
            evaluate: (script, keys, args, options) => {
              const isBlind = flaw === "blindResend" && script.name === "leave"
              const sent = connection.evaluate(changedOnce(script, flaw), keys, args, isBlind ? undefined : options)
              return flaw === "handlesWaiting" && script.name === "enter"
                ? Effect.map(sent, (reply) => {
                  const [stamp, outcome] = reply as readonly [string, number]
                  return [stamp, outcome]
                })
                : sent
            }
          }
        }
      }))
  )
