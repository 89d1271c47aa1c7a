import { describe, expect, test } from "vitest";
import { diffOf } from "./diff.ts";
import { ExactNumber, parseExactly, prettyJson, scalarText } from "./json.ts";

describe("diffOf", () => {
  test("names members that were added, removed and changed, with their paths", () => {
    const diff = diffOf(
      { role: "viewer", tags: ["a", "b"], gone: 1, same: { x: null } },
      { role: "admin", tags: ["a"], same: { x: null }, new: {} },
    );
    expect(diff.changes).toEqual([
      { path: ["role"], kind: "changed", before: "viewer", after: "admin" },
      { path: ["tags", "1"], kind: "removed", before: "b" },
      { path: ["gone"], kind: "removed", before: 1 },
      { path: ["new"], kind: "added", after: {} },
    ]);
    expect(diff.same).toBe(2);
  });

  test("takes a record with one side alone as added or removed whole", () => {
    expect(diffOf(undefined, { a: 1 }).changes).toEqual([{ path: [], kind: "added", after: { a: 1 } }]);
    expect(diffOf("x", undefined).changes).toEqual([{ path: [], kind: "removed", before: "x" }]);
    expect(diffOf(undefined, undefined).changes).toEqual([]);
  });

  test("tells an object from a list, and null from absent", () => {
    expect(diffOf({ a: {} }, { a: [] }).changes).toHaveLength(1);
    expect(diffOf({ a: null }, {}).changes).toEqual([{ path: ["a"], kind: "removed", before: null }]);
  });

  test("stops at a bound and says so", () => {
    const many = Object.fromEntries(Array.from({ length: 600 }, (_, index) => [`m${index}`, index]));
    const diff = diffOf({}, many);
    expect([diff.changes.length, diff.more]).toEqual([500, true]);
  });

  test("compares numbers by the digits that were sent", () => {
    expect(
      diffOf(new ExactNumber("1180591620717411303424"), new ExactNumber("1180591620717411303425")).changes,
    ).toHaveLength(1);
    expect(diffOf(new ExactNumber("1.0"), new ExactNumber("1.0")).same).toBe(1);
  });
});

test("numbers keep their digits from the answer to the page", () => {
  const text = '{\n  "a": 1180591620717411303424,\n  "b": 1.0,\n  "c": [\n    1\n  ],\n  "d": {}\n}';
  const value = parseExactly(text) as Record<string, never>;
  expect(prettyJson(value)).toBe(text);
  expect(scalarText(value.a as never)).toBe("1180591620717411303424");
});
