/** The view of the search, as the address has it, so that every view can be linked. */
import { ALL_COLUMNS, DEFAULT_COLUMNS, isColumn } from "./columns.ts";
import { DEFAULT_RANGE, parseRange, type Range, writtenRange } from "./range.ts";

export const SORTS = ["-received_at", "received_at", "-occurred_at", "occurred_at"] as const;
export type Sort = (typeof SORTS)[number];

/** Newest events first, as the timeline and the range have them. */
const DEFAULT_SORT: Sort = "-occurred_at";

export interface View {
  q: string;
  range: Range;
  sort: Sort;
  columns: string[];
  /** Sequence number of the record that is open. */
  seq: number | null;
}

const FALLBACK: Range = parseRange(DEFAULT_RANGE) ?? { kind: "all" };

/** Read a view from the query string of the address. A part that is not understood has its default. `kept`: columns that were chosen before. */
export function parseView(search: string, kept: string[] = DEFAULT_COLUMNS): View {
  const given = new URLSearchParams(search);
  const sort = SORTS.find((each) => each === given.get("sort")) ?? DEFAULT_SORT;
  const columns = (given.get("columns") ?? "").split(",").filter(isColumn);
  const seq = given.get("seq") ?? "";
  return {
    q: given.get("q") ?? "",
    range: parseRange(given.get("range") ?? DEFAULT_RANGE) ?? FALLBACK,
    sort,
    columns: columns.length > 0 ? [...new Set(columns)] : kept,
    seq: /^\d{1,15}$/.test(seq) ? Number(seq) : null,
  };
}

/** Return the query string of a view; defaults are left out. */
export function writtenView(view: View): string {
  const search = new URLSearchParams();
  if (view.q.trim()) search.set("q", view.q);
  const range = writtenRange(view.range);
  if (range !== DEFAULT_RANGE) search.set("range", range);
  if (view.sort !== DEFAULT_SORT) search.set("sort", view.sort);
  if (view.columns.join() !== DEFAULT_COLUMNS.join()) search.set("columns", view.columns.join());
  if (view.seq !== null) search.set("seq", String(view.seq));
  return search.toString();
}

/** Return the columns in the order of the list of all, then leaves. */
export function ordered(columns: string[]): string[] {
  const known = ALL_COLUMNS.filter((each) => columns.includes(each));
  return [...known, ...columns.filter((each) => !known.includes(each))];
}
