import { describe, expect, test } from "vitest";
import type { Counts } from "../../api/records.ts";
import { barLength, barsOf, extentOf, scaleOf, timelineText } from "./timeline.ts";

const HOUR = 3_600_000;
const START = Date.parse("2026-01-01T00:00:00Z");

function counts(buckets: [number, string, number][]): Counts {
  return {
    head: 9,
    indexed_from: 0,
    indexed: 9,
    engine: "postgres",
    total: buckets.reduce((sum, each) => sum + each[2], 0),
    facets: {},
    buckets: buckets.map(([at, outcome, count]) => ({ key: [outcome], from: new Date(at).toISOString(), count })),
  };
}

test("a scale has at most 120 bars", () => {
  expect(
    [0.25, 1, 24, 168, 720, 24 * 365, 24 * 3650]
      .map((hours) => scaleOf(hours * HOUR))
      .map((each) => [each.interval, each.step]),
  ).toEqual([
    ["minute", 1],
    ["minute", 1],
    ["minute", 15],
    ["hour", 4],
    ["day", 1],
    ["week", 1],
    ["month", 1],
  ]);
});

describe("barsOf", () => {
  test("adds outcomes up, and fills what is empty up to both ends", () => {
    const scale = { interval: "hour", step: 1 } as const;
    const bars = barsOf(
      counts([
        [START + 2 * HOUR, "success", 5],
        [START + 2 * HOUR, "denied", 2],
        [START + 4 * HOUR, "failure", 1],
      ]),
      scale,
      START,
      START + 6 * HOUR,
    );
    expect(bars.map((each) => [(each.from - START) / HOUR, each.count, each.failure, each.denied])).toEqual([
      [0, 0, 0, 0],
      [1, 0, 0, 0],
      [2, 7, 0, 2],
      [3, 0, 0, 0],
      [4, 1, 1, 0],
      [5, 0, 0, 0],
    ]);
  });

  test("puts several intervals into one bar", () => {
    const scale = { interval: "hour", step: 4 } as const;
    const bars = barsOf(
      counts([
        [START, "success", 1],
        [START + 3 * HOUR, "success", 1],
        [START + 4 * HOUR, "success", 1],
      ]),
      scale,
      START,
      START + 8 * HOUR,
    );
    expect(bars.map((each) => each.count)).toEqual([2, 1]);
    expect(barLength(scale)).toBe(4 * HOUR);
  });

  test("keeps a day of 23 hours", () => {
    const scale = { interval: "day", step: 1 } as const;
    const days = [Date.parse("2026-03-28T23:00:00Z"), Date.parse("2026-03-29T22:00:00Z")];
    const bars = barsOf(
      counts(days.map((each) => [each, "success", 1])),
      scale,
      days[0] ?? 0,
      (days[1] ?? 0) + 24 * HOUR,
    );
    expect(bars.map((each) => [each.from, each.count])).toEqual(days.map((each) => [each, 1]));
    expect(bars[0]?.to).toBe(days[1]);
  });

  test("is empty bars alone where nothing matches", () => {
    const bars = barsOf(counts([]), { interval: "hour", step: 1 }, START, START + 3 * HOUR);
    expect(bars.every((each) => each.count === 0)).toBe(true);
  });
});

test("the extent is the range, or that of the records", () => {
  const found = counts([
    [START, "success", 1],
    [START + HOUR, "success", 1],
  ]);
  expect(extentOf({ from: null, to: null }, found, "hour", START + 99 * HOUR)).toEqual([START, START + 2 * HOUR]);
  expect(extentOf({ from: new Date(START - HOUR).toISOString(), to: null }, found, "hour", START + 9 * HOUR)).toEqual([
    START - HOUR,
    START + 9 * HOUR,
  ]);
});

test("the timeline is said in words", () => {
  const bars = barsOf(
    counts([
      [START, "denied", 2],
      [START + HOUR, "success", 1500],
    ]),
    { interval: "hour", step: 1 },
    START,
    START + 2 * HOUR,
  );
  expect(timelineText(bars, (at) => new Date(at).toISOString())).toBe(
    "1,502 records, 2 failed or denied. Most of them, 1,500, from 2026-01-01T01:00:00.000Z.",
  );
  expect(timelineText([], String)).toBe("No records in this range.");
});
