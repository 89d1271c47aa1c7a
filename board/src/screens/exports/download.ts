/** One export: reads it, writes it, and continues after its last whole record when the connection breaks. */
import { Problem, type Query, send } from "../../api/client.ts";
import { waitBefore } from "../live/following.ts";
import { parsePosition } from "../live/tail.ts";
import { type Progress, progressOf, type Sample, sampled } from "./progress.ts";
import type { Sink } from "./sinks.ts";
import { type Format, Splitter } from "./splitter.ts";

export interface Wanted {
  /** Filters, and the log. */
  query: Query;
  format: Format;
  /** Paths of fields; empty for whole records. */
  fields: string[];
  bom: boolean;
  gzip: boolean;
}

export type Phase = "running" | "waiting" | "paused" | "done" | "cancelled" | "failed";

export interface State {
  phase: Phase;
  records: number;
  /** Bytes of records, before compression. */
  bytes: number;
  total: number | null;
  progress: Progress;
  /** How often the connection broke and the export continued. */
  continued: number;
  /** Number of the last whole record; null where the export cannot continue after it. */
  after: number | null;
  error: unknown;
  /** Name of the file that the server proposes. */
  name: string | null;
}

/** Attempts without any new record before a person must say that it shall go on. */
const ATTEMPTS_MAX = 8;
const EXPORT = "/api/v1/logs/export";
/** Refusals that pass by themselves. */
const PASSING = new Set([
  "unreachable",
  "overloaded",
  "storage-unavailable",
  "search-unavailable",
  "access-log-unavailable",
  "registry-stale",
  "rate-limited",
  "request-timeout",
]);

/** Return the parameters of the API for an export. */
export function parametersOf(wanted: Wanted, after: number | null, counted: boolean): Query {
  return {
    ...wanted.query,
    format: wanted.format,
    fields: wanted.fields.length > 0 ? wanted.fields.join(",") : null,
    bom: wanted.bom && wanted.format === "csv" && after === null ? true : null,
    count: counted ? "exact" : null,
    after,
  };
}

function nameOf(response: Response): string | null {
  return /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? null;
}

function merged(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

class CutError extends Error {}

export class Download {
  readonly wanted: Wanted;
  readonly startedAt = Date.now();
  state: State = {
    phase: "running",
    records: 0,
    bytes: 0,
    total: null,
    progress: progressOf([], null),
    continued: 0,
    after: null,
    error: null,
    name: null,
  };
  #sink: Sink;
  #identity: string;
  #changed: () => void;
  #splitter: Splitter;
  #samples: Sample[] = [];
  #limit: number | null = null;
  #opened = false;
  #counted = true;
  #attempt = 0;
  #asking = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `identity` is that of the beginning: an export never continues as somebody else. `changed` is called after each change of `state`. */
  constructor(wanted: Wanted, sink: Sink, identity: string, changed: () => void) {
    this.wanted = wanted;
    this.#sink = sink;
    this.#identity = identity;
    this.#changed = changed;
    this.#splitter = new Splitter(wanted.format);
  }

  get active(): boolean {
    return this.state.phase === "running" || this.state.phase === "waiting" || this.state.phase === "paused";
  }

  /** Begin, or go on after the last whole record. */
  async run(): Promise<void> {
    clearTimeout(this.#timer);
    this.#set({ phase: "running", error: null });
    try {
      await this.#read();
    } catch (error) {
      await this.#failed(error);
      return;
    }
    await this.#complete();
  }

  /** Go on after attempts were given up, or at once instead of waiting. */
  resume(): void {
    if (this.state.phase !== "waiting" && this.state.phase !== "paused") return;
    this.#attempt = 0;
    void this.run();
  }

  async cancel(): Promise<void> {
    if (!this.active) return;
    clearTimeout(this.#timer);
    this.#set({ phase: "cancelled" });
    this.#asking.abort();
    await this.#sink.abort();
  }

  #set(next: Partial<State>): void {
    this.state = { ...this.state, ...next };
    this.#changed();
  }

  async #read(): Promise<void> {
    const response = await this.#open();
    const reader = response.body?.getReader();
    if (!reader) return;
    for (;;) {
      const piece = await reader.read().catch((error: unknown) => {
        if (this.state.phase === "cancelled") throw error;
        throw new CutError("The connection broke.");
      });
      if (piece.done) break;
      await this.#take(piece.value);
      if (this.#splitter.full) {
        await reader.cancel();
        return;
      }
    }
    if (this.#splitter.broken) throw new CutError("The connection broke.");
  }

  async #open(): Promise<Response> {
    const continues = this.#opened && this.#splitter.lastSeq !== null;
    const after = continues ? this.#splitter.lastSeq : null;
    this.#splitter.begin(this.#opened ? this.#limit : null);
    const ask = () =>
      send(EXPORT, {
        query: parametersOf(this.wanted, after, this.#counted && !this.#opened),
        headers: { "Decklog-Identity": this.#identity },
        signal: this.#asking.signal,
      });
    const response = await ask().catch((error: unknown) => {
      // A count may take longer than a search may. The export itself may not.
      if (!(error instanceof Problem) || error.code !== "search-unavailable" || !this.#counted || this.#opened)
        throw error;
      this.#counted = false;
      return ask();
    });
    if (this.#opened) this.#set({ continued: this.state.continued + 1 });
    else this.#began(response);
    return response;
  }

  #began(response: Response): void {
    this.#opened = true;
    this.#limit = parsePosition(response.headers.get("Decklog-Position") ?? "")?.seq ?? null;
    const total = response.headers.get("Decklog-Total");
    this.#set({ total: total === null ? null : Number(total), name: nameOf(response) });
  }

  async #take(piece: Uint8Array): Promise<void> {
    const before = this.#splitter.records;
    const output = merged(this.#splitter.take(piece));
    if (output.length > 0) await this.#sink.write(output);
    if (this.#splitter.records > before) this.#attempt = 0;
    const bytes = this.state.bytes + output.length;
    this.#samples = sampled(this.#samples, { at: Date.now(), records: this.#splitter.records, bytes });
    this.#set({
      bytes,
      records: this.#splitter.records,
      after: this.#splitter.lastSeq,
      progress: progressOf(this.#samples, this.state.total),
    });
  }

  async #complete(): Promise<void> {
    if (this.state.phase === "cancelled") return;
    const { total } = this.state;
    if (total !== null && total !== this.#splitter.records) {
      const counts = `${this.#splitter.records} records came, and ${total} were counted at the start`;
      await this.#end(
        new Error(`The export is not whole: ${counts}. Records may have left retention meanwhile. Export again.`),
      );
      return;
    }
    try {
      const rest = merged(this.#splitter.finish());
      if (rest.length > 0) await this.#sink.write(rest);
      await this.#sink.close();
      this.#set({ phase: "done", bytes: this.state.bytes + rest.length });
    } catch (error) {
      await this.#end(error);
    }
  }

  async #end(error: unknown): Promise<void> {
    this.#set({ phase: "failed", error });
    await this.#sink.abort().catch(() => undefined);
  }

  async #failed(error: unknown): Promise<void> {
    if (this.state.phase === "cancelled") return;
    const passes = error instanceof CutError || (error instanceof Problem && PASSING.has(error.code));
    if (!passes) return this.#end(error);
    if (this.#splitter.records > 0 && this.#splitter.lastSeq === null) {
      return this.#end(
        new Error(
          "The connection broke. Without the field seq the export cannot continue: begin it again, with seq among its fields.",
        ),
      );
    }
    if (this.#attempt >= ATTEMPTS_MAX) {
      this.#set({ phase: "paused", error });
      return;
    }
    const wait = waitBefore(this.#attempt, Math.random(), error instanceof Problem ? error.retryAfter : null);
    this.#attempt += 1;
    this.#set({ phase: "waiting", error });
    this.#timer = setTimeout(() => void this.run(), wait);
  }
}
