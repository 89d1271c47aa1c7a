/** Sends records in batches from memory. A record leaves the queue when the server stored it or refused it, never otherwise.
 *
 * One batch is on its way at a time, so records are stored in the order in which they were recorded. A record is serialised once:
 * each attempt sends the same bytes with the same id, which makes a repetition after a lost answer safe.
 */
import { Closed, NotCommitted, Problem, Refused, Unreachable } from "./errors.ts";
import type { Http } from "./http.ts";
import { passes, pause, pauseMs, TIMER_MS_MAX } from "./pauses.ts";
import { Queue, serialised, type Waiting, type WhenFull } from "./queue.ts";
import type { BulkAnswer, BulkItem, Fault, RecordInput } from "./types.ts";

/** A record that the server refused for what it is. Sending it again changes nothing. */
export interface Refusal {
  /** The record as it was sent, with its `id`. */
  record: RecordInput;
  code: string;
  detail: string;
  errors: readonly Fault[];
}

/** Where the server stored a record. */
export interface Stored {
  id: string;
  seq: number;
  /** `duplicate`: an earlier attempt, whose answer was lost, had stored it. */
  status: "stored" | "duplicate";
}

export interface SenderOptions {
  /** Behaviour of `record()` while the queue is full: wait for room (`block`, the default), or throw QueueFull. Nothing is dropped. */
  whenFull?: WhenFull;
  /** Records that may wait in memory: 10,000 by default. As many calls may wait for room. */
  queueRecordsMax?: number;
  /** Bytes that may wait in memory: 16 MiB by default. */
  queueBytesMax?: number;
  /** Records of one request: 500 by default, 10,000 at most. */
  batchRecordsMax?: number;
  /** Bytes of one request: 1 MiB by default. */
  batchBytesMax?: number;
  /** How long the first record of a batch waits for others: 20 ms by default. `commit()` and `append()` do not wait. */
  lingerMs?: number;
  /** Called for each record that the server refused. By default its id and the reason are written with `console.error`. */
  onRefused?: (refusal: Refusal) => void;
  /** Called for each failed attempt that is followed by another one. */
  onRetry?: (error: Error, pauseMs: number) => void;
}

export interface CommitOptions {
  /** How long to wait: 30 s by default. The records stay in the queue afterwards. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

export interface Stats {
  /** Records that the queue took: the sum of `stored`, `duplicates`, `refused` and `waiting`. */
  recorded: number;
  stored: number;
  /** Records that an earlier attempt had stored, whose answer was lost. */
  duplicates: number;
  refused: number;
  waiting: number;
  waitingBytes: number;
  requests: number;
  /** Attempts that failed and were followed by another one. */
  retries: number;
  /** Why the last attempt failed; null after one that succeeded. */
  lastError: Error | null;
}

/** A call that waits until the records up to `number` are stored or refused. */
interface Commit {
  number: number;
  refused: Refusals;
  resolve: () => void;
  reject: (error: Error) => void;
}

const PATH = "/api/v1/logs/bulk";
const BATCH_RECORDS_MOST = 10_000;
const COMMIT_MS = 30_000;
const REFUSALS_KEPT = 100;
/** Requests in a row without an answer after which they become smaller: the line may be too slow for them, or a proxy may cut them. */
const UNANSWERED_MAX = 3;
const DEFAULTS = {
  whenFull: "block",
  queueRecordsMax: 10_000,
  queueBytesMax: 16 * 1024 * 1024,
  batchRecordsMax: 500,
  batchBytesMax: 1024 * 1024,
  lingerMs: 20,
  onRefused: ({ record, code, detail }) =>
    console.error(`decklog: record ${record.id} was refused: ${code}: ${detail}`),
} satisfies SenderOptions;
/** Codes of single records that name a state of the server or of the tenant, not a fault of the record. */
const PASSING = new Set([
  "clock-behind",
  "internal",
  "outcome-unknown",
  "overloaded",
  "quota-exceeded",
  "rate-limited",
  "registry-stale",
  "request-timeout",
  "storage-unavailable",
  "tenant-suspended",
]);
/** Statuses of requests that a smaller or another content would not get. */
const OF_CONTENT = new Set([400, 409, 413, 422]);

/** Refusals that no caller has seen yet: a count, and the first of them. */
class Refusals {
  count = 0;
  readonly first: Refusal[] = [];

  add(refusal: Refusal): void {
    this.count += 1;
    if (this.first.length < REFUSALS_KEPT) this.first.push(refusal);
  }

  merge({ count, first }: Refusals): void {
    this.count += count;
    this.first.push(...first.slice(0, REFUSALS_KEPT - this.first.length));
  }
}

export class Sender {
  readonly #http: Http;
  readonly #options: Required<Omit<SenderOptions, "onRetry">> & Pick<SenderOptions, "onRetry">;
  readonly #queue: Queue;
  readonly #stopped = new AbortController();
  /** Records of the next batch, at most: smaller after a batch that was refused as a whole, or not answered. */
  #limit: number;
  /** Bound to which `#limit` grows at once: less than the size of the last batch that was too large. */
  #ceiling: number;
  #unseen = new Refusals();
  #commits: Commit[] = [];
  #running = false;
  #hurried = false;
  #wake: () => void = () => {};
  readonly #counts = { stored: 0, duplicates: 0, refused: 0, requests: 0, retries: 0 };
  #lastError: Error | null = null;
  /** Number of the last record that was given to `record()` or `append()`. */
  #last = 0;

  constructor(http: Http, options: SenderOptions) {
    this.#http = http;
    this.#options = { ...DEFAULTS, ...options };
    const { queueRecordsMax, queueBytesMax, batchRecordsMax, batchBytesMax, whenFull } = this.#options;
    const bounds = { queueRecordsMax, queueBytesMax, batchRecordsMax, batchBytesMax };
    for (const [name, value] of Object.entries(bounds)) {
      if (!Number.isInteger(value) || value < 1) throw new RangeError(`${name}: ${value} is not a positive integer.`);
    }
    if (batchRecordsMax > BATCH_RECORDS_MOST) {
      throw new RangeError(`batchRecordsMax: ${batchRecordsMax} is more than ${BATCH_RECORDS_MOST}.`);
    }
    this.#limit = batchRecordsMax;
    this.#ceiling = batchRecordsMax;
    this.#queue = new Queue(queueRecordsMax, queueBytesMax, whenFull);
  }

  get stats(): Stats {
    const { taken: recorded, length: waiting, bytes: waitingBytes } = this.#queue;
    return { recorded, ...this.#counts, waiting, waitingBytes, lastError: this.#lastError };
  }

  async record(record: RecordInput): Promise<string> {
    const made = serialised(record);
    await this.#put({ ...made, number: this.#next(), settle: undefined });
    return made.id;
  }

  async append(record: RecordInput, options: CommitOptions = {}): Promise<Stored> {
    const waiting: Waiting = { ...serialised(record), number: this.#next(), settle: undefined };
    try {
      const item = await this.#waited<BulkItem>(options, (resolve, reject) => {
        waiting.settle = (outcome) => (outcome instanceof Error ? reject(outcome) : resolve(outcome));
        this.#put(waiting).catch(reject);
        this.#hurry();
      });
      return { id: waiting.id, seq: item.seq as number, status: item.status as Stored["status"] };
    } finally {
      waiting.settle = undefined; // nobody waits any more: a later refusal goes to `onRefused` and `commit()`
    }
  }

  async commit(options: CommitOptions = {}): Promise<void> {
    const refused = this.#unseen;
    this.#unseen = new Refusals();
    try {
      if (this.#queue.oldest <= this.#last) {
        await this.#waited<void>(options, (resolve, reject) => {
          this.#commits.push({ number: this.#last, refused, resolve, reject });
          this.#hurry();
        });
      }
    } catch (error) {
      this.#commits = this.#commits.filter((each) => each.refused !== refused);
      this.#unseen.merge(refused); // for the next commit()
      throw error;
    }
    if (refused.count > 0) throw new Refused(refused.count, refused.first);
  }

  async close(options: CommitOptions = {}): Promise<void> {
    this.#queue.close();
    try {
      await this.commit(options);
    } finally {
      this.#stopped.abort();
      this.#queue.abandon();
    }
  }

  #next(): number {
    this.#last += 1;
    return this.#last;
  }

  /** Put a record into the queue. Where there is room, that happens in the caller's turn. */
  #put(waiting: Waiting): Promise<void> {
    const taken = this.#queue.put(waiting);
    if (!this.#running) void this.#run();
    if (this.#batchIsFull()) this.#wake();
    return taken;
  }

  #batchIsFull(): boolean {
    return this.#queue.length >= this.#limit || this.#queue.bytes >= this.#options.batchBytesMax;
  }

  /** Send what waits without waiting for more. */
  #hurry(): void {
    this.#hurried = true;
    this.#wake();
  }

  /** Wait until `start` resolves, at most as long as the options say. */
  async #waited<T>(
    options: CommitOptions,
    start: (resolve: (value: T) => void, reject: (error: Error) => void) => void,
  ) {
    const { timeoutMs = COMMIT_MS, signal } = options;
    signal?.throwIfAborted();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let abort = () => {};
    try {
      return await new Promise<T>((resolve, reject) => {
        timer = setTimeout(() => reject(this.#notCommitted(this.#lastError)), Math.min(timeoutMs, TIMER_MS_MAX));
        abort = () => reject(signal?.reason);
        signal?.addEventListener("abort", abort, { once: true });
        start(resolve, reject);
      });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  #notCommitted(cause: Error | null): NotCommitted {
    return new NotCommitted(this.#queue.lines, cause);
  }

  /** Send until nothing waits. */
  async #run(): Promise<void> {
    this.#running = true;
    let failures = 0;
    while (this.#queue.length > 0 && !this.#stopped.signal.aborted) {
      if (failures === 0) await this.#gather();
      const before = this.#queue.left;
      const error = await this.#attempt();
      failures = error === null ? 0 : this.#queue.left > before ? 1 : failures + 1;
      if (error instanceof Unreachable && failures >= UNANSWERED_MAX) this.#limit = Math.max(1, this.#limit >> 1);
      if (error !== null && !this.#stopped.signal.aborted) await this.#pause(error, failures);
    }
    this.#running = false;
    if (this.#stopped.signal.aborted) this.#stuck(new Closed("The client was closed."));
  }

  /** Wait for more records, until the batch is full or somebody waits for it. */
  async #gather(): Promise<void> {
    if (!this.#hurried && !this.#batchIsFull()) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, this.#options.lingerMs);
      });
      clearTimeout(timer);
      this.#wake = () => {};
    }
    this.#hurried = false;
  }

  async #pause(error: Error, failures: number): Promise<void> {
    const ms = pauseMs(failures, error);
    this.#counts.retries += 1;
    guarded(() => this.#options.onRetry?.(error, ms));
    await pause(ms, this.#stopped.signal).catch(() => {});
  }

  /** Send one batch. Return why records of it still wait; null if the next batch may follow at once. */
  async #attempt(): Promise<Error | null> {
    const batch = this.#queue.batch(this.#limit, this.#options.batchBytesMax);
    try {
      this.#counts.requests += 1;
      const { answer, retryAfter } = await this.#send(batch);
      this.#lastError = this.#settle(batch, answer.items, retryAfter);
      this.#grow();
      return this.#lastError;
    } catch (caught) {
      const error = caught instanceof Error ? caught : new Error(String(caught));
      this.#lastError = error;
      if (error instanceof Problem && OF_CONTENT.has(error.status)) return this.#divide(batch, error);
      if (!passes(error)) this.#stuck(error);
      return error;
    }
  }

  /** Let batches grow: fast up to the size that was too large once, and beyond it slowly, because a proxy's bound may stay. */
  #grow(): void {
    const { batchRecordsMax } = this.#options;
    if (this.#limit >= this.#ceiling)
      this.#ceiling = Math.min(batchRecordsMax, this.#ceiling + 1 + (this.#ceiling >> 4));
    this.#limit = Math.min(this.#ceiling, this.#limit * 2);
  }

  async #send(batch: readonly Waiting[]): Promise<{ answer: BulkAnswer; retryAfter: number | null }> {
    const body = `${batch.map((each) => each.line).join("\n")}\n`;
    const call = { method: "POST", body, contentType: "application/x-ndjson", signal: this.#stopped.signal } as const;
    try {
      const { text, retryAfter } = await this.#http.text(PATH, call);
      return { answer: answerTo(batch, text), retryAfter };
    } catch (error) {
      if (!(error instanceof Problem) || error.members.items?.length !== batch.length) throw error;
      return { answer: error.members as BulkAnswer, retryAfter: error.retryAfter }; // every record was refused
    }
  }

  /** Take the outcome of each record. Return why some of them still wait. */
  #settle(batch: readonly Waiting[], items: readonly BulkItem[], retryAfter: number | null): Problem | null {
    const gone = new Set<Waiting>();
    let kept: Problem | null = null;
    for (const [index, waiting] of batch.entries()) {
      const item = items[index] as BulkItem;
      if (item.error && PASSING.has(item.error.code)) {
        kept ??= new Problem(503, { code: item.error.code, detail: item.error.detail }, retryAfter);
      } else {
        gone.add(waiting);
        this.#leave(waiting, item);
      }
    }
    this.#queue.remove(gone);
    this.#resolveCommits();
    return kept;
  }

  /** Count a record that leaves the queue, and report it. */
  #leave(waiting: Waiting, item: BulkItem): void {
    if (item.status === "stored" || item.status === "duplicate") {
      this.#counts[item.status === "stored" ? "stored" : "duplicates"] += 1;
      waiting.settle?.(item);
      return;
    }
    this.#counts.refused += 1;
    const { code = "unknown", detail = item.status, errors } = item.error ?? {};
    const refusal: Refusal = { record: JSON.parse(waiting.line), code, detail, errors: errors ?? [] };
    if (waiting.settle) {
      waiting.settle(new Refused(1, [refusal]));
      return;
    }
    guarded(() => this.#options.onRefused(refusal));
    const commits = this.#commits.filter((each) => each.number >= waiting.number);
    for (const { refused } of commits.length > 0 ? commits : [{ refused: this.#unseen }]) refused.add(refusal);
  }

  #resolveCommits(): void {
    const done = (commit: Commit) => commit.number < this.#queue.oldest;
    for (const commit of this.#commits.filter(done)) commit.resolve();
    this.#commits = this.#commits.filter((commit) => !done(commit));
  }

  /** Send less at once after a batch was refused as a whole; refuse a record that was alone. */
  #divide(batch: readonly Waiting[], error: Problem): null {
    if (batch.length > 1) {
      this.#ceiling = batch.length - 1;
      this.#limit = Math.ceil(batch.length / 2);
      return null;
    }
    const { code, message: detail, members } = error;
    this.#settle(
      batch,
      [{ status: "rejected", error: { code, detail, errors: members.errors as Fault[] | null } }],
      null,
    );
    return null;
  }

  /** Tell callers that wait: attempts go on, but none will succeed before a person corrects the key, the address or the tenant. */
  #stuck(error: Error): void {
    for (const commit of this.#commits.splice(0)) commit.reject(this.#notCommitted(error));
    this.#queue.fail(() => this.#notCommitted(error));
  }
}

/** Return the answer to a batch. Throws Unreachable for one that does not belong to it: the outcome is unknown then. */
function answerTo(batch: readonly Waiting[], text: string): BulkAnswer {
  let answer: Partial<BulkAnswer> | null = null;
  try {
    answer = JSON.parse(text);
  } catch {} // a page of a proxy
  if (answer?.items?.length === batch.length) return answer as BulkAnswer;
  throw new Unreachable("The answer is not one of Decklog.");
}

/** Run a callback of the application. Its error must not end the sending. */
function guarded(call: () => void): void {
  try {
    call();
  } catch (error) {
    console.error("decklog: a callback failed:", error);
  }
}
