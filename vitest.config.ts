import { join } from "node:path"
import { defineConfig } from "vitest/config"
import LongestFirst from "./test/fixtures/LongestFirst.ts"

// Tests import the package by its own name and run its sources.
const conditions = ["rotif-source", "module", "node", "development|production"]

const memory = ["test/unit/**/*.test.ts", "test/contract/memory.test.ts"]
// It counts steps by the coverage of its whole process, which is slow beside the modules of other tests.
const alone = ["test/unit/pattern.test.ts"]
const long = ["test/**/*.long.test.ts"]
// These compile and run every page and every example, and pack the package: `npm run check` has them.
const shape = ["test/redis/docs.test.ts", "test/redis/examples.test.ts", "test/package.test.ts"]

// Tests on Redis wait more than they compute.
const maxWorkers = 6

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    projects: [
      // No server, and one process for many files: a quick run spends its time on tests.
      {
        extends: true,
        test: {
          name: "memory",
          include: memory,
          exclude: alone,
          isolate: false,
          maxWorkers,
          sequence: { groupOrder: 1 }
        }
      },
      {
        extends: true,
        test: { name: "memory-alone", include: alone, maxWorkers, sequence: { groupOrder: 1 } }
      },
      {
        extends: true,
        test: {
          name: "redis",
          include: ["test/**/*.test.ts"],
          exclude: [...memory, ...long, ...shape],
          globalSetup: ["test/fixtures/servers.ts"],
          maxWorkers,
          sequence: { groupOrder: 1 }
        }
      },
      {
        extends: true,
        test: { name: "shape", include: shape, globalSetup: ["test/fixtures/servers.ts"], sequence: { groupOrder: 2 } }
      },
      {
        extends: true,
        test: {
          name: "long",
          include: long,
          globalSetup: ["test/fixtures/servers.ts"],
          maxWorkers: 2,
          sequence: { groupOrder: 3 }
        }
      }
    ],
    reporters: ["default", "./test/fixtures/TotalsReporter.ts"],
    // One line for each file; what a test prints is shown when it fails.
    silent: "passed-only",
    slowTestThreshold: 300_000,
    sequence: { sequencer: LongestFirst },
    // The programs that tests start load what another one has compiled.
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, "node_modules/.cache/node") },
    pool: "forks",
    maxConcurrency: 3,
    testTimeout: 20_000,
    hookTimeout: 30_000
  }
})
