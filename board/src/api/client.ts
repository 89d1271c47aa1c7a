/** Calls of the public HTTP API by the cookie of the session. A refusal is a `Problem` (RFC 9457). */
import { sessionNow } from "./session.ts";

/** A refusal as the API answers it, or `unreachable` where there was no answer. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly title: string;
  readonly retryAfter: number | null;
  /** All members of the document, such as `column`, `suggestion` and `errors`. */
  readonly members: Record<string, unknown>;

  constructor(status: number, members: Record<string, unknown>, retryAfter: number | null = null) {
    super(String(members.detail ?? members.title ?? "The request failed."));
    this.status = status;
    this.code = String(members.code ?? "unknown");
    this.title = String(members.title ?? "Request failed");
    this.retryAfter = retryAfter;
    this.members = members;
  }
}

export type QueryValue = string | number | boolean | null | undefined;
export type Query = Record<string, QueryValue | QueryValue[]> | [string, string][];

export interface Call {
  method?: "GET" | "POST" | "PUT" | "DELETE";
  query?: Query;
  body?: unknown;
  /** JSON that is sent as it is written, with the digits of its numbers. Takes the place of `body`. */
  text?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Return `path` with the query string of `query`; null and undefined are left out, lists are repeated. */
export function withQuery(path: string, query: Query | undefined): string {
  const search = new URLSearchParams();
  const pairs = Array.isArray(query) ? query : Object.entries(query ?? {});
  for (const [name, value] of pairs) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined) search.append(name, String(each));
    }
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

/** Return the headers that a request by cookie carries: the chosen identity, and the proof against forged requests. */
export function sessionHeaders(method: string): Record<string, string> {
  const { session, identity } = sessionNow();
  return {
    ...(identity ? { "Decklog-Identity": identity.id } : {}),
    ...(session && method !== "GET" ? { "Decklog-Csrf": session.csrf } : {}),
  };
}

/** Send a request and return the response if it is a success; otherwise throw a `Problem`. For streamed answers. */
export async function send(path: string, call: Call = {}): Promise<Response> {
  const method = call.method ?? "GET";
  const body = call.text ?? (call.body === undefined ? undefined : JSON.stringify(call.body));
  const init: RequestInit = {
    method,
    credentials: "same-origin",
    headers: {
      ...sessionHeaders(method),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...call.headers,
    },
    ...(body === undefined ? {} : { body }),
    ...(call.signal ? { signal: call.signal } : {}),
  };
  let response: Response;
  try {
    response = await fetch(withQuery(path, call.query), init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, { code: "unreachable", title: "No answer", detail: "Decklog cannot be reached." });
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

async function problemOf(response: Response): Promise<Problem> {
  const wait = Number(response.headers.get("Retry-After"));
  const members = await response.json().catch(() => ({ title: response.statusText || `Status ${response.status}` }));
  return new Problem(
    response.status,
    members as Record<string, unknown>,
    Number.isFinite(wait) && wait > 0 ? wait : null,
  );
}

/** Send a request and return its JSON; null for an empty answer. */
export async function request<T>(path: string, call: Call = {}): Promise<T> {
  const response = await send(path, call);
  const text = await response.text();
  return (text ? JSON.parse(text) : null) as T;
}
