import { expect, test } from "vitest";
import type { StoredRange } from "../../api/retention.ts";
import { bytesText } from "../../parts/figures.ts";
import { daysOf, levelOf, monthsOf, shortCount, today } from "./calendar.ts";

function range(from: string | null, to: string, records: number, bytes: number | null = 0): StoredRange {
  return { from, to, first_seq: 0, end_seq: records, records, bytes, hidden_after: `${to}`, state: "kept" };
}

const NOW = Date.parse("2026-04-01T12:00:00Z");

test("a range of one day is that day", () => {
  const days = daysOf([range("2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z", 5)], NOW);
  expect([...days.keys()]).toEqual(["2026-03-29"]);
  expect(days.get("2026-03-29")).toMatchObject({ records: 5, length: 1, begins: "2026-03-29", ends: "2026-03-29" });
});

test("a range of unknown beginning has no day, and a size that is not known is said", () => {
  const days = daysOf(
    [
      range(null, "2026-03-29T00:00:00Z", 5),
      range("2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z", 5, 10),
      range("2026-03-29T06:00:00Z", "2026-03-29T07:00:00Z", 5, null),
    ],
    NOW,
  );
  expect([...days.keys()]).toEqual(["2026-03-29"]);
  expect(bytesText(days.get("2026-03-29")?.bytes ?? null)).toBe("size not known");
});

test("the days of a longer range know the whole of it", () => {
  const days = daysOf([range("2026-02-27T00:00:00Z", "2026-03-02T00:00:00Z", 9)], NOW);
  expect([...days.keys()]).toEqual(["2026-02-27", "2026-02-28", "2026-03-01"]);
  expect(days.get("2026-03-01")).toMatchObject({ records: 9, length: 3, begins: "2026-02-27", ends: "2026-03-01" });
});

test("the days of a range that are to come are not covered, and its end is known", () => {
  const days = daysOf([range("2026-03-31T00:00:00Z", "2026-04-07T00:00:00Z", 9)], NOW);
  expect([...days.keys()]).toEqual(["2026-03-31", "2026-04-01"]);
  expect(days.get("2026-04-01")).toMatchObject({ length: 2, ends: "2026-04-06" });
});

test("an empty range is a day, and two ranges of a day add up with the later end", () => {
  const days = daysOf(
    [
      range("2026-03-01T06:00:00Z", "2026-03-01T06:00:00Z", 0),
      range("2026-03-01T08:00:00Z", "2026-03-01T09:00:00Z", 4),
    ],
    NOW,
  );
  expect(days.get("2026-03-01")).toMatchObject({ records: 4, hiddenAfter: "2026-03-01T09:00:00Z" });
});

test("months are whole weeks from Monday, newest first, across years and leap days", () => {
  const months = monthsOf(["2027-01-01", "2028-02-29"]);
  expect(months.map((each) => each.name)).toHaveLength(14);
  expect(months[0]?.name).toBe("2028-02");
  expect(months.at(-1)?.name).toBe("2027-01");
  const february = months[0]?.weeks ?? [];
  expect(february[0]).toEqual([
    null,
    "2028-02-01",
    "2028-02-02",
    "2028-02-03",
    "2028-02-04",
    "2028-02-05",
    "2028-02-06",
  ]);
  expect(february.flat().filter(Boolean)).toHaveLength(29);
  for (const { weeks } of months) for (const week of weeks) expect(week).toHaveLength(7);
});

test("nothing has no months", () => {
  expect(monthsOf([])).toEqual([]);
});

test("shades rise with the records, and only an empty day has none", () => {
  expect(levelOf(0, 100)).toBe(0);
  expect(levelOf(100, 100)).toBe(4);
  expect(levelOf(1, 1_000_000)).toBe(1);
  const levels = [1, 10, 100, 1_000, 10_000].map((each) => levelOf(each, 10_000));
  expect(levels).toEqual([...levels].sort());
});

test("today is a day of UTC", () => {
  expect(today(Date.parse("2026-12-31T23:59:59.999Z"))).toBe("2026-12-31");
});

test("counts and sizes are short", () => {
  expect(shortCount(3712.4)).toBe("3.71K");
  expect(bytesText(0)).toBe("0 B");
  expect(bytesText(1536)).toBe("1.5 KiB");
  expect(bytesText(41_000_000_000)).toBe("38.2 GiB");
});
