// @vitest-environment node
import { describe, expect, test } from "vitest";
import { Problem } from "../../api/client.ts";
import { barsOf, refusalOf, unreadOf, wordsOf } from "./words.ts";

const part = (start: number, end: number, meaning?: string) => ({
  start,
  end,
  text: "",
  ...(meaning ? { meaning } : {}),
});

describe("words of a question", () => {
  test("every character is in exactly one part, in order", () => {
    const question = "who 🗑 quietly deleted it?";
    const words = wordsOf(question, [part(14, 21, "action *.delete"), part(0, 3, "by actor")], [part(6, 13)]);
    expect(words.map((word) => word.text).join("")).toBe(question);
    expect(words.filter((word) => word.kind !== "plain")).toEqual([
      { text: "who", kind: "understood", meaning: "by actor" },
      { text: "quietly", kind: "unread" },
      { text: "deleted", kind: "understood", meaning: "action *.delete" },
    ]);
  });

  test("parts that overlap or lie outside change nothing", () => {
    for (const strange of [part(2, 99), part(3, 3), part(-1, 2)]) {
      const words = wordsOf("who?", [part(0, 3, "by actor")], [strange]);
      expect(words.map((word) => word.text)).toEqual(["who", "?"]);
    }
    expect(wordsOf("who?", [], [])).toEqual([{ text: "who?", kind: "plain" }]);
  });

  test("an earlier question is underlined by its texts", () => {
    const turn = { question: "🗑 who quietly?", not_understood: ["quietly", "absent"] } as never;
    expect(unreadOf(turn)).toEqual([{ text: "quietly", start: 6, end: 13 }]);
  });
});

describe("counts", () => {
  test("values come first, then what is not named, in proportion to the largest", () => {
    const counts = [
      { value: "alice", count: 8 },
      { value: "", count: 4 },
    ];
    expect(barsOf({ by: "actor.id", counts, other: 2, missing: 1 })).toEqual([
      { label: "alice", count: 8, share: 1 },
      { label: "all records", count: 4, share: 0.5 },
      { label: "other values", count: 2, share: 0.25 },
      { label: "without actor.id", count: 1, share: 0.125 },
    ]);
  });

  test("a number alone has no rows, and zeros have no length", () => {
    expect(barsOf({ by: null, counts: [], other: 0, missing: 0 })).toEqual([]);
    expect(barsOf({ by: "day", counts: [{ value: "d", count: 0 }], other: 0, missing: 0 })[0]?.share).toBe(0);
  });
});

test("a refusal names what was not understood, and other problems are none", () => {
  const members = { code: "question-not-understood", not_understood: [part(0, 2)], examples: ["who?", 7] };
  expect(refusalOf(new Problem(422, members))).toEqual({ unread: [part(0, 2)], examples: ["who?"] });
  expect(refusalOf(new Problem(422, { code: "question-not-understood" }))).toEqual({ unread: [], examples: [] });
  expect(refusalOf(new Problem(503, { code: "overloaded" }))).toBeNull();
  expect(refusalOf(new Error("no"))).toBeNull();
});
