/** The stored ranges of a log by receipt time, and when each is hidden. */
import { useQuery } from "@tanstack/react-query";
import { request } from "./client.ts";
import { useIdentity } from "./session.ts";

export type LogName = "events" | "access";

export interface StoredRange {
  /** Null for what lies before the first readable record. */
  from: string | null;
  to: string;
  first_seq: number;
  /** The seq after the last one. */
  end_seq: number;
  records: number;
  /** Null where tenants share the partition. */
  bytes: number | null;
  hidden_after: string;
  state: string;
}

/** Records that went with their partition. */
export interface DroppedRange {
  from: string;
  to: string;
  first_seq: number;
  end_seq: number;
  records: number;
  dropped_at: string;
}

export interface Retention {
  tenant: string;
  log: LogName;
  days: number;
  /** Null where the index holds all days. */
  search_days: number | null;
  ranges: StoredRange[];
  /** Newest first, of the last 400 days. */
  dropped: DroppedRange[];
}

export function useRetention(log: LogName) {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["retention", identity.id, log],
    queryFn: ({ signal }) => request<Retention>("/api/v1/retention", { query: { log }, signal }),
  });
}
