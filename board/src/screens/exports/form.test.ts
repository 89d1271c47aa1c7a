// @vitest-environment node
import { describe, expect, test } from "vitest";
import type { LogRecord } from "../../api/records.ts";
import { curlOf, fieldsOf, formOf, nameOf, wantedOf } from "./form.ts";
import { historyOf } from "./history.ts";

const NOW = Date.parse("2026-01-31T12:00:00Z");

describe("the form", () => {
  test("takes the query and the range of the screen that links to it", () => {
    const form = formOf("?q=actor.id%3Aalice&range=24h&log=access&format=csv&fields=seq,action");
    expect(form).toMatchObject({
      q: "actor.id:alice",
      range: "24h",
      log: "access",
      format: "csv",
      fields: "seq,action",
    });
    expect(formOf("?format=xml&range=soon&log=x")).toMatchObject({ format: "ndjson", range: "all", log: "events" });
  });

  test("asks the API for what it says, and never for what a format does not have", () => {
    const form = { ...formOf("?q=a&range=1h"), fields: "seq, action  actor.id,seq", bom: true };
    expect(wantedOf({ ...form, format: "csv" }, NOW)).toEqual({
      query: { q: "a", log: null, from: "2026-01-31T11:00:00.000Z", to: null },
      format: "csv",
      fields: ["seq", "action", "actor.id"],
      bom: true,
      gzip: false,
    });
    expect(wantedOf({ ...form, format: "json" }, NOW)).toMatchObject({ fields: [], bom: false });
    expect(fieldsOf(" ,, ")).toEqual([]);
  });

  test("has the same export as a command, without a key and safe against quotes", () => {
    const wanted = wantedOf({ ...formOf("?q=it's"), gzip: true }, NOW);
    const command = curlOf(wanted, "https://d.example");
    expect(command).toContain("Bearer $DECKLOG_KEY");
    expect(command).toContain("'https://d.example/api/v1/logs/export?q=it%27s&format=ndjson'");
    expect(command).toContain("-o export.ndjson.gz");
  });

  test("names a file by tenant, log, day and format", () => {
    expect(nameOf("acme", { ...formOf(""), gzip: true }, NOW)).toBe("acme-events-2026-01-31.ndjson.gz");
  });
});

test("the history has each export once, by its end where it has one", () => {
  const record = (seq: number, action: string, request: string, outcome = "success") =>
    ({ epoch: 0, seq, action: `log.export.${action}`, correlation_id: request, outcome }) as LogRecord;
  const past = historyOf([
    record(9, "open", "r4", "failure"),
    record(8, "close", "r2", "failure"),
    record(7, "open", "r3"),
    record(6, "open", "r2"),
    record(5, "close", "r1"),
    record(4, "open", "r1"),
  ]);
  expect(past.map((each) => [each.record.seq, each.open])).toEqual([
    [9, false],
    [8, false],
    [7, true],
    [5, false],
  ]);
});
