/** Names that no other process uses. */

/** Returns 48 random bits as 8 characters. */
export const uniqueName = (): string =>
  Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(6))).toString("base64url")

/** Returns a function that makes short names, each unique among all processes: a name of this process, and a number. */
export const uniqueNames = (): () => string => {
  const process = uniqueName()
  let count = 0
  return () => `${process}${(count++).toString(36)}`
}
