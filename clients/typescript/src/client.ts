/** The client: what an application uses of this package. */
import { Http, type Key } from "./http.ts";
import {
  exported,
  type Followed,
  type FollowOptions,
  follow,
  type Parse,
  type ReadOptions,
  Results,
} from "./reading.ts";
import { type CommitOptions, Sender, type SenderOptions, type Stats, type Stored } from "./sender.ts";
import type { ExportParameters, RecordInput, SearchParameters, StoredRecord, StreamParameters } from "./types.ts";

export interface DecklogOptions extends SenderOptions {
  /** Address of the API: `https://audit.example.com`. */
  url: string;
  /** An API key or a token; or a function that returns the present one. */
  key: Key;
  /** How long a request may wait for its answer: 30 s by default. */
  requestTimeoutMs?: number;
  /** Reads JSON of answers. `JSON.parse` rounds integers beyond 2^53; give a parser that keeps them if records have such. */
  parse?: Parse;
  /** In place of the global `fetch`. */
  fetch?: typeof fetch;
}

/** Sends records, and reads a log.
 *
 * Records that `record()` took wait in memory until the server stored them. A process that ends before takes them with it:
 * `await commit()` (or `append()`) before you tell anybody that something is recorded, and `await close()` before the process ends.
 */
export class Decklog {
  readonly #http: Http;
  readonly #sender: Sender;
  readonly #parse: Parse;

  constructor({
    url,
    key,
    requestTimeoutMs = 30_000,
    parse = JSON.parse,
    fetch: fetching,
    ...sending
  }: DecklogOptions) {
    if (!key) throw new TypeError("key: is empty.");
    this.#http = new Http(url, key, fetching ?? globalThis.fetch, requestTimeoutMs);
    this.#sender = new Sender(this.#http, sending);
    this.#parse = parse;
  }

  /** Put a record into the queue and return its id. The record is not stored yet.
   *
   * The record gets an `id` and `occurred_at` here if it has none, so that every attempt sends the same. While the queue is full, the
   * call waits, or throws QueueFull with `whenFull: "throw"`.
   */
  record(record: RecordInput): Promise<string> {
    return this.#sender.record(record);
  }

  /** Send a record, in a batch with others that wait, and return where it is stored. Throws Refused or NotCommitted. */
  append(record: RecordInput, options?: CommitOptions): Promise<Stored> {
    return this.#sender.append(record, options);
  }

  /** Wait until every record that was given to `record()` before is stored.
   *
   * Throws Refused if the server refused records since the last `commit()`, and NotCommitted if some are not stored in time: they stay
   * in the queue, and the client goes on trying.
   */
  commit(options?: CommitOptions): Promise<void> {
    return this.#sender.commit(options);
  }

  /** Take no more records, wait as `commit()` does, and stop. `records()` of a NotCommitted has what was not stored. */
  close(options?: CommitOptions): Promise<void> {
    return this.#sender.close(options);
  }

  /** Counts of records and requests since the client was made. */
  get stats(): Stats {
    return this.#sender.stats;
  }

  /** Search. Iterate over the records, or over `pages()`. */
  search(parameters: SearchParameters = {}, options: ReadOptions = {}): Results {
    return new Results(this.#http, this.#parse, parameters, options);
  }

  /** Follow a log: new records, or everything after `after` (`"-1"` is before the first record), until the loop ends or `signal` aborts. */
  tail(parameters: StreamParameters = {}, options: FollowOptions = {}): AsyncGenerator<Followed> {
    return follow(this.#http, this.#parse, parameters, options);
  }

  /** Export the records that match, oldest first. */
  export(parameters: ExportParameters = {}, options: ReadOptions = {}): AsyncGenerator<StoredRecord> {
    return exported(this.#http, this.#parse, parameters, options);
  }
}
