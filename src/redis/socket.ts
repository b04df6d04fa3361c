/** Sockets: each is one client of ioredis, which is closed for good when anything goes wrong. */
import type { Longest } from "./argumentLimit.ts"
import { isTooLong } from "./argumentLimit.ts"
import { Client, ClientCommand } from "./ioredis.ts"
import type { Settings, Socket } from "./link.ts"
import type { Options } from "./options.ts"
import type { Origin, RawOptions } from "./clientOptions.ts"
import { refused } from "./clientOptions.ts"
import { classify, errorOf, messageOf, RedisError } from "./protocol.ts"
import { parse as parseInfo, problemOf, textOfHello } from "./serverInfo.ts"

/** The options of every socket: ioredis must not reconnect, queue or retry by itself. */
const rawOptionsOf = (origin: Origin, connectMillis: number): RawOptions => ({
  ...origin.base,
  lazyConnect: true,
  enableOfflineQueue: false,
  // `open` reads the same INFO, and reports the problem.
  enableReadyCheck: false,
  retryStrategy: () => null,
  maxRetriesPerRequest: null,
  autoResubscribe: false,
  reconnectOnError: null,
  connectTimeout: connectMillis,
  // A destroyed socket does not wait for the server.
  disconnectTimeout: 1,
  keepAlive: 10_000,
  disableClientInfo: true,
  keyPrefix: "",
  // Plain arrays everywhere.
  protocol: 2,
  stringNumbers: false,
  enableAutoPipelining: false,
  readOnly: false,
  commandTimeout: undefined,
  blockingTimeout: undefined,
  ...(origin.mode === "sentinel"
    ? {
      role: "master",
      failoverDetector: true,
      sentinelRetryStrategy: () => null,
      sentinelCommandTimeout: sentinelMillis
    }
    : {})
})

/** One Sentinel that does not answer must not use up the time of an attempt. */
const sentinelMillis = 1000

// -----------------------------------------------------------------------------
// Sockets
// -----------------------------------------------------------------------------

const utf8 = { replyEncoding: "utf8" } as const

/** Commands beyond this size are written alone: together they may exceed the longest string. */
const longestWrite = 2 ** 26

const destroy = (client: Client): void => {
  // Also ends the connections to Sentinels; the socket itself would wait for the other side.
  client.disconnect()
  client.stream?.destroy()
}

const socketOf = (client: Client, target: string, id: number, runId: string, longest: Longest): Socket => {
  let hasWritten = false
  let pending = 0
  // Commands go to the socket as one text: many small writes, corked or not, cost more than the commands themselves.
  let text = ""
  const collector = {
    isPipeline: true,
    write: (part: string | Buffer) => {
      const more = part.toString()
      if (text.length + more.length > longestWrite) flush()
      text += more
    },
    destination: { redis: client }
  } as const
  const flush = () => {
    if (text === "") return
    const written = text
    text = ""
    if (client.stream.writable) client.stream.write(written)
  }
  const send = (name: string, args: ReadonlyArray<string | number>): Promise<unknown> => {
    const command = new ClientCommand(name, args as Array<string | number>, utf8)
    client.sendCommand(command, collector)
    return command.promise
  }
  return {
    target,
    id,
    runId,
    // Not writable: the failover detector has closed it, and its end event has not come yet.
    isReady: () => client.status === "ready" && client.stream.writable,
    pending: () => pending,
    write: (commands, isAsking, done) => {
      const replies = new Array<unknown>(commands.length)
      let missing = commands.length
      pending += missing
      const settle = (index: number, reply: unknown) => {
        replies[index] = reply
        pending--
        if (--missing === 0) done(replies)
      }
      for (let index = 0; index < commands.length; index++) {
        const command = commands[index]!
        const name = command[0]
        // The refusal itself adds nothing to the reply of the command.
        if (isAsking) send("asking", []).catch(() => {})
        send(name, command.slice(1)).then(
          (reply) => settle(index, reply),
          (error) => {
            const failure = errorOf(name, error)
            if (isTooLong(failure)) longest.refused(command)
            settle(index, failure)
          }
        )
      }
      // The first command in a turn of the event loop is written at once. All others wait for the end of the turn, and go in one write.
      if (hasWritten) return
      hasWritten = true
      flush()
      process.nextTick(() => {
        hasWritten = false
        flush()
      })
    },
    onMessage: (listener) => {
      client.on("message", (channel: string, message: string) => listener("subscribe", channel, message))
      client.on("pmessage", (pattern: string, _: string, message: string) => listener("psubscribe", pattern, message))
      client.on("smessage", (channel: string, message: string) => listener("ssubscribe", channel, message))
    },
    onMoved: (listener) => void client.on("moved", listener),
    onEnd: (listener) => void client.once("end", listener),
    destroy: () => destroy(client)
  }
}

/** Explains a failure to connect, where the message of the client does not. */
const problemAt = (message: string, isTls: boolean): string =>
  /Unknown RESP type|Protocol error, got/.test(message)
    ? `this is no Redis server, or it speaks TLS on this port (${message.replace(" Please report this.", "")})`
    : isTls && /wrong version number|packet length too long|before secure TLS connection/.test(message)
    ? `the server does not speak TLS on this port (${message})`
    : !isTls && (message === "Connection is closed." || /ECONNRESET|EPIPE/.test(message))
    ? "the server closed the connection at once: it may speak TLS on this port, or be no Redis server"
    : message

/**
 * Opens sockets: connects, logs in, checks the server.
 *
 * Commands of the lost predecessor may still wait in the buffers of the server. The predecessor is killed there before anything else is sent, so
 * that none of its commands is executed after a command of the new socket.
 */
export const opener = (
  origin: Origin,
  options: Options,
  connectMillis: number,
  longest: Longest
): Settings["open"] => {
  const raw = rawOptionsOf(origin, connectMillis)
  const clientName = options.connectionName ?? "rotif"
  // The connectTimeout of ioredis ends with the TCP connection: a frozen server would never answer.
  const limit = connectMillis + sentinelMillis * (raw.sentinels?.length ?? 0)

  return async (target, predecessor, signal) => {
    const client = new Client({
      ...raw,
      ...target.address,
      connectionName: `${clientName}:${target.role}`,
      socketTimeout: target.silenceMillis,
      replyMapping: "legacy"
    })
    let failure: unknown
    client.on("error", (error) => {
      failure ??= error
    })
    const give = (why: string) => {
      failure ??= new Error(why)
      destroy(client)
    }
    const hint = raw.tls === undefined ? "" : ": does it speak TLS on this port?"
    const timer = setTimeout(() => give(`no answer within ${limit} ms${hint}`), limit)
    const abort = () => give("closed")
    signal.addEventListener("abort", abort)
    try {
      await client.connect()
      const [id, text] = await Promise.all([
        client.call("client", "id"),
        client.call("info").catch((error: unknown) => {
          if (!messageOf(error).startsWith("NOPERM")) throw error
          // HELLO tells less, and is permitted more often.
          return client.call("hello").then(textOfHello, () => "")
        })
      ])
      // ioredis reports a refused SELECT by an event, and goes on with another database.
      if (failure !== undefined) throw failure
      const info = parseInfo(String(text))
      const problem = problemOf(info, origin.mode)
      if (problem !== undefined) throw problem.isLasting ? refused(problem.message) : new Error(problem.message)
      if (predecessor !== undefined && info.runId !== "" && predecessor.runId === info.runId) {
        await client.call("client", "kill", "id", predecessor.id).catch((error: unknown) => {
          // The command is not permitted, or the predecessor is gone already.
          if (classify(error) !== "Refused") throw error
        })
      }
      return socketOf(client, target.name, Number(id), info.runId, longest)
    } catch (error) {
      destroy(client)
      const first = failure ?? error
      throw new RedisError({
        reason: first instanceof RedisError ? first.reason : classify(first) === "Refused" ? "Refused" : "Unavailable",
        command: "connect",
        message: `${target.name}: ${problemAt(messageOf(first), raw.tls !== undefined)}`
      })
    } finally {
      clearTimeout(timer)
      signal.removeEventListener("abort", abort)
    }
  }
}
