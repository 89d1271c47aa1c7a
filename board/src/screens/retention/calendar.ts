/** Days and months of a log. Days are those of UTC, as the ranges of storage are. */
import type { StoredRange } from "../../api/retention.ts";

const DAY = 86_400_000;

/** A day as `2026-01-31`. */
export type DayName = string;

export interface Day {
  /** Records of the range that the day belongs to. */
  records: number;
  /** Null where the size of a range is not known. */
  bytes: number | null;
  hiddenAfter: string;
  state: string;
  /** The days of the range up to today, its first day, and its last one. Storage knows no numbers of a part of a range. */
  length: number;
  begins: DayName;
  ends: DayName;
}

function dayOf(instant: number): DayName {
  return new Date(instant).toISOString().slice(0, 10);
}

export function today(now: number): DayName {
  return dayOf(now);
}

/** Return the days that ranges cover, up to today. Ranges within one day add up, and the later end counts. */
export function daysOf(ranges: StoredRange[], now: number): Map<DayName, Day> {
  const days = new Map<DayName, Day>();
  for (const range of ranges) {
    const all = covered(range);
    const names = all.filter((name, index) => index === 0 || name <= today(now));
    for (const name of names) {
      const before = days.get(name);
      const adds = before !== undefined && before.length === 1 && names.length === 1;
      days.set(name, {
        records: (adds ? before.records : 0) + range.records,
        bytes: sum(adds ? before.bytes : 0, range.bytes),
        hiddenAfter: adds && before.hiddenAfter > range.hidden_after ? before.hiddenAfter : range.hidden_after,
        state: range.state,
        length: names.length,
        begins: all[0] ?? name,
        ends: all.at(-1) ?? name,
      });
    }
  }
  return days;
}

/** Return the sum, or null where a part of it is not known. */
export function sum(one: number | null, other: number | null): number | null {
  return one === null || other === null ? null : one + other;
}

function covered(range: StoredRange): DayName[] {
  if (range.from === null) {
    return []; // before the first readable record: no day is known
  }
  const first = Math.floor(Date.parse(range.from) / DAY);
  const end = Math.max(first + 1, Math.ceil(Date.parse(range.to) / DAY));
  return Array.from({ length: end - first }, (_, index) => dayOf((first + index) * DAY));
}

export interface Month {
  /** As `2026-01`. */
  name: string;
  /** Weeks from Monday to Sunday; null for days of other months. */
  weeks: (DayName | null)[][];
}

/** Return the months from the first to the last of these days, newest first. */
export function monthsOf(days: Iterable<DayName>): Month[] {
  const names = [...days].map((each) => each.slice(0, 7)).sort();
  const [first, last] = [names[0], names.at(-1)];
  if (first === undefined || last === undefined) return [];
  const months: Month[] = [];
  for (let name = last; name >= first; name = previous(name)) months.push({ name, weeks: weeksOf(name) });
  return months;
}

function previous(month: string): string {
  return dayOf(Date.parse(`${month}-01T00:00:00Z`) - DAY).slice(0, 7);
}

function weeksOf(month: string): (DayName | null)[][] {
  const start = Date.parse(`${month}-01T00:00:00Z`);
  const monday = start - ((new Date(start).getUTCDay() + 6) % 7) * DAY;
  const weeks: (DayName | null)[][] = [];
  for (let week = monday; dayOf(week).slice(0, 7) <= month; week += 7 * DAY) {
    const days = Array.from({ length: 7 }, (_, index) => dayOf(week + index * DAY));
    weeks.push(days.map((each) => (each.startsWith(month) ? each : null)));
  }
  return weeks;
}

/** Return the shade of a day from 0 (nothing) to 4, in steps of equal ratio up to the fullest day. */
export function levelOf(records: number, most: number): number {
  if (records <= 0 || most <= 0) return 0;
  return Math.min(4, 1 + Math.floor((4 * Math.log1p(records)) / Math.log1p(most) - 1e-9));
}

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** Return a number that fits into a cell: `3.71K`. */
export function shortCount(count: number): string {
  return compact.format(Math.round(count));
}
