import { describe, expect, test } from "vitest";
import { boundsOf, instantOf, parseRange, rangeText, shorter, wallOf, writtenRange } from "./range.ts";

const NOW = Date.parse("2026-03-01T12:00:00Z");

describe("parseRange", () => {
  test.each([
    "15m",
    "24h",
    "7d",
    "2w",
    "all",
    "2026-01-01T00:00:00.000Z..",
    "..2026-01-01T00:00:00.000Z",
    "2026-01-01T00:00:00.000Z..2026-01-02T00:00:00.000Z",
  ])("reads %s, and writes it so again", (text) => {
    const range = parseRange(text);
    expect(range && writtenRange(range)).toBe(text);
  });

  test.each([
    "",
    "..",
    "0m",
    "24",
    "h",
    "24y",
    "99999d",
    "yesterday",
    "2026-01-01..",
    "2026-01-02T00:00:00Z..2026-01-01T00:00:00Z",
    "x..y",
    "a..b..c",
  ])("refuses %j", (text) => {
    expect(parseRange(text)).toBeNull();
  });

  test("takes any offset", () => {
    expect(parseRange("2026-01-01T01:00:00+01:00..")).toEqual({
      kind: "between",
      from: "2026-01-01T00:00:00.000Z",
      to: null,
    });
  });
});

test("bounds are those of the moment of the question, and up to now is open", () => {
  expect(boundsOf({ kind: "last", amount: 24, unit: "h" }, NOW)).toEqual({
    from: "2026-02-28T12:00:00.000Z",
    to: null,
  });
  expect(boundsOf({ kind: "all" }, NOW)).toEqual({ from: null, to: null });
});

test("a shorter range is offered until there is none", () => {
  let text = "all";
  const offered: string[] = [];
  for (let range = parseRange(text); range; range = shorter(range, NOW)) {
    text = writtenRange(range);
    offered.push(text);
  }
  expect(offered).toEqual(["all", "30d", "7d", "24h", "1h", "15m"]);
  expect(shorter({ kind: "between", from: "2026-02-01T00:00:00.000Z", to: "2026-02-03T00:00:00.000Z" }, NOW)).toEqual({
    kind: "between",
    from: "2026-02-02T00:00:00.000Z",
    to: "2026-02-03T00:00:00.000Z",
  });
});

test("ranges are read as sentences", () => {
  const write = (text: string) => text.slice(0, 10);
  expect(
    ["1h", "7d", "all", "2026-01-01T00:00:00Z..", "..2026-01-01T00:00:00Z"].map((each) =>
      rangeText(parseRange(each) ?? { kind: "all" }, write),
    ),
  ).toEqual(["Last 1 hour", "Last 7 days", "All time", "Since 2026-01-01", "Before 2026-01-01"]);
});

describe("clocks of a zone", () => {
  test.each([
    ["2026-01-31T09:00:00", "Europe/Amsterdam", "2026-01-31T08:00:00.000Z"],
    ["2026-07-31T09:00", "America/New_York", "2026-07-31T13:00:00.000Z"],
    ["2026-03-29T03:30:00", "Europe/Amsterdam", "2026-03-29T01:30:00.000Z"],
    ["2026-01-31T09:00:00", "Asia/Kathmandu", "2026-01-31T03:15:00.000Z"],
  ])("%s in %s is %s", (wall, zone, at) => {
    expect(instantOf(wall, zone)).toBe(at);
    expect(wallOf(Date.parse(at), zone).startsWith(wall)).toBe(true);
  });

  test("a text that is no time is none", () => {
    expect(instantOf("soon", "UTC")).toBeNull();
  });
});
