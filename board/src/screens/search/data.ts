/** What the search asks the API for: pages of records, counts, values of a field. */
import { type InfiniteData, keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import type { Query } from "../../api/client.ts";
import { type LogRecord, listRecords, type RecordPage } from "../../api/records.ts";
import { useIdentity } from "../../api/session.ts";
import type { Bounds } from "./range.ts";
import type { Sort } from "./view.ts";

/** What is asked: a view whose range has become two instants. */
export interface Question extends Bounds {
  q: string;
}

const PAGE_RECORDS = 200;

/** Return the parameters of a question for lists and counts. */
export function parametersOf(question: Question): Record<string, string | null> {
  return { q: question.q.trim() === "" ? null : question.q, from: question.from, to: question.to };
}

/** The records of a question, page by page. A page is not asked for again until the question is. */
export function useRecords(question: Question, sort: Sort) {
  const identity = useIdentity();
  const query: Query = { ...parametersOf(question), sort, limit: PAGE_RECORDS };
  const found = useInfiniteQuery({
    queryKey: ["records", identity.id, query],
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
  return { ...found, records, coverage: data?.pages.at(-1) };
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
