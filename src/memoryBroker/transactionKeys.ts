/** The keys that transactions write, with the types and refusals of Redis. */
import type { CommitRefused, Write } from "../Broker.ts"
import { notAnInteger, wrongType } from "../broker/commitRefused.ts"

type Value = string | ReadonlyMap<string, string>

const integer = /^(0|-?[1-9]\d{0,17})$/

export class OwnKeys {
  private values = new Map<string, Value>()

  read(key: string): string | Readonly<Record<string, string>> | undefined {
    const value = this.values.get(key)
    if (value === undefined || typeof value === "string") return value
    const out: Record<string, string> = Object.create(null)
    for (const [name, text] of value) out[name] = text
    return out
  }

  /** Applies all writes, or returns the refusal and applies none. */
  apply(writes: ReadonlyArray<Write>): CommitRefused | undefined {
    const changed = new Map<string, Value | undefined>()
    for (const write of writes) {
      const { key } = write
      const value = changed.has(key) ? changed.get(key) : this.values.get(key)
      switch (write._tag) {
        case "Set":
          changed.set(key, write.value)
          break
        case "Delete":
          changed.set(key, undefined)
          break
        case "HashSet":
          if (typeof value === "string") return wrongType(key, "string", "hash")
          changed.set(key, new Map([...(value ?? []), ...Object.entries(write.fields)]))
          break
        case "Increment":
          if (value !== undefined && typeof value !== "string") return wrongType(key, "hash", "string")
          if (value !== undefined && !integer.test(value)) return notAnInteger(key)
          changed.set(key, String(BigInt(value ?? "0") + BigInt(write.by)))
      }
    }
    for (const [key, value] of changed) {
      if (value === undefined) this.values.delete(key)
      else this.values.set(key, value)
    }
    return undefined
  }
}
