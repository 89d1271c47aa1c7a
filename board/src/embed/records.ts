/** Records of a viewer token: any members may be absent, and every value is drawn as text. */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Seen = { [name: string]: Json };

export interface Page {
  readonly items: Seen[];
  readonly next: string | null;
}

export interface Question {
  readonly words: string;
  /** Values of `datetime-local` inputs, in the time zone of the browser. */
  readonly from: string;
  readonly to: string;
}

/** A refusal as the API answers it, or `unreachable`. */
export class Refused extends Error {
  readonly code: string;

  constructor(code: string, detail: string) {
    super(detail);
    this.code = code;
  }
}

/** Return the value at a path of names. */
export function at(record: Seen, path: string): Json | undefined {
  let value: Json | undefined = record;
  for (const name of path.split(".")) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
    value = value[name];
  }
  return value;
}

/** Return the first text at one of the paths, or an empty text. */
export function text(record: Seen, ...paths: string[]): string {
  for (const path of paths) {
    const value = at(record, path);
    if (typeof value === "string" && value) return value;
  }
  return "";
}

/** Return every scalar of a record with its path, in order. */
export function flat(value: Json, path = ""): [string, string][] {
  if (Array.isArray(value)) return value.flatMap((item, index) => flat(item, `${path}[${index}]`));
  if (typeof value === "object" && value !== null) {
    return Object.entries(value).flatMap(([name, item]) => flat(item, path ? `${path}.${name}` : name));
  }
  return [[path, typeof value === "string" ? value : JSON.stringify(value)]];
}

/** Return the query string of a question. */
export function parameters(question: Question, cursor: string | null): URLSearchParams {
  const found = new URLSearchParams({ limit: "50" });
  if (question.words.trim()) found.set("q", question.words.trim());
  for (const name of ["from", "to"] as const) {
    const moment = question[name] ? new Date(question[name]) : null;
    if (moment && !Number.isNaN(moment.getTime())) found.set(name, moment.toISOString());
  }
  if (cursor) found.set("cursor", cursor);
  return found;
}

/** Ask the API with a token. Throws `Refused`. */
export async function ask<T>(token: string, path: string, signal?: AbortSignal): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(`/api/v1/${path}`, {
      headers: { Authorization: `Bearer ${token}` },
      credentials: "omit",
      cache: "no-store",
      ...(signal ? { signal } : {}),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("unreachable", "The audit log cannot be reached. Try again.");
  }
  const body = (await answer.json().catch(() => null)) as { code?: string; detail?: string } | null;
  if (!answer.ok) throw new Refused(body?.code ?? "unknown", body?.detail ?? "The request failed.");
  return body as T;
}
