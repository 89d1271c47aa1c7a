/** Records, pages of them, and counts, as the API answers them. */
import { type Query, request, send } from "./client.ts";
import { type Json, parseExactly } from "./json.ts";

export type Outcome = "success" | "failure" | "denied" | "unknown";
export type Severity = "INFO" | "WARNING" | "ERROR" | "CRITICAL";

export interface Resource {
  type: string;
  id?: string | null;
  name?: string | null;
}

/** A stored record: what the server adds, and what the client sent. */
export interface LogRecord {
  tenant: string;
  log: "events" | "access";
  epoch: number;
  seq: number;
  received_at: string;
  digest: string;
  action: string;
  actor: { id: string; type?: string | null; name?: string | null };
  occurred_at: string;
  severity: Severity;
  outcome: Outcome;
  id?: string | null;
  resource?: Resource | null;
  related?: Resource[] | null;
  message?: string | null;
  source?: { ip?: string | null; user_agent?: string | null } | null;
  session_id?: string | null;
  correlation_id?: string | null;
  recorded_by?: { type: string; id: string; issuer?: string | null; ip?: string | null } | null;
  before?: Json;
  after?: Json;
  metadata?: Json;
  masked?: string[] | null;
  trimmed?: { path: string; bytes: number; sha256: string }[] | null;
}

/** How far the search index has come, and which engine answered. */
export interface Coverage {
  head: number;
  indexed_from: number;
  indexed: number;
  engine: string;
}

/** The values of one record that made it match: JSON pointers, and parts of their texts in Unicode code points. */
export interface Highlights {
  seq: number;
  places: { path: string; spans: [number, number][] }[];
  more: boolean;
}

export interface RecordPage extends Coverage {
  items: LogRecord[];
  /** Of each of `items`, in their order, with `highlight=true`. */
  highlights?: Highlights[] | null;
  next: string | null;
  position?: string | null;
  total?: number | null;
}

export interface Facet {
  values: { value: string; count: number }[];
  other: number;
  missing: number;
}

export interface Counts extends Coverage {
  buckets: { key: (string | null)[]; from: string | null; count: number }[];
  total: number;
  facets: Record<string, Facet>;
}

export function listRecords(query: Query, signal?: AbortSignal): Promise<RecordPage> {
  return request<RecordPage>("/api/v1/logs", { query, ...(signal ? { signal } : {}) });
}

export function countRecords(query: Query, signal?: AbortSignal): Promise<Counts> {
  return request<Counts>("/api/v1/logs/stats", { query, ...(signal ? { signal } : {}) });
}

/** Read one record, whose digest the server checks. Numbers keep the digits that were sent. */
export async function readRecord(seq: number, log: string, signal?: AbortSignal): Promise<LogRecord> {
  const response = await send(`/api/v1/logs/${seq}`, { query: { log }, ...(signal ? { signal } : {}) });
  return parseExactly(await response.text()) as unknown as LogRecord;
}
