/** The access log as the address filters it, page by page. Reading it is recorded in it, so nothing is read again by itself. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { useSearchParams } from "wouter";
import type { Query } from "../../api/client.ts";
import { listRecords } from "../../api/records.ts";
import { type Identity, useIdentity } from "../../api/session.ts";
import { boundsOf, parseRange, type Range } from "../search/range.ts";

export const DEFAULT_RANGE = "7d";
const PAGE = 100;

export interface Wanted {
  actor: string;
  action: string;
  /** Only refused, damaged and failed. */
  concerns: boolean;
  /** Leaves out what this identity did itself. */
  others: boolean;
  range: string;
}

export function wantedOf(parameters: URLSearchParams): Wanted {
  return {
    actor: parameters.get("actor") ?? "",
    action: parameters.get("action") ?? "",
    concerns: parameters.get("concerns") === "true",
    others: parameters.get("others") === "true",
    range: parseRange(parameters.get("range") ?? "") ? (parameters.get("range") ?? DEFAULT_RANGE) : DEFAULT_RANGE,
  };
}

/** Return the query string of what is wanted; defaults are left out. */
export function writtenWanted(wanted: Wanted): URLSearchParams {
  const written = new URLSearchParams();
  if (wanted.actor) written.set("actor", wanted.actor);
  if (wanted.action) written.set("action", wanted.action);
  if (wanted.concerns) written.set("concerns", "true");
  if (wanted.others) written.set("others", "true");
  if (wanted.range !== DEFAULT_RANGE) written.set("range", wanted.range);
  return written;
}

/** Return a value as the query language has it in quotes. */
function quoted(value: string): string {
  return `"${value.replace(/["\\]/g, "\\$&")}"`;
}

/** Return the parameters of the list for what is wanted. */
export function queryOf(wanted: Wanted, identity: Pick<Identity, "subject">, now: number): Query {
  const range: Range = parseRange(wanted.range) ?? { kind: "all" };
  const { from, to } = boundsOf(range, now);
  const conditions = [
    ...(wanted.concerns ? ["outcome:(denied OR failure)"] : []),
    ...(wanted.others ? [`NOT actor.id:${quoted(identity.subject)}`] : []),
  ];
  return {
    log: "access",
    actor: wanted.actor || null,
    action: wanted.action || null,
    q: conditions.join(" ") || null,
    from,
    to,
  };
}

export function useAccess() {
  const identity = useIdentity();
  const [parameters, setParameters] = useSearchParams();
  const wanted = useMemo(() => wantedOf(parameters), [parameters]);
  const pages = useInfiniteQuery({
    queryKey: ["access", identity.id, wanted],
    initialPageParam: { cursor: null as string | null, query: null as Query | null },
    queryFn: async ({ pageParam, signal }) => {
      // The bounds of a relative range stay those of the first page: a cursor belongs to one query.
      const query = pageParam.query ?? queryOf(wanted, identity, Date.now());
      const page = await listRecords({ ...query, limit: PAGE, cursor: pageParam.cursor }, signal);
      return { ...page, query };
    },
    getNextPageParam: (last) => (last.next === null ? undefined : { cursor: last.next, query: last.query }),
    staleTime: Number.POSITIVE_INFINITY,
  });
  const want = (next: Partial<Wanted>) => setParameters(writtenWanted({ ...wanted, ...next }));
  return { wanted, want, pages };
}
