/** Content of a tail: the newest records within fixed bounds, and whether each followed the one before. Pure; it opens no connection. */
import { numberText } from "../../parts/figures.ts";

/** A place in a log: `epoch.microseconds.seq`. */
export interface Position {
  epoch: number;
  seq: number;
}

/** A record as a tail holds it. */
export interface Item<Rec> {
  position: string;
  seq: number;
  record: Rec;
  /** Characters of its JSON, which bound the memory of a tail. */
  size: number;
}

/** A notice between two records: what happened to the connection after the record below it. */
export interface Mark {
  id: string;
  kind: "resumed" | "gap" | "epoch";
  text: string;
}

export type Row<Rec> = { item: Item<Rec>; mark?: undefined } | { mark: Mark; item?: undefined };

export interface Tail<Rec> {
  /** Newest first. */
  rows: readonly Row<Rec>[];
  /** Rows that came while the tail was paused, newest first. */
  held: readonly Row<Rec>[];
  paused: boolean;
  /** Place after which the stream goes on: that of the last event, whether a record or a heartbeat. */
  position: string | null;
  /** Records that came since the tail was opened. */
  received: number;
  /** Records that came while paused, also those that are not held any more. */
  waiting: number;
  /** Older records that are not drawn any more, because the tail has bounds. */
  dropped: number;
  /** Records that came a second time and were left out. */
  doubled: number;
  /** Records of an unfiltered tail that should have come and did not. */
  missing: number;
}

export const ROWS_MAX = 2_000;
export const CHARS_MAX = 16 * 1024 * 1024;

export function emptyTail<Rec>(): Tail<Rec> {
  return {
    rows: [],
    held: [],
    paused: false,
    position: null,
    received: 0,
    waiting: 0,
    dropped: 0,
    doubled: 0,
    missing: 0,
  };
}

export function parsePosition(text: string): Position | null {
  const found = /^(\d{1,9})\.\d{1,18}\.(-1|\d{1,18})$/.exec(text);
  return found ? { epoch: Number(found[1]), seq: Number(found[2]) } : null;
}

/** Return the newest rows that fit into the bounds, and how many records do not. */
function bounded<Rec>(rows: readonly Row<Rec>[]): { kept: readonly Row<Rec>[]; dropped: number } {
  let chars = 0;
  let end = 0;
  while (end < rows.length && end < ROWS_MAX) {
    chars += rows[end]?.item?.size ?? 0;
    if (chars > CHARS_MAX && end > 0) break;
    end += 1;
  }
  if (end === rows.length) return { kept: rows, dropped: 0 };
  return { kept: rows.slice(0, end), dropped: rows.slice(end).filter((row) => row.item).length };
}

function placed<Rec>(tail: Tail<Rec>, newest: readonly Row<Rec>[]): Tail<Rec> {
  if (newest.length === 0) return tail;
  const records = newest.filter((row) => row.item).length;
  const { kept, dropped } = bounded([...newest, ...(tail.paused ? tail.held : tail.rows)]);
  const counted = { ...tail, dropped: tail.dropped + dropped };
  return tail.paused ? { ...counted, held: kept, waiting: tail.waiting + records } : { ...counted, rows: kept };
}

/**
 * Add records in the order of their arrival, oldest first.
 *
 * A record at or below the last position is a double and is left out. In an unfiltered tail each `seq` follows the one before;
 * where it does not, a mark says which records are missing.
 */
export function arrived<Rec>(tail: Tail<Rec>, items: readonly Item<Rec>[], unfiltered: boolean): Tail<Rec> {
  const newest: Row<Rec>[] = [];
  let { position, doubled, missing, received } = tail;
  for (const item of items) {
    const last = position === null ? null : parsePosition(position);
    const here = parsePosition(item.position);
    if (last && here && here.epoch === last.epoch) {
      if (here.seq <= last.seq) {
        doubled += 1;
        continue;
      }
      if (unfiltered && here.seq > last.seq + 1) {
        missing += here.seq - last.seq - 1;
        newest.unshift({ mark: gap(last.seq + 1, here.seq - 1, item.position) });
      }
    } else if (last && here) {
      newest.unshift({
        mark: {
          id: `epoch-${item.position}`,
          kind: "epoch",
          text: "The log was restored: sequence numbers begin again.",
        },
      });
    }
    position = item.position;
    received += 1;
    newest.unshift({ item });
  }
  return placed({ ...tail, position, doubled, missing, received }, newest);
}

function gap(first: number, last: number, position: string): Mark {
  const which = first === last ? `Record ${numberText(first)}` : `Records ${numberText(first)} to ${numberText(last)}`;
  return { id: `gap-${position}`, kind: "gap", text: `${which} did not arrive. Open them in Search.` };
}

/** Note the place that a heartbeat or the opening of the stream names: up to it, every match has come. */
export function reached<Rec>(tail: Tail<Rec>, position: string, unfiltered: boolean): Tail<Rec> {
  const last = tail.position === null ? null : parsePosition(tail.position);
  const here = parsePosition(position);
  if (last && here && here.epoch === last.epoch && here.seq < last.seq) return tail;
  if (unfiltered && last && here && here.epoch === last.epoch && here.seq > last.seq) {
    const lost = { ...tail, position, missing: tail.missing + here.seq - last.seq };
    return placed(lost, [{ mark: gap(last.seq + 1, here.seq, position) }]);
  }
  return { ...tail, position };
}

/** Return how long something took, as in "12 s" and "3 min 20 s". */
export function durationText(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1_000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * Note that a broken stream is open again, after `away` milliseconds.
 *
 * `position` is where the server says that the stream goes on. Nothing was missed if that is the place that was reached before.
 */
export function resumed<Rec>(tail: Tail<Rec>, position: string, away: number): Tail<Rec> {
  const last = tail.position === null ? null : parsePosition(tail.position);
  const here = parsePosition(position);
  const broken = `The connection was lost for ${durationText(away)}.`;
  let mark: Mark;
  if (!last || !here || (last.epoch === here.epoch && last.seq === here.seq)) {
    const from = here && here.seq >= 0 ? `after record ${numberText(here.seq)}` : "from the first record";
    mark = {
      id: `resumed-${tail.received}-${position}-${tail.rows.length + tail.held.length}`,
      kind: "resumed",
      text: `${broken} The tail went on ${from}: nothing was missed.`,
    };
  } else {
    const text = `${broken} The tail went on after record ${numberText(here.seq)}, not after ${numberText(last.seq)}.`;
    mark = { id: `gap-${position}-${tail.received}`, kind: "gap", text };
  }
  return placed({ ...tail, position }, [{ mark }]);
}

export function paused<Rec>(tail: Tail<Rec>): Tail<Rec> {
  return tail.paused ? tail : { ...tail, paused: true };
}

/** Draw what was held, and go on. */
export function continued<Rec>(tail: Tail<Rec>): Tail<Rec> {
  if (!tail.paused) return tail;
  const { kept, dropped } = bounded([...tail.held, ...tail.rows]);
  return { ...tail, paused: false, rows: kept, held: [], waiting: 0, dropped: tail.dropped + dropped };
}

/** Seconds over which a rate is taken. */
const RATE_SECONDS = 10;

/** Counts arrivals by second, and returns their rate over the last ten seconds. */
export class Rate {
  #counts = new Map<number, number>();

  add(count: number, now: number): void {
    const second = Math.floor(now / 1_000);
    this.#counts.set(second, (this.#counts.get(second) ?? 0) + count);
    for (const each of this.#counts.keys()) if (each <= second - RATE_SECONDS) this.#counts.delete(each);
  }

  perSecond(now: number): number {
    const second = Math.floor(now / 1_000);
    let sum = 0;
    for (const [each, count] of this.#counts) if (each > second - RATE_SECONDS) sum += count;
    return sum / RATE_SECONDS;
  }
}

export function rateText(perSecond: number): string {
  if (perSecond === 0) return "no new records in 10 s";
  if (perSecond < 1) return `${perSecond.toFixed(1)} records/s`;
  return `${numberText(Math.round(perSecond))} record${Math.round(perSecond) === 1 ? "" : "s"}/s`;
}
