/** Open sessions: those of the caller, and for an admin those of the tenant. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { request } from "./client.ts";
import { type Identity, useIdentity } from "./session.ts";

export interface OpenSession {
  id: string;
  created_at: string;
  last_used_at: string;
  ends_at: string;
  address: string | null;
  user_agent: string | null;
  current: boolean;
  identities: Pick<Identity, "id" | "kind" | "subject" | "issuer" | "tenant" | "role">[];
}

export function useSessions() {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["sessions", identity.id],
    queryFn: async ({ signal }) => (await request<{ items: OpenSession[] }>("/api/v1/sessions", { signal })).items,
  });
}

/** End sessions, one after the other. The first refusal is thrown; the list is read again in any case. */
export function useEndSessions() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (ids: string[]) => {
      for (const id of ids) await request(`/api/v1/sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
    },
    onSettled: () => queries.invalidateQueries({ queryKey: ["sessions"] }),
  });
}
