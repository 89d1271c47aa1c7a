/** Search, follow and export. A reading that broke is continued where it was, so nothing is missed or given twice. */
import { Problem, Unreachable } from "./errors.ts";
import type { Http } from "./http.ts";
import { lines, serverSentEvents } from "./lines.ts";
import { passes, pause, pauseMs } from "./pauses.ts";
import type { ExportParameters, Page, SearchParameters, StoredRecord, StreamParameters } from "./types.ts";

export interface ReadOptions {
  signal?: AbortSignal;
}

export interface FollowOptions extends ReadOptions {
  /** Called before each new connection but the first. */
  onReconnect?: (error: Error) => void;
}

/** A record of a stream, and the position behind it, with which a later stream continues (`after`). */
export interface Followed {
  record: StoredRecord;
  position: string;
}

/** Reads JSON: `JSON.parse`, or a function that keeps the digits of large integers. */
export type Parse = (text: string) => unknown;

const LOGS = "/api/v1/logs";
/** Attempts of a reading in a row that may fail before its caller gets the error. */
const ATTEMPTS_MAX = 5;
/** The server sends a heartbeat every 15 s. */
const SILENCE_MS = 60_000;

/** Return filters as a query string: lists repeat their name, `{metadata: {"a.b": "v"}}` is `metadata[a.b]=v`. */
export function queryOf(parameters: object): URLSearchParams {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === null) continue;
    if (Array.isArray(value)) for (const each of value) query.append(name, String(each));
    else if (typeof value !== "object") query.append(name, String(value));
    else for (const [path, leaf] of Object.entries(value)) query.append(leafName(name, path), String(leaf));
  }
  return query;
}

/** `after` alone is a position, so filters of a record's `after` are written with a dot. */
function leafName(name: string, path: string): string {
  return name === "after.<path>" ? `after.${path.replace(/^after\./, "")}` : `${name}[${path}]`;
}

/** Records that match, and the pages they come in. Each iteration asks the server anew. */
export class Results implements AsyncIterable<StoredRecord> {
  readonly #http: Http;
  readonly #parse: Parse;
  readonly #parameters: SearchParameters;
  readonly #options: ReadOptions;

  constructor(http: Http, parse: Parse, parameters: SearchParameters, options: ReadOptions) {
    this.#http = http;
    this.#parse = parse;
    this.#parameters = parameters;
    this.#options = options;
  }

  /** Yield the pages, one request each. The first one answers `total`, if `count: "exact"` was asked. */
  async *pages(): AsyncGenerator<Page> {
    const { q, ...others } = this.#parameters;
    let cursor: string | null = null;
    do {
      const page: Page = await this.#page({
        ...others,
        ...(q === undefined ? {} : { query: q }),
        ...(cursor ? { cursor } : {}),
      });
      yield page;
      cursor = page.next;
    } while (cursor);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<StoredRecord> {
    for await (const page of this.pages()) yield* page.items;
  }

  async #page(body: object): Promise<Page> {
    const call = {
      method: "POST",
      body: JSON.stringify(body),
      contentType: "application/json",
      ...this.#options,
    } as const;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return this.#parse((await this.#http.text(`${LOGS}/search`, call)).text) as Page;
      } catch (error) {
        await waitOrThrow(error, attempt, this.#options.signal);
      }
    }
  }
}

/** Follow a log until `signal` aborts, over any number of connections. Throws a refusal that does not pass by itself. */
export async function* follow(
  http: Http,
  parse: Parse,
  { after, ...filters }: StreamParameters,
  { signal, onReconnect }: FollowOptions,
): AsyncGenerator<Followed> {
  let position = after;
  for (let failures = 0; ; ) {
    let failure: unknown = new Unreachable("The server ended the stream.");
    try {
      const call = { query: queryOf({ ...filters, after: position }), accept: "text/event-stream", signal };
      const response = await http.open(`${LOGS}/stream`, call);
      for await (const { name, data, id } of serverSentEvents(lines(response, SILENCE_MS, signal))) {
        if (name === "problem") throw ending(data);
        if (id === null) continue;
        position = id;
        if (name !== "opened") failures = 0;
        if (name === "record") yield { record: parse(data) as StoredRecord, position: id };
      }
    } catch (error) {
      failure = error;
    }
    failures += 1;
    await waitOrThrow(failure, failures, signal, Number.POSITIVE_INFINITY);
    onReconnect?.(failure as Error);
  }
}

function ending(data: string): Problem {
  const members = JSON.parse(data);
  return new Problem(members.status, members, members.retry_after ?? null);
}

/** Export the records that match, oldest first. A transfer that broke continues after its last whole record. */
export async function* exported(
  http: Http,
  parse: Parse,
  { after, ...filters }: ExportParameters,
  { signal }: ReadOptions,
): AsyncGenerator<StoredRecord> {
  let last: string | number | undefined = after;
  let placeless = false;
  for (let failures = 1; ; failures += 1) {
    try {
      const query = queryOf({ ...filters, after: last, format: "ndjson" });
      const response = await http.open(`${LOGS}/export`, { query, signal });
      for await (const line of lines(response, SILENCE_MS, signal)) {
        const record = parse(line) as StoredRecord;
        last = record.seq;
        placeless = last === undefined; // `fields` without `seq`
        failures = 1;
        yield record;
      }
      return;
    } catch (error) {
      if (placeless) throw error; // to continue from the beginning would yield records twice
      await waitOrThrow(error, failures, signal);
    }
  }
}

/** Wait before the next attempt. Throws `error` if it does not pass by itself, or came too often. */
async function waitOrThrow(error: unknown, failures: number, signal?: AbortSignal, failuresMax = ATTEMPTS_MAX - 1) {
  signal?.throwIfAborted();
  if (!passes(error) || failures > failuresMax) throw error;
  await pause(pauseMs(failures, error), signal);
}
