import { defineConfig } from "vitest/config"

// Tests import the package by its own name and run its sources.
const conditions = ["rotif-source", "module", "node", "development|production"]

const memory = ["test/unit/**/*.test.ts", "test/contract/memory.test.ts"]
const long = ["test/**/*.long.test.ts"]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    projects: [
      // No server, and one process for many files: a quick run spends its time on tests.
      { extends: true, test: { name: "memory", include: memory, isolate: false } },
      {
        extends: true,
        test: {
          name: "redis",
          include: ["test/**/*.test.ts"],
          exclude: [...memory, ...long],
          globalSetup: ["test/fixtures/servers.ts"]
        }
      },
      { extends: true, test: { name: "long", include: long } }
    ],
    reporters: ["default", "./test/fixtures/TotalsReporter.ts"],
    // One line for each file; what a test prints is shown when it fails.
    silent: "passed-only",
    slowTestThreshold: 300_000,
    pool: "forks",
    // They wait more than they compute.
    maxWorkers: 3,
    maxConcurrency: 3,
    testTimeout: 20_000,
    hookTimeout: 30_000
  }
})
