import { defineConfig, mergeConfig } from "vitest/config";
import build from "./vite.config.ts";

// Apart from the build, which needs none of the packages of the tests. One thread with one page for all files takes a fifth of the
// processor time of a process and a page for each.
export default mergeConfig(
  build,
  defineConfig({
    test: { environment: "jsdom", include: ["src/**/*.test.{ts,tsx}"], pool: "threads", isolate: false, maxWorkers: 1 },
  }),
);
