/** Errors of this package. A refusal of the server is a `Problem`; `Unreachable` means that no answer came. */
import type { Refusal } from "./sender.ts";
import type { ProblemDocument, RecordInput } from "./types.ts";

/** A refusal as the server answers it (RFC 9457). `code` is stable and listed in the reference of errors. */
export class Problem extends Error {
  override readonly name = "Problem";
  readonly status: number;
  readonly code: string;
  /** Seconds that the server asks to wait; null where it names none. */
  readonly retryAfter: number | null;
  /** All members of the document, such as `parameter`, `errors` and `items`. */
  readonly members: Partial<ProblemDocument>;

  constructor(status: number, members: Partial<ProblemDocument>, retryAfter: number | null) {
    super(members.detail ?? members.title ?? `Status ${status}.`);
    this.status = status;
    this.code = members.code ?? "unknown";
    this.retryAfter = retryAfter;
    this.members = members;
  }
}

/** No answer: the connection failed or broke, or the answer took longer than `requestTimeoutMs`. The outcome is unknown. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}

/** The queue has no room for a record. The record was not taken. */
export class QueueFull extends Error {
  override readonly name = "QueueFull";
}

/** The client was closed. The record was not taken. */
export class Closed extends Error {
  override readonly name = "Closed";
}

/** The server refused records for what they are. Other records are stored. */
export class Refused extends Error {
  override readonly name = "Refused";
  /** The first refusals since the previous `commit()`, at most 100. */
  readonly refusals: readonly Refusal[];

  constructor(count: number, refusals: readonly Refusal[]) {
    const [first] = refusals;
    super(`${count} records were refused; the first for ${first?.code}: ${first?.detail}`);
    this.refusals = refusals;
  }
}

/** Records wait that the server did not store in time. They stay in the queue, and the client goes on trying until it is closed. */
export class NotCommitted extends Error {
  override readonly name = "NotCommitted";
  readonly #lines: readonly string[];

  constructor(lines: readonly string[], cause: Error | null) {
    super(`${lines.length} records are not committed${cause === null ? "." : `: ${cause.message}`}`, { cause });
    this.#lines = lines;
  }

  /** Return the records that waited when this was thrown, with their ids: after `close()`, only the caller has them. */
  records(): RecordInput[] {
    return this.#lines.map((line) => JSON.parse(line));
  }
}
