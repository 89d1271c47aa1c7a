/**
 * Follows a log over Server-Sent Events for as long as it is wanted.
 *
 * An EventSource cannot send the header that names an identity, so each connection begins with a ticket, which opens one stream once.
 * The EventSource must therefore never reconnect by itself: after an error it is closed, and a new one continues after the last position.
 */
import { Problem } from "../../api/client.ts";

export type Connection =
  | { state: "connecting" }
  | { state: "open" }
  | { state: "lost"; why: string; since: number; retryAt: number }
  | { state: "ended"; problem: Problem };

/** The part of an EventSource that is used here. */
export interface Source {
  addEventListener: (name: string, listener: (event: MessageEvent<string>) => void) => void;
  onerror: ((event: Event) => void) | null;
  close: () => void;
}

export interface FollowOptions {
  /** Returns a ticket for one connection. Throws a `Problem`. */
  ticket: () => Promise<string>;
  open: (ticket: string, after: string | null) => Source;
  /** Asks why a stream was refused, which an EventSource does not say. Returns null where it would be opened now. */
  refusal: (after: string | null) => Promise<Problem | null>;
  /** Position after which the next connection continues; null for the newest record. */
  position: () => string | null;
  onOpened: (position: string, away: number | null) => void;
  onRecord: (position: string, text: string) => void;
  onHeartbeat: (position: string) => void;
  onConnection: (connection: Connection) => void;
  now?: () => number;
}

/** Milliseconds without any event after which a connection counts as lost: three heartbeats of the server. */
export const SILENCE_MAX = 45_000;
const WAIT_FIRST = 500;
const WAIT_MAX = 30_000;

/** Refusals that another attempt does not change. */
const FINAL = new Set([
  "unauthenticated",
  "forbidden",
  "tenant-suspended",
  "invalid-query",
  "invalid-parameter",
  "unknown-parameter",
  "record-damaged",
  "not-found",
  "method-not-allowed",
  "http-version",
]);

/** Return whether a refusal stays as it is until something else changes: the query, the role, the tenant. */
export function isFinal(problem: Problem): boolean {
  return FINAL.has(problem.code);
}

/** Return how long to wait before an attempt, counted from 0: doubling, with up to a quarter more by chance. */
export function waitBefore(attempt: number, chance: number, retryAfter: number | null = null): number {
  const wait = Math.min(WAIT_MAX, WAIT_FIRST * 2 ** Math.min(attempt, 10));
  return Math.round(Math.max(wait, (retryAfter ?? 0) * 1_000) * (1 + chance / 4));
}

export class Following {
  #options: FollowOptions;
  #now: () => number;
  #source: Source | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #attempt = 0;
  #lostAt: number | null = null;
  #stopped = false;
  #connecting = false;

  constructor(options: FollowOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** Connect now, whether for the first time or instead of the attempt that is waited for. */
  connect(): void {
    if (this.#stopped || this.#source || this.#connecting) return;
    clearTimeout(this.#timer);
    this.#options.onConnection({ state: "connecting" });
    this.#connecting = true;
    void this.#connect().finally(() => {
      this.#connecting = false;
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#close();
    clearTimeout(this.#timer);
  }

  #close(): void {
    clearTimeout(this.#silence);
    this.#source?.close();
    this.#source = null;
  }

  async #connect(): Promise<void> {
    try {
      const ticket = await this.#options.ticket();
      if (!this.#stopped) this.#listen(ticket);
    } catch (error) {
      this.#failed(error instanceof Problem ? error : null, error instanceof Error ? error.message : String(error));
    }
  }

  #listen(ticket: string): void {
    const after = this.#options.position();
    const source = this.#options.open(ticket, after);
    this.#source = source;
    let opened = false;
    const on = (name: string, take: (event: MessageEvent<string>) => void) =>
      source.addEventListener(name, (event) => {
        if (this.#source !== source) return;
        this.#heard();
        take(event);
      });
    on("opened", (event) => {
      opened = true;
      const away = this.#lostAt === null ? null : this.#now() - this.#lostAt;
      this.#lostAt = null;
      this.#attempt = 0;
      this.#options.onOpened((JSON.parse(event.data) as { position: string }).position, away);
      this.#options.onConnection({ state: "open" });
    });
    on("record", (event) => this.#options.onRecord(event.lastEventId, event.data));
    on("heartbeat", (event) => this.#options.onHeartbeat(event.lastEventId));
    on("problem", (event) => {
      const members = JSON.parse(event.data) as Record<string, unknown>;
      this.#close();
      this.#failed(new Problem(Number(members.status ?? 0), members), String(members.detail ?? members.title));
    });
    source.onerror = () => {
      if (this.#source !== source) return;
      this.#close();
      if (opened) this.#failed(null, "The connection broke.");
      else void this.#explain(after);
    };
    this.#heard();
  }

  /** Every event shows that the connection lives; a silent one is given up. */
  #heard(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      this.#close();
      this.#failed(null, "The server was silent.");
    }, SILENCE_MAX);
  }

  async #explain(after: string | null): Promise<void> {
    const problem = await this.#options.refusal(after).catch(() => null);
    this.#failed(problem, problem?.message ?? "Decklog cannot be reached.");
  }

  #failed(problem: Problem | null, why: string): void {
    if (this.#stopped) return;
    if (problem && isFinal(problem)) {
      this.#options.onConnection({ state: "ended", problem });
      return;
    }
    this.#lostAt ??= this.#now();
    const wait = waitBefore(this.#attempt, Math.random(), problem?.retryAfter);
    this.#attempt += 1;
    this.#options.onConnection({ state: "lost", why, since: this.#lostAt, retryAt: this.#now() + wait });
    this.#timer = setTimeout(() => this.connect(), wait);
  }
}
