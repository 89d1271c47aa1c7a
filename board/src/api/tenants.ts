/** Tenants as the registry has them, with the conditions of the last visit. */
import { useQuery } from "@tanstack/react-query";
import { request } from "./client.ts";
import { type Identity, useIdentity } from "./session.ts";

export interface Condition {
  type: string;
  status: "True" | "False" | "Unknown";
  reason: string;
  message: string;
  observedGeneration: number;
  lastTransitionTime: string;
}

export interface Tenant {
  name: string;
  isolation: string;
  retention_days: number;
  state: "active" | "deleted" | "suspended";
  display_name: string;
  generation: number;
  created_at: string;
  deleted_at: string | null;
  spec: Record<string, unknown> | null;
  conditions: Condition[];
  /** Only of a single tenant, not in the list of the platform. */
  usage?: TenantUsage;
}

export interface TenantUsage {
  records: { events: number; access: number };
  /** Size with indexes; null for a Shared tenant. */
  bytes: number | null;
  rejected: { records: number };
}

function tenantNamed(name: string, signal: AbortSignal): Promise<Tenant> {
  return request<Tenant>(`/api/v1/tenants/${encodeURIComponent(name)}`, { signal });
}

/** Return the tenants that an identity may see: all for the platform, else its own. */
async function visible(identity: Identity, signal: AbortSignal): Promise<Tenant[]> {
  if (identity.tenant === null) return (await request<{ items: Tenant[] }>("/api/v1/tenants", { signal })).items;
  return [await tenantNamed(identity.tenant, signal)];
}

export function useTenants() {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["tenants", identity.id],
    queryFn: ({ signal }) => visible(identity, signal),
    refetchInterval: 60_000, // each reading is a record of the access log
  });
}

/** Return the usage of a tenant: that of the tenant itself, or asked for where a list left it out. */
export function useUsage(tenant: Tenant): TenantUsage | undefined {
  const identity = useIdentity();
  const { data } = useQuery({
    queryKey: ["tenant", identity.id, tenant.name],
    queryFn: ({ signal }) => tenantNamed(tenant.name, signal),
    enabled: !tenant.usage,
  });
  return tenant.usage ?? data?.usage;
}
