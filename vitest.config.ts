import { defineConfig } from "vitest/config"

// Tests import the package by its own name and run its sources.
const conditions = ["rotif-source", "module", "node", "development|production"]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/fixtures/servers.ts"],
    reporters: ["default", "./test/fixtures/TotalsReporter.ts"],
    pool: "forks",
    // They wait more than they compute.
    maxWorkers: 3,
    maxConcurrency: 3,
    testTimeout: 20_000,
    hookTimeout: 30_000
  }
})
