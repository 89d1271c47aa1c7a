import { expect, test } from "vitest";
import type { Condition, Tenant } from "../../api/tenants.ts";
import { leaves, sorted, stateOf, toneOf } from "./conditions.ts";

function condition(type: string, status: Condition["status"], observedGeneration = 1): Condition {
  return { type, status, reason: "Any", message: "", observedGeneration, lastTransitionTime: "2026-01-01T00:00:00Z" };
}

function tenant(state: Tenant["state"], ...conditions: Condition[]): Tenant {
  return {
    name: "acme",
    isolation: "Shared",
    retention_days: 30,
    state,
    display_name: "Acme",
    generation: 1,
    created_at: "2026-01-01T00:00:00Z",
    deleted_at: null,
    spec: null,
    conditions,
  };
}

test("the summary comes first, and unknown conditions last", () => {
  const found = sorted([condition("Zebra", "True"), condition("QueueReady", "True"), condition("Ready", "True")]);
  expect(found.map((each) => each.type)).toEqual(["Ready", "QueueReady", "Zebra"]);
});

test("a quota that is exceeded is bad although it is True", () => {
  expect(toneOf(condition("QuotaExceeded", "True"))).toBe("bad");
  expect(toneOf(condition("QuotaExceeded", "False"))).toBe("good");
  expect(toneOf(condition("SearchReady", "Unknown"))).toBe("quiet");
});

test("what stops requests is said before what is ready", () => {
  const ready = condition("Ready", "True");
  expect(stateOf(tenant("suspended", ready)).text).toBe("Suspended");
  expect(stateOf(tenant("deleted", ready)).text).toBe("Deleted");
  expect(stateOf(tenant("active", ready)).text).toBe("Ready");
  expect(stateOf(tenant("active", condition("Ready", "False"))).text).toBe("Not ready");
  expect(stateOf(tenant("active", condition("Ready", "True", 0))).text).toBe("Changing");
  expect(stateOf(tenant("active", ready, condition("QuotaExceeded", "True"))).text).toBe("Over its quota");
  expect(stateOf(tenant("active")).text).toBe("Not seen yet");
});

test("a spec is a list of its leaves", () => {
  expect(leaves({ retention: { days: 30 }, suspend: false, tags: ["a"], displayName: "Acme" })).toEqual([
    ["retention.days", "30"],
    ["suspend", "false"],
    ["tags", '["a"]'],
    ["displayName", "Acme"],
  ]);
});
