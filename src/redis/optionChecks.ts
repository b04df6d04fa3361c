/**
 * Checks of the connection options: their names and values, and the parts of a URL.
 */
import { Redacted, Result } from "effect"
import * as Given from "../internal/optionChecks.ts"
import { isPromise } from "../internal/describe.ts"

type Options = Readonly<Record<string, unknown>>
type Found<A = unknown> = Result.Result<A, Given.Problem>

const common = [
  "commandTimeout",
  "connectTimeout",
  "startTimeout",
  "maxWaiting",
  "connectionName",
  "insecure"
] as const

const security = ["username", "password", "tls", "family"] as const

/** The options allowed beside each option that says where Redis is. */
const places = {
  client: common,
  cluster: [...common, ...security, "natMap"],
  sentinels: [
    ...common,
    ...security,
    "name",
    "db",
    "sentinelUsername",
    "sentinelPassword",
    "sentinelTls",
    "natMap"
  ],
  url: [...common, ...security, "db"],
  host: [...common, ...security, "port", "db"]
} as const

type Place = keyof typeof places

const placeNames = Object.keys(places) as ReadonlyArray<Place>

/** The names of all options. */
export const names: ReadonlySet<string> = new Set<string>([...placeNames, ...Object.values(places).flat()])

/** The problem with an option: its name, and the rest of the message. */
const wrong = (option: string, rest: string) => Result.fail<Given.Problem>({ option, message: `${option} ${rest}` })

/** A wrong value is not quoted: it may be a secret. */
const secretly = (option: string, wanted: string) => wrong(option, `must be ${wanted}`)

const text = (option: string, value: unknown): Found =>
  typeof value === "string" ? Result.succeed(value) : secretly(option, "a string")

const filled = (option: string, value: unknown): Found =>
  typeof value === "string" && value !== "" ? Result.succeed(value) : secretly(option, "a string that is not empty")

const secret = (option: string, value: unknown): Found =>
  typeof value === "string" || (Redacted.isRedacted(value) && typeof Redacted.value(value) === "string")
    ? Result.succeed(value)
    : secretly(option, "a string, or a Redacted one")

const tls = (option: string, value: unknown): Found =>
  typeof value === "boolean" || (typeof value === "object" && value !== null && !isPromise(value))
    ? Result.succeed(value)
    : secretly(option, "true, false or options of node:tls")

const port = (option: string, value: unknown): Found =>
  Given.count(option, value as number, { usual: 0, least: 1, most: 65_535 })

const addresses = (option: string, value: unknown): Found => {
  if (!Array.isArray(value) || value.length === 0) {
    return secretly(option, "a list of at least one { host, port }")
  }
  for (const [i, address] of (value as ReadonlyArray<unknown>).entries()) {
    const one = `${option}[${i}]`
    if (Result.isFailure(Given.record(one, address))) return secretly(one, "{ host, port }")
    const { host: name, port: number } = address as Options
    const found = Result.flatMap(host(`${one}.host`, name), () => port(`${one}.port`, number ?? Number.NaN))
    if (Result.isFailure(found)) return found
  }
  return Result.succeed(value)
}

const span = (option: string, value: unknown): Found => Given.span(option, value as number, { usual: 0, least: 1 })

const host = (option: string, value: unknown): Found =>
  Result.flatMap(filled(option, value), () =>
    isSocket(value as string)
      ? wrong(option, `is the path of a Unix socket: ${socketInstead}`)
      : (value as string).includes("://")
      ? secretly(option, "the name of a host; a URL is given as url")
      : Result.succeed(value))

const checks: Readonly<Record<string, (option: string, value: unknown) => Found>> = {
  url: (option, value) => Result.flatMap(secret(option, value), () => parseUrl(option, value as string)),
  host,
  port,
  db: (option, value) => Given.count(option, value as number, { usual: 0, least: 0 }),
  username: text,
  password: secret,
  tls,
  family: (option, value) =>
    value === 0 || value === 4 || value === 6 ? Result.succeed(value) : Given.refuse(option, "4, 6 or 0 (both)", value),
  sentinels: addresses,
  name: filled,
  sentinelUsername: text,
  sentinelPassword: secret,
  sentinelTls: tls,
  cluster: addresses,
  natMap: (option, value) => typeof value === "function" ? Result.succeed(value) : Given.record(option, value),
  client: (option, value) =>
    typeof value === "object" && value !== null && "options" in value
      ? Result.succeed(value)
      : secretly(option, "a client of ioredis"),
  commandTimeout: span,
  connectTimeout: span,
  startTimeout: span,
  maxWaiting: (option, value) =>
    Given.count(option, value as number, { usual: 0, least: 0, most: Number.MAX_SAFE_INTEGER }),
  connectionName: filled,
  insecure: (option, value) => Given.flag(option, value as boolean, false)
}

/** Checks all options of a connection. `where` stands before their names in messages. */
export const check = (options: unknown, where = ""): Found<Options> =>
  Result.gen(function*() {
    yield* Given.record(where === "" ? "the options of Redis" : where.slice(0, -1), options)
    const given = Object.fromEntries(Object.entries(options as Options).filter(([, value]) => value !== undefined))
    if (given["path"] !== undefined) {
      return yield* Result.fail<Given.Problem>({
        option: `${where}path`,
        message: `there is no option "${where}path"; for a Unix socket, ${socketInstead}`
      })
    }
    yield* Given.known("the options of Redis", given, names, where)
    const found = placeNames.filter((name) => given[name] !== undefined)
    const [place = "host", second] = found
    if (second !== undefined) {
      return yield* wrong(
        `${where}${second}`,
        `cannot stand beside ${where}${place}: give one of ${placeNames.join(", ")}`
      )
    }
    for (const [name, value] of Object.entries(given)) {
      if (name !== place && !(places[place] as ReadonlyArray<string>).includes(name)) {
        return yield* wrong(`${where}${name}`, `has no meaning beside ${where}${place}: leave it out`)
      }
      yield* checks[name]!(`${where}${name}`, value)
    }
    if (found.length === 0) {
      return yield* wrong(`${where}url`, `is missing: say where Redis is by one of ${placeNames.join(", ")}`)
    }
    if (place === "sentinels" && given["name"] === undefined) {
      return yield* wrong(`${where}name`, `must be the name of the master that the Sentinels know, such as "mymaster"`)
    }
    if (place === "url") yield* agreeing(given, where)
    return given
  })

/** Checks that an option in the URL and beside it are the same: otherwise one of the two would be ignored. No value is quoted. */
const agreeing = (given: Options, where: string): Found => {
  const said = parseUrl(`${where}url`, given["url"] as string)
  if (Result.isFailure(said)) return Result.fail(said.failure)
  for (const name of ["username", "password", "tls", "family", "db"] as const) {
    const inUrl = said.success[name]
    const option = Redacted.isRedacted(given[name]) ? Redacted.value(given[name]) : given[name]
    if (inUrl === undefined || option === undefined) continue
    // Options of node:tls ask for TLS.
    if ((name === "tls" ? option !== false : option) === inUrl) continue
    const instead = name === "tls"
      ? inUrl
        ? `leave ${where}tls out, or write redis:// for a connection without TLS`
        : `write rediss:// for a connection with TLS, or leave ${where}tls out`
      : `leave ${where}${name} out, or take it out of the URL`
    return wrong(`${where}${name}`, `says something else than ${where}url does: ${instead}`)
  }
  return Result.succeed(given)
}

/** The parts of a URL; `undefined` where it has none. */
export interface Url {
  readonly host: string
  readonly port: number
  readonly db: number | undefined
  readonly username: string | undefined
  readonly password: string | undefined
  readonly tls: boolean | undefined
  readonly family: number | undefined
}

/** Unix sockets: `/path`, `unix:///path`, `redis+unix:///path`, `redis-socket:///path`, and the path of `redis:///path`. */
const isSocket = (text: string): boolean =>
  /^(\.{0,2}\/|(unix|(redis|rediss|valkey)(\+|-)(unix|socket)):|rediss?:\/\/\/[^?]*[^\d?])/i.test(text)

const socketInstead = "give a client of ioredis that has the path: { client: new Redis({ path: \"/run/redis.sock\" }) }"

const decoded = (part: string): string | undefined => {
  try {
    return part === "" ? undefined : decodeURIComponent(part)
  } catch {
    return part
  }
}

/** Reads a URL. Its text is not quoted: it may hold a password. */
export const parseUrl = (
  option: string,
  given: Redacted.Redacted<string> | string
): Result.Result<Url, Given.Problem> => {
  const refuse = (message: string) => Result.fail<Given.Problem>({ option, message: `${option}: ${message}` })
  const text = Redacted.isRedacted(given) ? Redacted.value(given) : given
  if (isSocket(text)) {
    return refuse(
      `this is the path of a Unix socket, which is not taken from a URL: ${socketInstead}`
    )
  }
  const url = URL.canParse(text) ? new URL(text) : undefined
  const path = url === undefined ? "" : url.pathname.replace(/^\//, "")
  if (url === undefined || !/^rediss?:$/.test(url.protocol) || url.hostname === "" || !/^\d*$/.test(path)) {
    return refuse("the URL is not of the form redis://user:password@host:port/db or rediss://…")
  }
  if (url.hash !== "") {
    return refuse("the URL has a part behind \"#\", which means nothing; write # as %23 in a password")
  }
  let db = path === "" ? undefined : Number(path)
  let family: number | undefined
  let tls = url.protocol === "rediss:" ? true : undefined
  for (const [name, value] of url.searchParams) {
    if (name === "db" && /^\d+$/.test(value)) {
      if (db !== undefined && db !== Number(value)) return refuse("the URL names two databases, in its path and as ?db")
      db = Number(value)
    } else if (name === "family" && /^[046]$/.test(value)) family = Number(value)
    else if (name === "tls" && (value === "true" || value === "false")) {
      if (tls && value === "false") return refuse("the URL says rediss:// and ?tls=false: write redis:// without TLS")
      tls = value === "true"
    } else if (["db", "family", "tls"].includes(name)) {
      return refuse(`?${name} of the URL is not valid: db is a number, family is 4 or 6, tls is true or false`)
    } else {
      const instead = names.has(name)
        ? `give it as an option beside the URL: { url, ${name} }`
        : "a URL may have db, family and tls"
      return refuse(`the URL has ?${name.slice(0, 80)}, which is not taken from a URL: ${instead}`)
    }
  }
  if (db !== undefined && db > 100_000) return refuse("the number of the database in the URL is too large")
  return Result.succeed({
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: url.port === "" ? 6379 : Number(url.port),
    db,
    username: decoded(url.username),
    password: decoded(url.password),
    tls,
    family
  })
}
