/** Counts by time, as the timeline draws them. Pure. */
import type { Counts, Outcome } from "../../api/records.ts";
import type { Bounds } from "./range.ts";

export const INTERVALS = ["minute", "hour", "day", "week", "month"] as const;
export type Interval = (typeof INTERVALS)[number];

const LENGTHS: Record<Interval, number> = {
  minute: 60_000,
  hour: 3_600_000,
  day: 86_400_000,
  week: 604_800_000,
  month: 2_629_800_000,
};
/** Bars that are still told apart, on a screen of usual width. */
const BARS_MAX = 120;
/** Intervals of one bar, of the shortest interval that needs no more bars than that. */
const STEPS: [Interval, number][] = [
  ["minute", 1],
  ["minute", 5],
  ["minute", 15],
  ["hour", 1],
  ["hour", 4],
  ["day", 1],
  ["week", 1],
  ["month", 1],
  ["month", 12],
];

export interface Scale {
  interval: Interval;
  /** Intervals of one bar. */
  step: number;
}

/** Return the scale for a length of time in milliseconds. */
export function scaleOf(length: number): Scale {
  const [interval, step] = STEPS.find(([each, times]) => length / (LENGTHS[each] * times) <= BARS_MAX) ?? ["month", 12];
  return { interval, step };
}

/** Return the length of a bar in milliseconds; months are about as long. */
export function barLength({ interval, step }: Scale): number {
  return LENGTHS[interval] * step;
}

/** Records of one bar, by outcome. */
export interface Bar {
  from: number;
  to: number;
  count: number;
  failure: number;
  denied: number;
}

/**
 * Return one bar for each step from the first instant up to the last, also for those without records. Bars begin where the
 * intervals of the answer begin, so that a day is a day of the zone.
 */
export function barsOf(counts: Counts, scale: Scale, first: number, last: number): Bar[] {
  const length = barLength(scale);
  const starts = [
    ...new Set(counts.buckets.flatMap((each) => (each.from === null ? [] : [Date.parse(each.from)]))),
  ].sort((a, b) => a - b);
  const bars = new Map<number, Bar>();
  const barAt = (at: number): Bar => {
    const found = bars.get(at) ?? { from: at, to: at + length, count: 0, failure: 0, denied: 0 };
    bars.set(at, found);
    return found;
  };
  const origin = starts[0] ?? first;
  // A day may have 23 hours, which must not bring it into the bar before.
  const slack = LENGTHS[scale.interval] / 2;
  const startOf = (at: number) =>
    scale.step === 1 ? at : origin + Math.floor((at - origin + slack) / length) * length;
  for (const each of counts.buckets) {
    if (each.from === null) continue;
    const bar = barAt(startOf(Date.parse(each.from)));
    const outcome = each.key[0] as Outcome | null;
    bar.count += each.count;
    if (outcome === "failure") bar.failure += each.count;
    if (outcome === "denied") bar.denied += each.count;
  }
  return zeroFilled(
    [...bars.values()].sort((a, b) => a.from - b.from),
    length,
    first,
    last,
  );
}

/** Intervals may be a little longer or shorter than usual: an hour of a change of clocks, a month. */
const SLACK = 0.6;

function zeroFilled(bars: Bar[], length: number, first: number, last: number): Bar[] {
  const empty = (from: number): Bar => ({ from, to: from + length, count: 0, failure: 0, denied: 0 });
  const filled: Bar[] = [];
  const before: Bar[] = [];
  for (
    let at = (bars[0]?.from ?? first + length) - length;
    at + length > first && before.length < BARS_MAX * 2;
    at -= length
  )
    before.unshift(empty(at));
  filled.push(...before);
  bars.forEach((bar, index) => {
    const next = bars[index + 1]?.from ?? last;
    filled.push({ ...bar, to: Math.min(bar.to, index + 1 < bars.length ? next : bar.to) });
    for (let at = bar.from + length; at + length * SLACK < next && filled.length < BARS_MAX * 4; at += length)
      filled.push(empty(at));
  });
  return filled;
}

/** Return the first and the last instant of the timeline: the bounds of the range, or those of the records where it has none. */
export function extentOf(bounds: Bounds, counts: Counts, interval: Interval, now: number): [number, number] {
  const starts = counts.buckets.flatMap((each) => (each.from === null ? [] : [Date.parse(each.from)]));
  const first = bounds.from === null ? Math.min(...starts, now) : Date.parse(bounds.from);
  const end = Math.max(...starts.map((each) => each + LENGTHS[interval]), first);
  const last = bounds.to === null ? (bounds.from === null ? end : Math.max(now, end)) : Date.parse(bounds.to);
  return [first, Math.max(last, first + 1)];
}

/** Return the timeline in words. */
export function timelineText(bars: Bar[], write: (at: number) => string): string {
  const total = bars.reduce((sum, each) => sum + each.count, 0);
  const missed = bars.reduce((sum, each) => sum + each.failure + each.denied, 0);
  const highest = bars.reduce<Bar | null>((best, each) => (each.count > (best?.count ?? 0) ? each : best), null);
  if (!highest) return "No records in this range.";
  return `${total.toLocaleString("en")} records, ${missed.toLocaleString("en")} failed or denied. Most of them, ${highest.count.toLocaleString("en")}, from ${write(highest.from)}.`;
}
