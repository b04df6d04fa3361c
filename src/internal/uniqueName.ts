/** Names that no other process uses. */

/** Returns 48 random bits as 8 characters. */
export const uniqueName = (): string =>
  Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(6))).toString("base64url")
