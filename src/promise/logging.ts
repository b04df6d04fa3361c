/**
 * Logging of the Promise API.
 */
import { Effect, Layer, Logger as EffectLogger, References } from "effect"
import { calm } from "../internal/describe.ts"
import type { Logger } from "./options.ts"

export const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

/** Sends log lines of all levels to the user's logger. */
export const loggerLayer = (sink: Logger | undefined) => {
  if (sink === undefined) return Layer.empty
  const line = EffectLogger.make<unknown, void>(({ cause, logLevel, message }) => {
    const parts = [message].flat().map((part) => typeof part === "string" ? part : messageOf(part))
    if (cause.reasons.length > 0) parts.push(messageOf(cause))
    const text = parts.join(" ")
    const write = logLevel === "Fatal" || logLevel === "Error"
      ? () => sink.error(text)
      : logLevel === "Warn"
      ? () => sink.warn(text)
      : logLevel === "Info"
      ? () => sink.info(text)
      : () => sink.debug(text)
    // A logger that throws, or whose Promise is rejected, must not end the code that logs.
    Effect.runSync(Effect.ignore(Effect.try({ try: () => calm(write()), catch: (error) => error })))
  })
  return Layer.merge(EffectLogger.layer([line]), Layer.succeed(References.MinimumLogLevel, "Debug"))
}
