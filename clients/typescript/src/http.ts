/** One request: address, credential, time limit, and errors. Nothing here repeats a request. */
import { Problem, Unreachable } from "./errors.ts";
import { TIMER_MS_MAX } from "./pauses.ts";

/** A key, or a function that returns the present one: each request asks it, so a rotated key is used at once. */
export type Key = string | (() => string | Promise<string>);

export interface Call {
  method?: "GET" | "POST";
  query?: URLSearchParams;
  body?: string;
  contentType?: string;
  accept?: string;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  text: string;
  /** Seconds to wait before records that were refused for now are sent again. */
  retryAfter: number | null;
}

/** Sends requests to one server as one credential. */
export class Http {
  readonly #base: string;
  readonly #key: Key;
  readonly #fetch: typeof fetch;
  readonly #timeoutMs: number;

  constructor(url: string, key: Key, fetching: typeof fetch, timeoutMs: number) {
    const { protocol, username, search, hash } = new URL(url);
    if (!/^https?:$/.test(protocol) || username || search || hash) {
      throw new TypeError("url: must be http:// or https://, without credentials, query and fragment.");
    }
    this.#base = url.replace(/\/+$/, "");
    this.#key = key;
    this.#fetch = fetching;
    this.#timeoutMs = Math.min(timeoutMs, TIMER_MS_MAX);
  }

  /** Send a request and return its whole answer. Throws Problem, Unreachable, or the reason of `signal`. */
  text(path: string, call: Call = {}): Promise<Answer> {
    return this.#limited(call.signal, async (signal) => {
      const response = await this.#answer(path, call, signal);
      return { text: await response.text(), retryAfter: retryAfter(response.headers.get("Retry-After")) };
    });
  }

  /** Send a request and return its answer as soon as it begins; the time limit ends there. The caller reads or cancels the body. */
  open(path: string, call: Call = {}): Promise<Response> {
    return this.#limited(call.signal, (signal) => this.#answer(path, call, signal));
  }

  async #answer(path: string, call: Call, signal: AbortSignal): Promise<Response> {
    const key = typeof this.#key === "function" ? await this.#key() : this.#key;
    const headers: Record<string, string> = { Authorization: `Bearer ${key}` };
    if (call.contentType) headers["Content-Type"] = call.contentType;
    if (call.accept) headers.Accept = call.accept;
    const query = call.query?.toString();
    const fetching = this.#fetch; // a browser refuses to call it as a method of another object
    const response = await fetching(this.#base + path + (query ? `?${query}` : ""), {
      method: call.method ?? "GET",
      headers,
      redirect: "error",
      signal,
      ...(call.body === undefined ? {} : { body: call.body }),
    });
    if (response.ok) return response;
    throw await refusal(response);
  }

  /** Run `work` within the time limit. What fails in it without an answer is Unreachable, unless `outer` was aborted. */
  async #limited<T>(outer: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const inner = new AbortController();
    const abort = () => inner.abort(outer?.reason);
    const timer = setTimeout(() => inner.abort(new Error(`nothing within ${this.#timeoutMs} ms`)), this.#timeoutMs);
    outer?.addEventListener("abort", abort, { once: true });
    try {
      outer?.throwIfAborted();
      return await work(inner.signal);
    } catch (error) {
      if (error instanceof Problem) throw error;
      outer?.throwIfAborted();
      throw new Unreachable(`No answer: ${reason(error)}.`, { cause: error });
    } finally {
      clearTimeout(timer);
      outer?.removeEventListener("abort", abort);
    }
  }
}

/** Return why a request failed; Node's fetch has the reason in `cause`. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

async function refusal(response: Response): Promise<Problem> {
  const text = await response.text();
  return new Problem(response.status, members(text), retryAfter(response.headers.get("Retry-After")));
}

/** Return the members of a problem document; of a page that a proxy wrote, none. */
function members(text: string): Record<string, unknown> {
  try {
    const document: unknown = JSON.parse(text);
    return typeof document === "object" && document !== null ? (document as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Return the seconds of a Retry-After header, which is a number or a date (RFC 9110, section 10.2.3). */
export function retryAfter(value: string | null, now: number = Date.now()): number | null {
  if (value === null || value.trim() === "") return null;
  const seconds = /^\d+$/.test(value.trim()) ? Number(value) : (Date.parse(value) - now) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}
