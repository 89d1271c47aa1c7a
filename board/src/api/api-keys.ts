/** API keys of the tenant. A key is in the answer that makes it, and in no later one. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { request } from "./client.ts";
import { useIdentity } from "./session.ts";

export type KeyRole = "writer" | "auditor" | "admin";

export interface ApiKey {
  id: string;
  role: KeyRole;
  name: string | null;
  source: "provisioned" | "api";
  created_at: string;
  created_by: string | null;
  expires_at: string | null;
  revoked_at: string | null;
  last_used_at: string | null;
}

export interface NewKey {
  role: KeyRole;
  name: string;
  /** Seconds; absent for a key without an end. */
  expires_in?: number;
}

export interface MadeKey extends ApiKey {
  key: string;
}

export function useApiKeys() {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["api-keys", identity.id],
    queryFn: async ({ signal }) => (await request<{ items: ApiKey[] }>("/api/v1/keys", { signal })).items,
  });
}

export function useMakeKey() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (wanted: NewKey) => request<MadeKey>("/api/v1/keys", { method: "POST", body: wanted }),
    onSettled: () => queries.invalidateQueries({ queryKey: ["api-keys"] }),
    gcTime: 0, // the answer holds a key
  });
}

export function useRevokeKey() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => request(`/api/v1/keys/${encodeURIComponent(id)}`, { method: "DELETE" }),
    onSettled: () => queries.invalidateQueries({ queryKey: ["api-keys"] }),
  });
}
