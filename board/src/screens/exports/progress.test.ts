// @vitest-environment node
import { expect, test } from "vitest";
import { bytesText } from "../../parts/figures.ts";
import { progressOf, type Sample, sampled } from "./progress.ts";

test("rate and time left are those of the last seconds, not of the whole export", () => {
  let samples: Sample[] = [];
  for (let second = 0; second <= 20; second += 1) {
    samples = sampled(samples, {
      at: second * 1_000,
      records: second < 10 ? 0 : (second - 10) * 100,
      bytes: second * 1_024,
    });
  }
  expect(samples.length).toBeLessThan(10);
  expect(progressOf(samples, 2_000)).toEqual({
    fraction: 0.5,
    recordsPerSecond: 100,
    bytesPerSecond: 1_024,
    secondsLeft: 10,
  });
});

test("an export without a total, without a rate or without records tells no time", () => {
  const start = [{ at: 0, records: 0, bytes: 0 }];
  expect(progressOf([], null)).toEqual({ fraction: null, recordsPerSecond: 0, bytesPerSecond: 0, secondsLeft: null });
  expect(progressOf(start, 10).secondsLeft).toBeNull();
  expect(progressOf(start, 0).fraction).toBe(1);
  expect(
    progressOf(
      [
        { at: 0, records: 0, bytes: 0 },
        { at: 1_000, records: 12, bytes: 9 },
      ],
      10,
    ),
  ).toMatchObject({
    fraction: 1,
    secondsLeft: 0,
  });
});

test("bytes are read in binary units", () => {
  expect([0, 1_023, 1_536, 5 * 1_024 * 1_024, 200 * 1_024].map(bytesText)).toEqual([
    "0 B",
    "1023 B",
    "1.5 KiB",
    "5.0 MiB",
    "200 KiB",
  ]);
});
