import { defineConfig, mergeConfig } from "vitest/config";
import build from "./vite.config.ts";

// Apart from the build, which needs none of the packages of the tests.
export default mergeConfig(
  build,
  defineConfig({ test: { environment: "jsdom", include: ["src/**/*.test.{ts,tsx}"] } }),
);
