/** Addresses of screens that other screens link to. */
import { type Query, withQuery } from "../api/client.ts";

export function searchHref(query: Query): string {
  return withQuery("/search", query);
}

export function liveHref(query: Query): string {
  return withQuery("/live", query);
}

export function exportsHref(query: Query): string {
  return withQuery("/exports", query);
}
