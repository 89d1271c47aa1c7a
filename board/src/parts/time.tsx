/** Times as people read them, with the exact instant at hand. */
import { useZone } from "../preferences.ts";
import { clockText } from "./clock.ts";

/** Return an RFC 3339 time in a zone as `2026-11-30 23:59:59.123`; a text that is no time stays as it is. */
export function timeText(value: string, zone: string): string {
  const instant = new Date(value);
  return Number.isNaN(instant.getTime()) ? value : clockText(instant, zone);
}

export function TimeText({ value }: { value: string }) {
  const zone = useZone();
  return (
    <time dateTime={value} title={`${value} (shown in ${zone})`}>
      {timeText(value, zone)}
    </time>
  );
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** Return how far a time is from now, as in "3 hours ago" and "in 2 days". */
export function agoText(value: string, now: number = Date.now()): string {
  const seconds = (new Date(value).getTime() - now) / 1_000;
  const [unit, size] = STEPS.find(([, each]) => Math.abs(seconds) >= each) ?? ["second", 1];
  return relative.format(Math.trunc(seconds / size), unit);
}
