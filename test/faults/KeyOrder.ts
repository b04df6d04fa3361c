/**
 * The account of messages with ordering keys: what each handler began and ended, and what was settled, in one order.
 *
 * A message is `<key>-<text>`. The order of a key is that of its messages in the log.
 */

export type Step =
  /** A handler begins with a message, or ends; `lost`: it was interrupted, because its lease was lost. */
  | { readonly is: "begin" | "end" | "lost"; readonly worker: string; readonly text: string }
  /** A worker is gone, or stands still for longer than its lease: what it is at may be taken over. */
  | { readonly is: "gone"; readonly worker: string }

export const keyOf = (text: string): string => text.slice(0, text.lastIndexOf("-"))

const some = (texts: ReadonlyArray<string>) => texts.slice(0, 4).join(", ") + (texts.length > 4 ? ", …" : "")

const byKey = (texts: ReadonlyArray<string>) => {
  const out = new Map<string, Array<string>>()
  for (const text of texts) {
    const same = out.get(keyOf(text))
    if (same === undefined) out.set(keyOf(text), [text])
    else same.push(text)
  }
  return out
}

/** Returns the broken promises in words. `stored`: the log; `settled`: accepted settlements, in their order. */
export const violationsOf = (
  stored: ReadonlyArray<string>,
  settled: ReadonlyArray<string>,
  steps: ReadonlyArray<Step>
): ReadonlyArray<string> => {
  const found = { unsettled: [] as Array<string>, twice: [] as Array<string>, disordered: [] as Array<string> }
  const done = byKey(settled)
  for (const [key, expected] of byKey(stored)) {
    const seen = done.get(key) ?? []
    const unique = [...new Set(seen)]
    found.unsettled.push(...expected.filter((text) => !unique.includes(text)))
    found.twice.push(...unique.filter((text) => seen.indexOf(text) !== seen.lastIndexOf(text)))
    const inOrder = expected.filter((text) => unique.includes(text))
    const wrong = unique.filter((text) => expected.includes(text)).find((text, i) => text !== inOrder[i])
    if (wrong !== undefined) found.disordered.push(wrong)
  }

  const place = new Map(stored.map((text, i) => [text, i]))
  /** Who is at a key, with which message. An entry is excused once its worker is gone. */
  const running = new Map<string, Array<{ readonly worker: string; readonly text: string; isExcused: boolean }>>()
  const overlaps = new Set<string>()
  /** Overlaps with a handler that did not know yet that its lease was lost: they count when it ends like any other. */
  const suspects = new Map<object, string>()
  const backwards: Array<string> = []
  const furthest = new Map<string, string>()
  for (const step of steps) {
    if (step.is === "gone") {
      for (const all of running.values()) for (const one of all) if (one.worker === step.worker) one.isExcused = true
      continue
    }
    const { text, worker } = step
    const key = keyOf(text)
    const at = running.get(key) ?? []
    running.set(key, at)
    if (step.is !== "begin") {
      const index = at.findIndex((one) => one.worker === worker && one.text === text)
      const [one] = index < 0 ? [] : at.splice(index, 1)
      const suspect = one === undefined ? undefined : suspects.get(one)
      if (suspect !== undefined && step.is === "end" && one?.isExcused === false) overlaps.add(suspect)
      continue
    }
    for (const one of at) {
      if (!one.isExcused) suspects.set(one, `${text} by ${worker} while ${one.worker} was at ${one.text}`)
    }
    at.push({ worker, text, isExcused: false })
    const last = furthest.get(key)
    if (last !== undefined && place.get(text)! < place.get(last)!) backwards.push(`${text} after ${last}`)
    else furthest.set(key, text)
  }
  const line = (what: string, texts: ReadonlyArray<string>) =>
    texts.length === 0 ? [] : [`order: ${texts.length} ${what}: ${some(texts)}`]
  return [
    ...line("not settled", found.unsettled),
    ...line("settled twice", found.twice),
    ...line("keys settled out of order", found.disordered),
    ...line("handled at the same time", [...overlaps]),
    ...line("begun after a later one", backwards)
  ]
}
