/**
 * The longest argument of a command. The server ends a connection that sends a longer one, with everything that is under way there, and the
 * repetition ends the next one: so an argument that is too long is not sent.
 */
import type { Command } from "./protocol.ts"
import type { RedisError } from "./protocol.ts"
import { refusedCommand } from "./protocol.ts"

/** The default of proto-max-bulk-len. */
const usual = 2 ** 29

const bytesOf = (arg: string | number): number => typeof arg === "string" ? Buffer.byteLength(arg) : 0

export class Longest {
  private bytes = usual
  /** A string of at most this many characters is never too long. */
  private characters = Math.floor(usual / 3)

  /** Takes note of the limit that the server reports, or has just enforced. */
  set(bytes: number): void {
    if (!(bytes > 0)) return
    this.bytes = bytes
    this.characters = Math.floor(bytes / 3)
  }

  /** Takes note of a command over which the server has ended the connection. */
  refused(command: Command): void {
    this.set(Math.min(this.bytes, Math.max(...command.map(bytesOf)) - 1))
  }

  /** Returns the reason why a command must not be sent, if there is one. */
  problemOf(name: string, args: ReadonlyArray<string | number>): RedisError | undefined {
    for (let i = 0; i < args.length; i++) {
      const arg = args[i]!
      if (typeof arg === "number" || arg.length <= this.characters) continue
      const bytes = bytesOf(arg)
      if (bytes <= this.bytes) continue
      return refusedCommand(
        name,
        `a value of ${bytes} bytes is longer than the ${this.bytes} that the server takes (proto-max-bulk-len), and was not sent: ` +
          "make it smaller (maxPayloadBytes tells at once), or raise that setting"
      )
    }
    return undefined
  }
}

/** The reply of a server to an argument that is too long. It closes the connection then. */
export const isTooLong = (error: RedisError): boolean => error.message.includes("invalid bulk length")
