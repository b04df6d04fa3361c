/**
 * How long one argument of a command may be. The server ends a connection on which a longer one comes, with everything that is under way there, and
 * so does the repetition: what is too long is not sent.
 */
import type { Command } from "./protocol.ts"
import { RedisError } from "./protocol.ts"

/** proto-max-bulk-len, where nobody has set it. */
const usual = 2 ** 29

const bytesOf = (arg: string | number): number => typeof arg === "string" ? Buffer.byteLength(arg) : 0

export class Longest {
  private bytes = usual
  /** No string of so many characters is too long. */
  private characters = Math.floor(usual / 3)

  /** What the server says, where it is permitted to ask, or what it has just refused. */
  set(bytes: number): void {
    if (!(bytes > 0)) return
    this.bytes = bytes
    this.characters = Math.floor(bytes / 3)
  }

  /** The server has ended the connection over this command. */
  refused(command: Command): void {
    this.set(Math.min(this.bytes, Math.max(...command.map(bytesOf)) - 1))
  }

  /** Why this command is not sent, if it is not. */
  problemOf(name: string, args: ReadonlyArray<string | number>): RedisError | undefined {
    for (let i = 0; i < args.length; i++) {
      const arg = args[i]!
      if (typeof arg === "number" || arg.length <= this.characters) continue
      const bytes = bytesOf(arg)
      if (bytes <= this.bytes) continue
      return new RedisError({
        reason: "Refused",
        command: name,
        message:
          `a value of ${bytes} bytes is longer than the ${this.bytes} that the server takes (proto-max-bulk-len), and was not sent: ` +
          "make it smaller (maxPayloadBytes tells at once), or raise that setting"
      })
    }
    return undefined
  }
}

/** The answer of a server to what is too long for it; it closes the connection then. */
export const isTooLong = (error: RedisError): boolean => error.message.includes("invalid bulk length")
