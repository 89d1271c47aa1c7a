/** Ranges of time: as the address has them, as the API takes them, and as people read them. */
import { clockText } from "../../parts/clock.ts";

/** The last `amount` of `unit`, a range from one instant up to another (either end may be open), or all time. */
export type Range =
  | { kind: "last"; amount: number; unit: Unit }
  | { kind: "between"; from: string | null; to: string | null }
  | { kind: "all" };

export type Unit = "m" | "h" | "d" | "w";

const MILLISECONDS: Record<Unit, number> = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };
const UNIT_NAMES: Record<Unit, string> = { m: "minute", h: "hour", d: "day", w: "week" };
const AMOUNT_MAX = 9_999;

export const DEFAULT_RANGE = "7d";
export const PRESETS = ["15m", "1h", "24h", "7d", "30d", "all"] as const;

/** Return the range of an address such as `24h`, `all`, or `2026-01-01T00:00:00Z..`; null where it is none. */
export function parseRange(text: string): Range | null {
  if (text === "all") return { kind: "all" };
  const last = /^([1-9]\d{0,3})([mhdw])$/.exec(text);
  if (last) return { kind: "last", amount: Math.min(Number(last[1]), AMOUNT_MAX), unit: last[2] as Unit };
  const ends = text.split("..");
  if (ends.length !== 2) return null;
  const [from, to] = ends.map(instant);
  if (from === undefined || to === undefined || (from === null && to === null)) return null;
  return from !== null && to !== null && from >= to ? null : { kind: "between", from, to };
}

function instant(text: string): string | null | undefined {
  if (text === "") return null;
  const found = /^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)$/.test(text) ? new Date(text) : null;
  return found && !Number.isNaN(found.getTime()) ? found.toISOString() : undefined;
}

export function writtenRange(range: Range): string {
  if (range.kind === "all") return "all";
  return range.kind === "last" ? `${range.amount}${range.unit}` : `${range.from ?? ""}..${range.to ?? ""}`;
}

export interface Bounds {
  from: string | null;
  to: string | null;
}

/** Return the bounds of a range for the API. A range up to now has no end: an event may be a little ahead of this clock. */
export function boundsOf(range: Range, now: number): Bounds {
  if (range.kind === "all") return { from: null, to: null };
  if (range.kind === "between") return { from: range.from, to: range.to };
  return { from: new Date(now - range.amount * MILLISECONDS[range.unit]).toISOString(), to: null };
}

/** Return the shorter range that helps where a search takes too long; null where there is none. */
export function shorter(range: Range, now: number): Range | null {
  if (range.kind === "all") return { kind: "last", amount: 30, unit: "d" };
  if (range.kind === "last") {
    const span = range.amount * MILLISECONDS[range.unit];
    const next = (["7d", "24h", "1h", "15m"] as const)
      .map(parseRange)
      .find((each) => each?.kind === "last" && each.amount * MILLISECONDS[each.unit] < span);
    return next ?? null;
  }
  const end = range.to === null ? now : Date.parse(range.to);
  const start = range.from === null ? end - 60 * MILLISECONDS.d : Date.parse(range.from);
  return end - start < MILLISECONDS.m
    ? null
    : { kind: "between", from: new Date(end - (end - start) / 2).toISOString(), to: range.to };
}

export function rangeText(range: Range, write: (instant: string) => string): string {
  if (range.kind === "all") return "All time";
  if (range.kind === "last") return `Last ${range.amount} ${UNIT_NAMES[range.unit]}${range.amount === 1 ? "" : "s"}`;
  if (range.from === null) return `Before ${write(range.to ?? "")}`;
  return range.to === null ? `Since ${write(range.from)}` : `${write(range.from)} – ${write(range.to)}`;
}

/** Return the wall clock of a zone at an instant as `2026-01-31T09:00:00`. */
export function wallOf(instant: number, zone: string): string {
  return clockText(instant, zone)
    .replace(" ", "T")
    .replace(/\.\d+$/, "");
}

/** Return the instant at which the wall clock of a zone shows a time, such as `2026-01-31T09:00`; null for a text that is no time. */
export function instantOf(wall: string, zone: string): string | null {
  const wanted = Date.parse(`${wall.length === 16 ? `${wall}:00` : wall}Z`);
  if (Number.isNaN(wanted)) return null;
  let guess = wanted;
  // The offset at the guess brings it nearer; near a change of clocks the second step is the right one.
  for (let step = 0; step < 2; step += 1) guess += wanted - Date.parse(`${wallOf(guess, zone)}Z`);
  return new Date(guess).toISOString();
}
