// @vitest-environment node
import { describe, expect, test } from "vitest";
import { cellsOf, type Format, Splitter } from "./splitter.ts";

const encoder = new TextEncoder();

/** Return bytes as text that differs where a byte does. */
function text(pieces: Uint8Array[]): string {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  return pieces.map((piece) => decoder.decode(piece, { stream: true })).join("") + decoder.decode();
}

/** Write records as the API exports them. */
function exported(format: Format, seqs: number[]): string {
  const record = (seq: number) =>
    `{"tenant":"a","seq":${seq},"message":"line\\nbreak, ] é ${seq}","metadata":{"seq":9}}`;
  if (format === "json") return seqs.length === 0 ? "[\n]\n" : `[\n${seqs.map(record).join(",\n")}\n]\n`;
  if (format === "ndjson") return seqs.map((seq) => `${record(seq)}\n`).join("");
  return `\uFEFFaction,seq,message\r\n${seqs.map((seq) => `"a,""b""",${seq},"two\nlines é"\r\n`).join("")}`;
}

function range(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, index) => first + index);
}

/** Deliver bytes in pieces of a size. */
function pieces(bytes: Uint8Array, size: number): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
    bytes.slice(index * size, (index + 1) * size),
  );
}

const FORMATS: Format[] = ["ndjson", "json", "csv"];

describe.each(FORMATS)("%s", (format) => {
  test.each([0, 1, 2, 25])("an unbroken export of %i records comes out as it came in, whatever its pieces", (count) => {
    const bytes = encoder.encode(exported(format, range(0, count)));
    for (const size of [1, 2, 3, 7, 64, 100_000]) {
      const splitter = new Splitter(format);
      splitter.begin(null);
      const output = pieces(bytes, size).flatMap((piece) => splitter.take(piece));
      output.push(...splitter.finish());
      expect(text(output)).toBe(text([bytes]));
      expect(splitter.records).toBe(count);
      expect(splitter.lastSeq).toBe(count === 0 ? null : count - 1);
      expect(splitter.broken).toBe(false);
    }
  });

  test("an export that breaks at any byte continues to the bytes of an unbroken one, without records that came since", () => {
    const whole = encoder.encode(exported(format, range(0, 8)));
    for (let cut = 0; cut <= whole.length; cut += 1) {
      const splitter = new Splitter(format);
      splitter.begin(7);
      const output = pieces(whole.slice(0, cut), 11).flatMap((piece) => splitter.take(piece));
      const next = (splitter.lastSeq ?? -1) + 1;
      expect(splitter.records).toBe(next);
      splitter.begin(7);
      const rest = encoder.encode(exported(format, range(next, 11)));
      output.push(...pieces(rest, 13).flatMap((piece) => splitter.take(piece)), ...splitter.finish());
      expect(text(output)).toBe(text([whole]));
      expect([splitter.records, splitter.full]).toEqual([8, true]);
    }
  });
});

test("fields without seq name no place to continue from", () => {
  const splitter = new Splitter("ndjson");
  splitter.begin(null);
  splitter.take(encoder.encode('{"action":"a"}\n'));
  expect([splitter.records, splitter.lastSeq]).toEqual([1, null]);
});

test("cells of CSV are read with their quotes", () => {
  expect(cellsOf('a,"b,""c""\nd",,\r\n')).toEqual(["a", 'b,"c"\nd', "", ""]);
});
