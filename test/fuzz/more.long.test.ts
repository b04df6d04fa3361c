/** More random histories than `npm test` plays. */
import { describe } from "@effect/vitest"
import { playHistories } from "./histories.ts"

describe("memory, Redis and a Cluster", () => playHistories(24))
