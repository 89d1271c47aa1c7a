// @vitest-environment node
import { describe, expect, test } from "vitest";
import type { LogRecord } from "../../api/records.ts";
import actions from "../../generated/access-actions.json";
import { askedOf, concernOf, groupOf, isKnown, plain, sentenceOf, whoOf } from "./sentences.ts";

function record(action: string, metadata: unknown = {}, more: Partial<LogRecord> = {}): LogRecord {
  return {
    tenant: "acme",
    log: "access",
    epoch: 0,
    seq: 1,
    received_at: "2026-01-31T12:00:00.000000Z",
    digest: "sha256:0",
    action,
    actor: { type: "api_key", id: "0f3a9c51d2e4b687" },
    occurred_at: "2026-01-31T12:00:00Z",
    severity: "INFO",
    outcome: "success",
    resource: { type: "log", id: "events" },
    metadata: metadata as never,
    ...more,
  };
}

const said = (...args: Parameters<typeof record>) => plain(sentenceOf(record(...args)));

describe("every action that Decklog records", () => {
  test.each(actions)("%s has a sentence and a group", (action) => {
    expect(isKnown(action)).toBe(true);
    expect(groupOf(action)).not.toBeNull();
  });

  test.each(actions)("%s reads well without any details, and with strange ones", (action) => {
    const strange = { filter: [1], records: "x", fields: {}, damaged: "y", failed: null, requestedBy: 7, by: null };
    for (const metadata of [{}, null, [], "text", strange]) {
      for (const resource of [null, { type: "log", id: "events" }]) {
        const text = said(action, metadata, { resource });
        expect(text.trim()).not.toBe("");
        expect(text).not.toMatch(/undefined|null|NaN|\[object/);
      }
    }
  });

  test("one that this page does not know yet is named as it is", () => {
    expect(isKnown("constructor")).toBe(false);
    expect(said("proofs.read", {}, { resource: { type: "proof", id: "p1" } })).toBe("`proofs.read` on `p1`");
  });
});

describe("sentences", () => {
  const filter = { q: "actor.id:alice" };

  test("a search says the query and how many records it gave", () => {
    expect(said("log.search", { filter, records: 12, limit: 50 })).toBe("searched `actor.id:alice`: 12 records");
    expect(said("log.search", { filter: {}, records: 1 })).toBe("searched all records: 1 record");
    expect(
      said(
        "log.search",
        { filter: { since: "a", until: "b" }, records: 0 },
        { resource: { type: "log", id: "access" } },
      ),
    ).toBe("searched all records from a to b in the access log: 0 records");
  });

  test("a reading that failed says why", () => {
    expect(said("log.search", { filter, records: 0, code: "search-unavailable" }, { outcome: "failure" })).toBe(
      "searched `actor.id:alice`: it ended with `search-unavailable`",
    );
    expect(said("log.read", { seq: "17", records: 0, damaged: [17] }, { outcome: "failure" })).toBe(
      "read record `17`: record 17 did not match its digest, so nothing was given",
    );
    expect(said("log.read", { seq: "99", records: 0 }, { outcome: "failure" })).toBe(
      "asked for record `99`, which is not there",
    );
  });

  test("an export says its form, and whether it was whole", () => {
    const details = { filter, format: "csv", fields: ["seq", "action"], head: 90, records: 1_200 };
    expect(said("log.export.open", details)).toBe("began to export `actor.id:alice` as CSV with 2 fields");
    expect(said("log.export.close", details)).toBe("exported `actor.id:alice` as CSV with 2 fields: 1,200 records");
    expect(said("log.export.close", { ...details, reason: "client-gone" }, { outcome: "failure" })).toBe(
      "did not finish an export of `actor.id:alice` as CSV with 2 fields: 1,200 records, then it ended with `client-gone`",
    );
  });

  test("counts, streams, saved searches, keys, tenants and refusals", () => {
    expect(said("log.stats", { filter, by: ["action"], facets: ["actor"], interval: "day", buckets: 14 })).toBe(
      "counted by action, actor for each day `actor.id:alice`: 14 groups",
    );
    expect(said("log.stream.close", { filter: {}, records: 3, code: "reader-too-slow" })).toBe(
      "stopped following all records: 3 records, then it ended with `reader-too-slow`",
    );
    expect(said("searches.save", { name: "Denied", shared: true })).toBe(
      "saved the search `Denied`, shared with all readers",
    );
    expect(
      said(
        "keys.create",
        { key_role: "auditor", name: "ci", expires_in: 864_000 },
        { resource: { type: "key", id: "k1" } },
      ),
    ).toBe("made the auditor key `k1` “ci” for 10 days");
    expect(said("tenants.create.close", { new: true }, { resource: { type: "tenant", id: "acme" } })).toBe(
      "created the tenant `acme`",
    );
    expect(said("access.refused", { code: "unauthenticated", reason: "revoked key", count: 40, since: "t" })).toBe(
      "was refused 40 times since t: `unauthenticated` (revoked key)",
    );
    expect(
      said(
        "tenant.provision",
        { actions: ["IssueKeys"], failed: { queue: "x" } },
        { resource: { type: "tenant", id: "acme" } },
      ),
    ).toBe("changed the tenant `acme`: IssueKeys; failed: queue");
  });
});

test("who acted is the credential and its role", () => {
  expect(plain(whoOf(record("log.read", { role: "auditor" })))).toBe("Auditor key `0f3a9c51d2e4b687`");
  expect(plain(whoOf(record("log.read", { role: "admin" }, { actor: { type: "jwt", id: "bob@x" } })))).toBe(
    "`bob@x` (admin)",
  );
  expect(plain(whoOf(record("tenant.provision", {}, { actor: { type: "decklog", id: "provisioning" } })))).toBe(
    "Provisioning",
  );
});

test("refused, damaged and failed reads stand out, in this order", () => {
  expect(concernOf(record("access.refused", {}, { outcome: "denied" }))).toBe("refused");
  expect(concernOf(record("log.read", { damaged: [3] }, { outcome: "failure" }))).toBe("damaged");
  expect(concernOf(record("log.search", { code: "search-unavailable" }, { outcome: "failure" }))).toBe("failed");
  expect(concernOf(record("log.search", { records: 3 }))).toBeNull();
});

test("the query of a record can be run again", () => {
  expect(askedOf(record("log.search", { filter: { q: "a", since: "2026-01-01T00:00:00.000000Z" } }))).toEqual({
    q: "a",
    since: "2026-01-01T00:00:00.000000Z",
    until: null,
    log: "events",
  });
  expect(askedOf(record("keys.list", {}))).toBeNull();
});

test.each([
  ["occurred_at:>=A AND occurred_at:<B", null],
  ["occurred_at:>=A AND occurred_at:<B AND action:x AND (b OR c)", "action:x AND (b OR c)"],
  ['occurred_at:>=A AND message:"this OR that"', 'message:"this OR that"'],
  ["occurred_at:>=A AND x OR occurred_at:>=A AND y", "occurred_at:>=A AND x OR occurred_at:>=A AND y"],
  ["action:x AND occurred_at:>=A", "action:x AND occurred_at:>=A"],
])("the bounds of %s are told as times, and never at the price of another meaning", (q, rest) => {
  expect(askedOf(record("log.search", { filter: { q, since: "A", until: "B" } }))?.q).toBe(rest);
});
