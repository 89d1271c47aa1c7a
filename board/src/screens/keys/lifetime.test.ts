import { expect, test } from "vitest";
import type { ApiKey } from "../../api/api-keys.ts";
import { curlText, endText, isInForce, makerText, stateOf } from "./lifetime.ts";

const NOW = Date.parse("2026-03-01T00:00:00Z");
const key: ApiKey = {
  id: "7c1d",
  role: "writer",
  name: "Billing",
  source: "api",
  created_at: "2026-01-01T00:00:00Z",
  created_by: "api_key::0f3a",
  expires_at: null,
  revoked_at: null,
  last_used_at: null,
};

test("a key without an end is in force", () => {
  expect(stateOf(key, NOW)).toEqual({ tone: "good", text: "In force" });
  expect(endText(key, NOW)).toBe("no end");
});

test("a key that ends within a week is pointed out, to the instant of its end", () => {
  const soon = { ...key, expires_at: "2026-03-04T00:00:00Z" };
  expect(stateOf(soon, NOW)).toEqual({ tone: "warn", text: "Ends in 3 days" });
  expect(isInForce(soon, NOW)).toBe(true);
  const ended = { ...key, expires_at: "2026-03-01T00:00:00Z" };
  expect(stateOf(ended, NOW).text).toBe("Expired");
  expect(isInForce(ended, NOW)).toBe(false);
});

test("a revoked key is revoked, whatever its end", () => {
  const revoked = { ...key, revoked_at: "2026-02-28T00:00:00Z", expires_at: "2026-03-02T00:00:00Z" };
  expect(stateOf(revoked, NOW).text).toBe("Revoked");
  expect(endText(revoked, NOW)).toBe("revoked yesterday");
  expect(isInForce(revoked, NOW)).toBe(false);
});

test("makers are named", () => {
  expect(makerText(key)).toBe("key 0f3a");
  expect(makerText({ ...key, created_by: "jwt:https://login.example:noor" })).toBe("https://login.example:noor");
  expect(makerText({ ...key, source: "provisioned", created_by: null })).toBe("Provisioning");
  expect(makerText({ ...key, created_by: null })).toBe("unknown");
});

test("the command of an auditor's key reads, that of a writer's key stores", () => {
  expect(curlText("http://a", "auditor", "dlk_x")).toBe(
    "curl -s http://a/api/v1/logs -H 'Authorization: Bearer dlk_x'",
  );
  expect(curlText("http://a", "writer", "dlk_x")).toContain("-d '{");
});
