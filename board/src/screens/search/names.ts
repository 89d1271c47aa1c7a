/** Names of the query language: what the query box completes, facets filter by, and columns show. */
import type { LogRecord } from "../../api/records.ts";

export const SEVERITIES = ["INFO", "WARNING", "ERROR", "CRITICAL"] as const;
export const OUTCOMES = ["success", "failure", "denied", "unknown"] as const;

export interface FieldName {
  /** Path of the value in a record, which is its name in a query. */
  name: string;
  about: string;
  /** All values, where there are few. */
  choices?: readonly string[];
  /** Name of the parameter of counts, where values can be counted. */
  facet?: string;
  /** True if a record may have several values, or a query compares words: then two conditions do not exclude each other. */
  several?: boolean;
}

/** Fields in the order in which the box offers them. */
export const FIELDS: FieldName[] = [
  { name: "action", about: "what was done", facet: "action" },
  { name: "actor.id", about: "who did it", facet: "actor" },
  { name: "outcome", about: "success, failure, denied, unknown", choices: OUTCOMES, facet: "outcome" },
  { name: "severity", about: "INFO to CRITICAL; >=WARNING", choices: SEVERITIES, facet: "severity" },
  { name: "resource.type", about: "kind of the resource", facet: "resource_type" },
  { name: "resource.id", about: "the resource" },
  { name: "source.ip", about: "an address or a network" },
  { name: "actor.type", about: "user, service, …" },
  { name: "actor.name", about: "words of the actor's name", several: true },
  { name: "resource.name", about: "words of the resource's name", several: true },
  { name: "message", about: "words of the message", several: true },
  { name: "correlation_id", about: "the request" },
  { name: "session_id", about: "the session" },
  { name: "source.user_agent", about: "words of the user agent", several: true },
  { name: "related.id", about: "a related resource", several: true },
  { name: "related.type", about: "kind of a related resource", several: true },
  { name: "related.name", about: "name of a related resource", several: true },
  { name: "occurred_at", about: "time of the event: a day, >=, [a TO b]" },
  { name: "since", about: "the last 15m, 24h, 7d" },
  { name: "until", about: "older than 1h, 7d" },
  { name: "id", about: "the client's id of the record" },
  { name: "recorded_by.id", about: "the credential that stored it" },
  { name: "recorded_by.type", about: "api_key or jwt" },
  { name: "masked", about: "path of a masked value", several: true },
  { name: "exists", about: "a field that has a value", several: true },
];

const BY_NAME = new Map(FIELDS.map((each) => [each.name, each]));
const BY_FACET = new Map(FIELDS.flatMap((each) => (each.facet ? [[each.facet, each] as const] : [])));
const ALIASES: Record<string, string> = {
  actor: "actor.id",
  actor_type: "actor.type",
  actor_name: "actor.name",
  resource_type: "resource.type",
  resource_id: "resource.id",
  resource_name: "resource.name",
  related: "related.id",
  related_type: "related.type",
  related_name: "related.name",
  ip: "source.ip",
  user_agent: "source.user_agent",
  recorded_by: "recorded_by.id",
  recorded_by_type: "recorded_by.type",
};

/** Return the one name of a field that has several. */
export function canonicalName(name: string): string {
  return ALIASES[name] ?? name;
}

export function fieldOf(name: string): FieldName | undefined {
  return BY_NAME.get(canonicalName(name));
}

/** Return the name in a query of a field that counts know by another. */
export function fieldOfFacet(facet: string): string {
  return BY_FACET.get(facet)?.name ?? facet;
}

/** Return whether a record may satisfy two different conditions on this field. */
export function hasSeveralValues(name: string): boolean {
  return fieldOf(name)?.several ?? /^(metadata|before|after)\./.test(name);
}

/** Return the value of a field or a leaf in a record as the text that queries compare, or null. */
export function fieldText(record: LogRecord, name: string): string | null {
  let value: unknown = record;
  for (const key of name.split(".")) {
    if (typeof value !== "object" || value === null) return null;
    value = (value as Record<string, unknown>)[key];
  }
  if (value === null || value === undefined || typeof value === "object") return null;
  return String(value);
}
