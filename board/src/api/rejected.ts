/** Rejected records: who sent what, why it was refused, and what an admin does about it. */
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { request } from "./client.ts";
import { useIdentity } from "./session.ts";

export interface RejectedItem {
  id: number;
  rejected_at: string;
  code: string;
  detail: string;
  record_id: string | null;
  recorded_by: { type: string; id: string; issuer?: string | null; ip?: string | null } | null;
  request_id: string | null;
  bytes: number;
  has_content: boolean;
}

export interface RejectedPage {
  items: RejectedItem[];
  next: number | null;
  rejected: number;
  unkept: number;
  dropped: number;
  kept: number;
  bytes: number;
  last_at: string | null;
  last_code: string;
}

export interface Replayed {
  seq: number;
  status: "stored" | "duplicate";
  trimmed?: string[] | null;
}

export interface Replay {
  id: number;
  /** The mended record as JSON; null for what is kept. */
  mended: string | null;
  trim: boolean;
}

const PATH = "/api/v1/rejected";

export function useRejected() {
  const identity = useIdentity();
  return useInfiniteQuery({
    queryKey: ["rejected", identity.id],
    initialPageParam: null as number | null,
    queryFn: ({ pageParam, signal }) => request<RejectedPage>(PATH, { query: { before: pageParam }, signal }),
    getNextPageParam: (page) => page.next ?? undefined,
    staleTime: Number.POSITIVE_INFINITY,
  });
}

/** The content of one: the JSON as it was sent, with secrets masked. Reading it is recorded. */
export function useRejectedContent(id: number) {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["rejected", identity.id, id],
    queryFn: ({ signal }) => request<RejectedItem & { content: string | null }>(`${PATH}/${id}`, { signal }),
    staleTime: Number.POSITIVE_INFINITY,
  });
}

export function useReplay() {
  return useMutation({
    mutationFn: ({ id, mended, trim }: Replay) =>
      request<Replayed>(`${PATH}/${id}/replay`, {
        method: "POST",
        query: { oversize: trim ? "trim" : null },
        ...(mended === null ? {} : { text: mended }),
      }),
  });
}

export function useDeleteRejected() {
  return useMutation({ mutationFn: (id: number) => request(`${PATH}/${id}`, { method: "DELETE" }) });
}

/** Return a function that reads the list again. */
export function useRejectedAgain(): () => Promise<void> {
  const queries = useQueryClient();
  const identity = useIdentity();
  return () => queries.invalidateQueries({ queryKey: ["rejected", identity.id], exact: true });
}
