/** Saved searches: parameters of a list under a name. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { request } from "./client.ts";
import { type Identity, useIdentity } from "./session.ts";

export type Parameters = Record<string, string | string[]>;

export interface SearchInput {
  name: string;
  parameters: Parameters;
  shared: boolean;
}

export interface SavedSearch extends SearchInput {
  id: string;
  owner: string;
  saved_at: string;
}

const PATH = "/api/v1/searches";

export function useSearches() {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["searches", identity.id],
    queryFn: async ({ signal }) => (await request<{ items: SavedSearch[] }>(PATH, { signal })).items,
  });
}

/** Save a new search, or replace the one with an id. */
export function useSaveSearch() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id, ...body }: SearchInput & { id?: string }) =>
      id === undefined
        ? request<SavedSearch>(PATH, { method: "POST", body })
        : request<SavedSearch>(`${PATH}/${id}`, { method: "PUT", body }),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["searches"] }),
  });
}

export function useDeleteSearch() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => request(`${PATH}/${id}`, { method: "DELETE" }),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["searches"] }),
  });
}

/** Return whether an identity saved a search. */
export function isOwn(search: SavedSearch, identity: Identity): boolean {
  return search.owner === `${identity.kind}:${identity.issuer ?? ""}:${identity.subject}`;
}
