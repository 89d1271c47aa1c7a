import { expect, test } from "vitest";
import type { LogRecord } from "./records.ts";
import { deedOf, sentenceText, wordsOf } from "./sentence.ts";

function record(facts: Partial<LogRecord>): LogRecord {
  return {
    tenant: "acme",
    log: "events",
    epoch: 1,
    seq: 5,
    received_at: "2026-01-01T00:00:00Z",
    digest: "sha256:0",
    action: "user.login",
    actor: { id: "u_7" },
    occurred_at: "2026-01-01T00:00:00Z",
    severity: "INFO",
    outcome: "success",
    ...facts,
  };
}

test.each<[Partial<LogRecord>, string]>([
  [
    {
      action: "ssm:DeleteParameter",
      resource: { type: "parameter", id: "credentials-5" },
      source: { ip: "192.0.2.20" },
    },
    "u_7 deleted parameter credentials-5 from 192.0.2.20: allowed",
  ],
  [{ action: "user.login", source: { ip: "192.0.2.1" } }, "u_7 logged in from 192.0.2.1: allowed"],
  [{ action: "login", source: { ip: "192.0.2.1" } }, "u_7 logged in from 192.0.2.1: allowed"],
  [
    { action: "document.delete", resource: { type: "document", id: "d-17", name: "Q3 forecast" } },
    "u_7 deleted document Q3 forecast: allowed",
  ],
  [
    { action: "document.delete", outcome: "denied", resource: { type: "document", id: "d-17" } },
    "u_7 tried to delete document d-17: denied",
  ],
  [
    { action: "iam:AttachUserPolicy", resource: { type: "AWS::IAM::User", id: "bob" } },
    "u_7 attached user policy on user bob: allowed",
  ],
  [
    { action: "sts:AssumeRole", actor: { id: "x", name: "Xenia" }, outcome: "failure" },
    "Xenia tried to assume role: failed",
  ],
  [{ action: "s3:ListBuckets", outcome: "unknown" }, "u_7 listed buckets: outcome unknown"],
  [{ action: "UserCreated", resource: { type: "user", id: "bob" } }, "u_7 created user bob: allowed"],
  [
    { action: "user.suspended", outcome: "failure", resource: { type: "user", id: "b" } },
    "u_7 tried to suspend user b: failed",
  ],
  [{ action: "pods.exec", resource: { type: "pods", id: "web-1" } }, "u_7 executed in pods web-1: allowed"],
  [{ action: "create namespaces", resource: { type: "namespaces", id: "foo" } }, "u_7 created namespaces foo: allowed"],
  [
    { action: "create pods/exec", resource: { type: "pods", id: "a/web" } },
    "u_7 created pods/exec on pods a/web: allowed",
  ],
  [{ action: "ConsoleLogin" }, "u_7 logged in to console: allowed"],
  [{ action: "frobnicate", resource: { type: "thing", id: "t" } }, "u_7 did frobnicate on thing t: allowed"],
  [{ action: "frobnicate", outcome: "denied" }, "u_7 tried frobnicate: denied"],
  [{ action: "???", resource: { type: "::" } }, "u_7 did ??? on ::: allowed"],
])("%j", (facts, sentence) => {
  expect(sentenceText(record(facts))).toBe(sentence);
});

test("any text of a record is in the sentence as it is", () => {
  const hostile = "<img src=x onerror=alert(1)>";
  expect(sentenceText(record({ actor: { id: hostile }, action: hostile }))).toContain(hostile);
});

test("words are found in every usual spelling", () => {
  for (const name of ["DeleteDBInstance", "delete_DB_instance", "delete-DB-instance"]) {
    expect(wordsOf(name)).toEqual(["delete", "DB", "instance"]);
  }
  expect(deedOf("report.export")).toEqual({ base: "export", past: "exported", object: "report" });
  expect(deedOf("a.b.tag")).toMatchObject({ past: "tagged" });
  expect(deedOf("x.apply")).toBeNull();
});
