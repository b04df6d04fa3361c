/** Refusals of a transaction, with the same messages on every backend. */
import { CommitRefused } from "./transaction.ts"

export const wrongType = (key: string, found: string, expected: string): CommitRefused =>
  new CommitRefused({
    reason: "WrongType",
    key,
    message: `the key ${
      JSON.stringify(key)
    } holds a ${found}, and the transaction needs a ${expected}: nothing was applied`
  })

/** Another program has used the last position of the stream. */
export const noPositionLeft = (key: string): CommitRefused =>
  new CommitRefused({
    reason: "NoPositionLeft",
    key,
    message: `the stream ${
      JSON.stringify(key)
    } has no position left, and takes no message more: nothing was applied; move what is in it and delete it`
  })

export const notAnInteger = (key: string): CommitRefused =>
  new CommitRefused({
    reason: "NotAnInteger",
    key,
    message: `the key ${
      JSON.stringify(key)
    } holds no integer of at most 18 digits and cannot be incremented: nothing was applied`
  })
