/** Requests of the search: pages of records, counts, values of a field. */
import { type InfiniteData, keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { Problem, type Query } from "../../api/client.ts";
import {
  type Counts,
  countRecords,
  type Facet,
  type Highlights,
  type LogRecord,
  listRecords,
  type RecordPage,
} from "../../api/records.ts";
import { useIdentity } from "../../api/session.ts";
import { type Marks, marksOf } from "../../parts/record/marks.tsx";
import { hasSeveralValues } from "./names.ts";
import { type Clause, clausesOf, withoutClause } from "./query-text.ts";
import type { Bounds } from "./range.ts";
import { barLength, extentOf, type Scale, scaleOf } from "./timeline.ts";
import type { Sort } from "./view.ts";

/** A question to the API: a view whose range has become two instants. */
export interface Question extends Bounds {
  q: string;
}

const PAGE_RECORDS = 200;

/** Return the parameters of a question for lists and counts. */
export function parametersOf(question: Question): Record<string, string | null> {
  return { q: question.q.trim() === "" ? null : question.q, from: question.from, to: question.to };
}

/** Return the fields whose whole values the query names: a mark on each of them would say nothing. */
function exactFields(q: string): Set<string> {
  return new Set(
    clausesOf(q)?.flatMap((each) =>
      each.field !== null && each.values !== null && !hasSeveralValues(each.field) ? [each.field] : [],
    ),
  );
}

/** Return whether a query looks for words, so that marks show where they stand. */
function needsMarks(q: string): boolean {
  if (q.trim() === "") return false;
  return (
    clausesOf(q)?.some((each) => !each.negated && (each.field === null || !exactFields(q).has(each.field))) ?? true
  );
}

const known = new WeakMap<Highlights, Marks>();

/** Marks stay the same objects while pages are added, so that rows are not drawn again. */
function cachedMarks(highlights: Highlights, except: Set<string>): Marks {
  const marks = known.get(highlights) ?? marksOf(highlights, except);
  known.set(highlights, marks);
  return marks;
}

/** The records of a question, page by page. A page is not asked for again until the question is. */
export function useRecords(question: Question, sort: Sort, asked: number) {
  const identity = useIdentity();
  const highlight = needsMarks(question.q) ? true : null;
  const query: Query = { ...parametersOf(question), sort, limit: PAGE_RECORDS, highlight };
  const found = useInfiniteQuery({
    queryKey: ["records", identity.id, query, asked],
    queryFn: ({ pageParam, signal }) => listRecords({ ...query, cursor: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 60_000,
    placeholderData: keepPreviousData,
    // Records do not change, and comparing a hundred thousand of them with every page would cost more than drawing them.
    structuralSharing: false,
  });
  const data = found.data as InfiniteData<RecordPage> | undefined;
  const records = useMemo(() => data?.pages.flatMap((page) => page.items) ?? [], [data]);
  const marked = useMemo(() => {
    const except = exactFields(question.q);
    return new Map(
      data?.pages.flatMap((page) => page.highlights ?? []).map((each) => [each.seq, cachedMarks(each, except)]) ?? [],
    );
  }, [data, question.q]);
  return { ...found, records, marked, coverage: data?.pages[0] };
}

/** Counts of a question: a timeline by outcome, and facets. A facet with too many values is null. */
export interface Summary {
  counts: Counts;
  scale: Scale;
  facets: Record<string, Facet | null>;
}

export const FACETS = ["action", "actor", "resource_type", "outcome", "severity"] as const;
const TOP = 8;

async function unlessTooMany<T>(asked: Promise<T>): Promise<T | null> {
  return asked.catch((error: unknown) => {
    if (error instanceof Problem && error.code === "too-many-buckets") return null;
    throw error;
  });
}

/** Ask for the timeline and the facets at once. Only where there are too many values, for each facet alone. */
async function summaryOf(question: Question, scale: Scale, zone: string, signal: AbortSignal): Promise<Summary | null> {
  const timeline = { ...parametersOf(question), by: "outcome", interval: scale.interval, tz: zone };
  const whole = await unlessTooMany(countRecords({ ...timeline, facets: FACETS.join(), top: TOP }, signal));
  if (whole) return { counts: whole, scale, facets: whole.facets };
  const counts = await unlessTooMany(countRecords(timeline, signal));
  if (!counts) return null;
  const facets: Summary["facets"] = {};
  for (const name of FACETS) {
    const found = await unlessTooMany(countRecords({ ...parametersOf(question), facets: name, top: TOP }, signal));
    facets[name] = found?.facets[name] ?? null;
  }
  return { counts, scale, facets };
}

/** A question without a start does not say how long it is: days first, then what suits the records that there are. */
async function openSummary(question: Question, zone: string, now: number, signal: AbortSignal): Promise<Summary> {
  const days = await summaryOf(question, { interval: "day", step: 1 }, zone, signal);
  if (!days) {
    const months = await summaryOf(question, { interval: "month", step: 1 }, zone, signal);
    if (!months) throw tooMany();
    return months;
  }
  const [first, last] = extentOf(question, days.counts, "day", now);
  const scale = scaleOf(last - first);
  if (barLength(scale) >= barLength(days.scale))
    return { ...days, scale: { interval: "day", step: Math.ceil(barLength(scale) / barLength(days.scale)) } };
  const bounds = { from: new Date(first).toISOString(), to: new Date(last).toISOString() };
  const query = { ...parametersOf({ ...question, ...bounds }), by: "outcome", interval: scale.interval, tz: zone };
  const finer = await unlessTooMany(countRecords(query, signal));
  return finer ? { ...days, counts: { ...finer, total: days.counts.total }, scale } : days;
}

function tooMany(): Problem {
  return new Problem(422, {
    code: "too-many-buckets",
    title: "Too many intervals",
    detail: "Take a shorter time range.",
  });
}

/** Clocks of this zone change by half an hour, so it has no hours to count by. */
const HALF_HOUR_ZONES = new Set(["Australia/Lord_Howe", "Australia/LHI"]);

export function useSummary(question: Question, zone: string, asked: number, enabled: boolean) {
  const identity = useIdentity();
  return useQuery<Summary>({
    queryKey: ["summary", identity.id, question, zone, asked],
    queryFn: async ({ signal }) => {
      const counted = HALF_HOUR_ZONES.has(zone) ? "UTC" : zone;
      if (question.from === null) return openSummary(question, counted, asked, signal);
      const end = question.to === null ? asked : Date.parse(question.to);
      const scale = scaleOf(end - Date.parse(question.from));
      const found = await summaryOf(question, scale, counted, signal);
      if (!found) throw tooMany();
      return found;
    },
    enabled,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 60_000,
    placeholderData: keepPreviousData,
  });
}

const NEW_MAX = 100;
const NEWS_MILLISECONDS = 30_000;
const FIRST_MILLISECONDS = 3_000;
/** How long the page asks what is new before it waits for a person again: each question is a reading that the access log records. */
const NEWS_LASTING_MILLISECONDS = 1_200_000;

/** Return how many matching records came since the list was read, at most `NEW_MAX`. */
export function useNews(question: Question, head: number | undefined, enabled: boolean): number {
  const identity = useIdentity();
  const parameters = { ...parametersOf(question), to: null };
  const found = useQuery({
    queryKey: ["news", identity.id, parameters, head],
    queryFn: async ({ signal }) => {
      const page = await listRecords({ ...parameters, after: (head ?? 0) - 1, limit: NEW_MAX }, signal);
      return page.items.length;
    },
    enabled: enabled && head !== undefined,
    initialData: 0,
    staleTime: 0,
    gcTime: 0,
    refetchOnMount: false,
    retry: false,
    refetchInterval: ({ state }) => {
      const interval = head === 0 ? FIRST_MILLISECONDS : NEWS_MILLISECONDS;
      const lasted = (state.dataUpdateCount + state.errorUpdateCount) * interval;
      return lasted > NEWS_LASTING_MILLISECONDS || (state.data ?? 0) > 0 ? false : interval;
    },
  });
  return found.data;
}

export interface Excluding {
  clause: Clause | null;
  total: number;
}

const CLAUSES_MAX = 6;

/** Count what each condition excludes: the records without it, one small request for each of at most six, and one without the range. */
export function useExcluding(question: Question, enabled: boolean) {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["excluding", identity.id, question],
    queryFn: async ({ signal }) => {
      const clauses = clausesOf(question.q) ?? [];
      const found: Excluding[] = [];
      for (const clause of clauses.slice(0, CLAUSES_MAX)) {
        const { total } = await countRecords(
          parametersOf({ ...question, q: withoutClause(question.q, clause) }),
          signal,
        );
        found.push({ clause, total });
      }
      if (question.from !== null || question.to !== null) {
        const { total } = await countRecords(parametersOf({ q: question.q, from: null, to: null }), signal);
        found.push({ clause: null, total });
      }
      return found.filter((each) => each.total > 0);
    },
    enabled,
    staleTime: Number.POSITIVE_INFINITY,
    retry: false,
  });
}

const LEAVES_MAX = 200;
const SAMPLE = 200;

/** Return the names of leaves that the records at hand have, so that the query box can offer them. */
export function leavesOf(records: LogRecord[]): string[] {
  const names = new Set<string>();
  const visit = (path: string, value: unknown, depth: number) => {
    if (names.size >= LEAVES_MAX || depth > 6) return;
    if (Array.isArray(value)) for (const each of value.slice(0, 3)) visit(path, each, depth + 1);
    else if (typeof value === "object" && value !== null) {
      for (const [name, each] of Object.entries(value)) visit(`${path}.${name}`, each, depth + 1);
    } else if (path.includes(".")) names.add(path);
  };
  for (const record of records.slice(0, SAMPLE)) {
    for (const root of ["metadata", "before", "after"] as const) visit(root, record[root], 0);
  }
  return [...names].sort();
}
