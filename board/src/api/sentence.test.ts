import { expect, test } from "vitest";
import type { LogRecord } from "./records.ts";
import { deedOf, sentenceText, wordsOf } from "./sentence.ts";
import sentences from "./sentences.json";

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

test.each(sentences as [Partial<LogRecord>, string][])("%j", (facts, sentence) => {
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
