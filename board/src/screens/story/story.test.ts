import { expect, test } from "vitest";
import type { LogRecord } from "../../api/records.ts";
import { storyPath } from "../../parts/record/stories.ts";
import { chaptersOf, lengthText, parseSubject, subjectFilters, subjectText } from "./story.ts";

function at(seconds: number): LogRecord {
  return { occurred_at: new Date(seconds * 1_000).toISOString() } as LogRecord;
}

test("the address names the subject", () => {
  const subject = parseSubject(storyPath("resource_id", "a b&c", "document").slice("/story?".length));
  expect(subject).toEqual({ kind: "resource_id", value: "a b&c", type: "document" });
  expect(subject && subjectText(subject)).toBe("document a b&c");
  expect(subject && subjectFilters(subject)).toEqual([
    ["resource.id", "a b&c"],
    ["resource.type", "document"],
  ]);
  expect(parseSubject("")).toBeNull();
  expect(parseSubject("actor=")).toBeNull();
});

test("a long pause begins a chapter, and what long is depends on the subject", () => {
  const records = [at(0), at(5), at(100), at(4_000)];
  expect(chaptersOf(records, "correlation_id").map((each) => [each.pause, each.records.length])).toEqual([
    [null, 2],
    [95_000, 1],
    [3_900_000, 1],
  ]);
  expect(chaptersOf(records, "actor").map((each) => each.records.length)).toEqual([3, 1]);
  expect(chaptersOf([], "actor")).toEqual([]);
});

test("lengths are read in their largest unit", () => {
  expect([500, 1_000, 119_000, 7_200_000, 90_000_000].map(lengthText)).toEqual([
    "0 seconds",
    "1 second",
    "1 minute",
    "2 hours",
    "1 day",
  ]);
});
