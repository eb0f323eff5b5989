import { defineConfig } from "vitest/config";

const results = process.env.DYAD_TEST_RESULTS;

/**
 * Processes rather than threads: lmdb is native code, and a test that ends an agent must not end
 * its neighbours. Two at a time, because tests start real servers and the smallest machine we
 * promise has two cores.
 */
// eslint-disable-next-line no-restricted-syntax -- vitest reads the default export
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    // Set by .ci/run, which counts from the file.
    reporters: results ? ["default", ["json", { outputFile: results }]] : ["default"],
  },
});
