import { expect, test } from "vitest";
import { marksOf, partsOf } from "./marks.tsx";

test("every second part is marked, in characters as people count them", () => {
  expect(partsOf("the quick fox", [[4, 9]])).toEqual(["the ", "quick", " fox"]);
  expect(
    partsOf("🦊🦊 fox", [
      [1, 2],
      [3, 6],
    ]),
  ).toEqual(["🦊", "🦊", " ", "fox", ""]);
  expect(
    partsOf("abc", [
      [1, 3],
      [0, 2],
    ]),
  ).toEqual(["", "ab", "", "c", ""]);
  expect(partsOf("abc", [])).toEqual(["abc"]);
});

test("places have the names of queries, and asked values have no mark", () => {
  const highlights = {
    seq: 1,
    more: false,
    places: [
      { path: "/metadata/a~1b", spans: [[0, 1]] as [number, number][] },
      { path: "/action", spans: [] },
    ],
  };
  expect([...marksOf(highlights, new Set(["action"]))]).toEqual([["metadata.a/b", [[0, 1]]]]);
});
