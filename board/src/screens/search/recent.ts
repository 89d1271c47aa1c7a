/** The queries that were asked last, of one tenant, in this tab's session alone: a query may name people. */
const RECENT_MAX = 20;

function keyOf(tenant: string): string {
  return `decklog.recent.${tenant}`;
}

export function recentQueries(tenant: string): string[] {
  try {
    const kept: unknown = JSON.parse(sessionStorage.getItem(keyOf(tenant)) ?? "[]");
    return Array.isArray(kept) ? kept.filter((each) => typeof each === "string") : [];
  } catch {
    return [];
  }
}

/** Put a query in front of the others, and return them. */
export function rememberQuery(tenant: string, query: string): string[] {
  if (query.trim() === "") return recentQueries(tenant);
  const next = [query, ...recentQueries(tenant).filter((each) => each !== query)].slice(0, RECENT_MAX);
  sessionStorage.setItem(keyOf(tenant), JSON.stringify(next));
  return next;
}
