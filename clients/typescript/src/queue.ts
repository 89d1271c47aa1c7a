/** A bounded queue of serialised records, in the order in which they were recorded. Callers wait for room in that order, too. */
import { Closed, QueueFull } from "./errors.ts";
import type { BulkItem, RecordInput } from "./types.ts";

export type WhenFull = "block" | "throw";

/** A record that waits. `settle` is set where its caller waits for this record. */
export interface Waiting {
  number: number;
  id: string;
  line: string;
  bytes: number;
  settle: ((outcome: BulkItem | Error) => void) | undefined;
}

interface Blocked {
  waiting: Waiting;
  resolve: () => void;
  reject: (error: Error) => void;
}

const encoder = new TextEncoder();

/** Return the record as it is sent by every attempt: with an id, and with the time of the call where it names none. */
export function serialised(
  record: RecordInput,
  now: () => Date = () => new Date(),
): Omit<Waiting, "number" | "settle"> {
  const id = record.id ?? newId();
  const line = JSON.stringify({ ...record, id, occurred_at: record.occurred_at ?? now().toISOString() });
  return { id, line, bytes: encoder.encode(line).length + 1 };
}

/** Return 128 random bits. `crypto.randomUUID` is missing on pages without TLS. */
function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Queue {
  readonly #recordsMax: number;
  readonly #bytesMax: number;
  readonly #whenFull: WhenFull;
  #items: Waiting[] = [];
  #blocked: Blocked[] = [];
  #bytes = 0;
  #closed = false;
  #taken = 0;

  constructor(recordsMax: number, bytesMax: number, whenFull: WhenFull) {
    this.#recordsMax = recordsMax;
    this.#bytesMax = bytesMax;
    this.#whenFull = whenFull;
  }

  get length(): number {
    return this.#items.length;
  }

  /** Number of records that were added. */
  get taken(): number {
    return this.#taken;
  }

  /** Number of records that were removed. */
  get left(): number {
    return this.#taken - this.#items.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get lines(): string[] {
    return this.#items.map((each) => each.line);
  }

  /** Number of the oldest record that waits here or for room; Infinity where none does. */
  get oldest(): number {
    return this.#items[0]?.number ?? this.#blocked[0]?.waiting.number ?? Number.POSITIVE_INFINITY;
  }

  /** Add a record at once, or as soon as there is room. Throws QueueFull and Closed; the record is not taken then. */
  put(waiting: Waiting): Promise<void> {
    if (this.#closed) return Promise.reject(new Closed("The client was closed."));
    if (this.#blocked.length === 0 && this.#fits(waiting.bytes)) {
      this.#add(waiting);
      return Promise.resolve();
    }
    if (waiting.bytes > this.#bytesMax || this.#whenFull === "throw" || this.#blocked.length >= this.#recordsMax) {
      return Promise.reject(this.#full(waiting.bytes));
    }
    return new Promise((resolve, reject) => this.#blocked.push({ waiting, resolve, reject }));
  }

  /** Return the oldest records, at least one, within these bounds. They stay in the queue. */
  batch(recordsMax: number, bytesMax: number): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const each of this.#items) {
      bytes += each.bytes;
      if (count > 0 && (count === recordsMax || bytes > bytesMax)) break;
      count += 1;
    }
    return this.#items.slice(0, count);
  }

  /** Remove records of the last batch, and let calls go on for whose records there is room now. */
  remove(gone: ReadonlySet<Waiting>): void {
    this.#items = this.#items.filter((each) => !gone.has(each));
    for (const each of gone) this.#bytes -= each.bytes;
    for (let [first] = this.#blocked; first && this.#fits(first.waiting.bytes); [first] = this.#blocked) {
      this.#blocked.shift();
      this.#add(first.waiting);
      first.resolve();
    }
  }

  /** Fail the callers that wait for their record. The records stay. */
  fail(error: () => Error): void {
    for (const each of [...this.#items, ...this.#blocked.map((each) => each.waiting)]) {
      each.settle?.(error());
    }
  }

  /** Take no more records. The calls that wait for room still get it. */
  close(): void {
    this.#closed = true;
  }

  /** Throw Closed in the calls that wait for room: nothing will make room any more. */
  abandon(): void {
    for (const each of this.#blocked.splice(0)) each.reject(new Closed("The client was closed."));
  }

  #add(waiting: Waiting): void {
    this.#items.push(waiting);
    this.#bytes += waiting.bytes;
    this.#taken += 1;
  }

  #fits(bytes: number): boolean {
    return this.#items.length < this.#recordsMax && this.#bytes + bytes <= this.#bytesMax;
  }

  #full(bytes: number): QueueFull {
    if (bytes > this.#bytesMax)
      return new QueueFull(`A record of ${bytes} bytes is larger than queueBytesMax, ${this.#bytesMax}.`);
    return new QueueFull(
      `${this.#items.length} records of ${this.#bytes} bytes wait for the server, and ${this.#blocked.length} calls for room. ` +
        "Wait for commit(), or raise queueRecordsMax or queueBytesMax.",
    );
  }
}
