/** What storage holds of a log, by ranges of receipt time, and when each is hidden. */
import { useQuery } from "@tanstack/react-query";
import { request } from "./client.ts";
import { useIdentity } from "./session.ts";

export type LogName = "events" | "access";

export interface StoredRange {
  from: string;
  to: string;
  first_seq: number;
  /** The seq after the last one. */
  end_seq: number;
  records: number;
  bytes: number;
  hidden_after: string;
  state: string;
}

export interface Retention {
  tenant: string;
  log: LogName;
  days: number;
  search_days: number;
  ranges: StoredRange[];
}

export function useRetention(log: LogName) {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["retention", identity.id, log],
    queryFn: ({ signal }) => request<Retention>("/api/v1/retention", { query: { log }, signal }),
  });
}
