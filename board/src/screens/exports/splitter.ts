/**
 * Splits the bytes of an export into whole records, so that one that broke off continues after its last whole record.
 *
 * The bytes that come out over several connections are those of one unbroken export. Pure; it reads no network.
 */

export type Format = "ndjson" | "json" | "csv";

const NEWLINE = 0x0a;
const QUOTE = 0x22;
const encoder = new TextEncoder();
const JSON_OPENING = encoder.encode("[\n");
const JSON_SEPARATOR = encoder.encode(",\n");

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  if (first.length === 0) return second;
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Return the cells of one row of CSV (RFC 4180). */
export function cellsOf(row: string): string[] {
  const cells: string[] = [];
  const pattern = /("(?:[^"]|"")*"|[^,]*)(,|$)/g;
  const line = row.replace(/\r?\n$/, "");
  for (let found = pattern.exec(line); found; found = pattern.exec(line)) {
    const cell = found[1] ?? "";
    cells.push(cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell);
    if (found[2] === "") break;
  }
  return cells;
}

/** One row or line: its bytes with the line break at their end. */
type Line = Uint8Array;

export class Splitter {
  /** Whole records so far, over all connections. */
  records = 0;
  /** Number of the last whole record; null where the chosen fields do not have it. */
  lastSeq: number | null = null;
  /** True if a record beyond the limit came, so that the file is whole. */
  full = false;
  #format: Format;
  #decoder = new TextDecoder();
  #rest: Uint8Array = new Uint8Array();
  #quoted = false;
  #scanned = 0;
  #limit: number | null = null;
  #headed = false;
  #lines = 0;
  #seqColumn = -1;

  constructor(format: Format) {
    this.#format = format;
  }

  /** Begin to take the bytes of a connection. Records after `limit`, which came after the export began, are left out. */
  begin(limit: number | null): void {
    this.#limit = limit;
    this.#rest = new Uint8Array();
    this.#quoted = false;
    this.#scanned = 0;
    this.#lines = 0;
  }

  /** Return the bytes to write for a piece that came: those of whole records. */
  take(piece: Uint8Array): Uint8Array[] {
    if (this.full) return [];
    const bytes = joined(this.#rest, piece);
    const lines: Line[] = [];
    let start = 0;
    for (let end = this.#lineEnd(bytes); end >= 0; end = this.#lineEnd(bytes)) {
      lines.push(bytes.subarray(start, end));
      start = end;
    }
    this.#rest = bytes.subarray(start);
    this.#scanned -= start;
    return this.#written(lines);
  }

  /** Return the bytes that follow the last record. */
  finish(): Uint8Array[] {
    if (this.#format !== "json") return [];
    return [encoder.encode(this.records === 0 ? "[\n]\n" : "\n]\n")];
  }

  /** True if the last connection ended within a record. */
  get broken(): boolean {
    return this.#rest.length > 0;
  }

  /** Return where the next whole line ends; -1 where none is whole. A line break within quotes of CSV ends nothing. */
  #lineEnd(bytes: Uint8Array): number {
    if (this.#format !== "csv") {
      const at = bytes.indexOf(NEWLINE, this.#scanned);
      this.#scanned = at < 0 ? bytes.length : at + 1;
      return at < 0 ? -1 : at + 1;
    }
    for (let at = this.#scanned; at < bytes.length; at += 1) {
      const byte = bytes[at];
      if (byte === QUOTE) this.#quoted = !this.#quoted;
      else if (byte === NEWLINE && !this.#quoted) {
        this.#scanned = at + 1;
        return at + 1;
      }
    }
    this.#scanned = bytes.length;
    return -1;
  }

  #written(lines: Line[]): Uint8Array[] {
    const output: Uint8Array[] = [];
    let last: Line | null = null;
    for (const line of lines) {
      this.#lines += 1;
      if (this.#isFrame(line)) {
        if (this.#format === "csv" && !this.#headed) output.push(line);
        this.#headed = true;
        continue;
      }
      if (this.#limit !== null && (this.#seqOf(line) ?? -1) > this.#limit) {
        this.full = true;
        break;
      }
      last = line;
      this.#put(output, line);
      this.records += 1;
    }
    if (last) this.lastSeq = this.#seqOf(last);
    return output;
  }

  /** Return whether a line is no record: the brackets of JSON, the head of CSV. */
  #isFrame(line: Line): boolean {
    if (this.#format === "json") return line[0] !== 0x7b;
    if (this.#format !== "csv" || this.#lines !== 1) return false;
    this.#seqColumn = cellsOf(this.#decoder.decode(line)).indexOf("seq");
    return true;
  }

  #put(output: Uint8Array[], line: Line): void {
    if (this.#format !== "json") {
      output.push(line);
      return;
    }
    // The separator follows a record only when the next one comes: it stands in front of that one.
    const end = line.length - (line[line.length - 2] === 0x2c ? 2 : 1);
    output.push(this.records === 0 ? JSON_OPENING : JSON_SEPARATOR, line.subarray(0, end));
  }

  #seqOf(line: Line): number | null {
    const text = this.#decoder.decode(line);
    const found =
      this.#format === "csv"
        ? Number(cellsOf(text)[this.#seqColumn] ?? Number.NaN)
        : (JSON.parse(text.replace(/,?\r?\n$/, "")) as { seq?: number }).seq;
    return typeof found === "number" && Number.isSafeInteger(found) ? found : null;
  }
}
