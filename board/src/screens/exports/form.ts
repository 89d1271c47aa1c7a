/** Meanings of the form of an export: the address of the screen, the parameters of the API, and the same export by curl. */
import { type Query, withQuery } from "../../api/client.ts";
import { boundsOf, parseRange } from "../search/range.ts";
import { parametersOf, type Wanted } from "./download.ts";
import type { Format } from "./splitter.ts";

export interface Form {
  q: string;
  log: "events" | "access";
  range: string;
  format: Format;
  /** Paths, separated by commas or blanks. */
  fields: string;
  bom: boolean;
  gzip: boolean;
}

export const FORMATS: { value: Format; label: string }[] = [
  { value: "ndjson", label: "NDJSON" },
  { value: "json", label: "JSON" },
  { value: "csv", label: "CSV" },
];

/** Read a form from the query string that another screen links with. */
export function formOf(search: string): Form {
  const given = new URLSearchParams(search);
  const format = FORMATS.find(({ value }) => value === given.get("format"))?.value ?? "ndjson";
  return {
    q: given.get("q") ?? "",
    log: given.get("log") === "access" ? "access" : "events",
    range: parseRange(given.get("range") ?? "") ? (given.get("range") ?? "all") : "all",
    format,
    fields: given.get("fields") ?? "",
    bom: false,
    gzip: false,
  };
}

export function fieldsOf(text: string): string[] {
  return [...new Set(text.split(/[\s,]+/).filter((each) => each !== ""))];
}

/** Return the export that a form asks for. `now` is the end of relative ranges. */
export function wantedOf(form: Form, now: number): Wanted {
  const range = parseRange(form.range) ?? { kind: "all" as const };
  const query: Query = {
    q: form.q.trim() || null,
    log: form.log === "access" ? "access" : null,
    ...boundsOf(range, now),
  };
  return {
    query,
    format: form.format,
    fields: form.format === "json" ? [] : fieldsOf(form.fields),
    bom: form.format === "csv" && form.bom,
    gzip: form.gzip,
  };
}

/** Return the name that is proposed before the server answers. */
export function nameOf(tenant: string, form: Form, now: number): string {
  const day = new Date(now).toISOString().slice(0, 10);
  return `${tenant}-${form.log}-${day}.${form.format}${form.gzip ? ".gz" : ""}`;
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Return the same export as a command. The key is a variable, so that none stands in a history. */
export function curlOf(wanted: Wanted, origin: string): string {
  const address = `${origin}${withQuery("/api/v1/logs/export", parametersOf(wanted, null, false))}`;
  const file = `export.${wanted.format}`;
  const coded = wanted.gzip ? ` -H 'Accept-Encoding: gzip' -o ${file}.gz` : ` --compressed -o ${file}`;
  return `curl -f -H "Authorization: Bearer $DECKLOG_KEY"${coded} ${shellQuoted(address)}`;
}

/** Return the form in a few words. */
export function titleOf(form: Form): string {
  const format = FORMATS.find(({ value }) => value === form.format)?.label ?? form.format;
  const log = form.log === "access" ? "access log" : "events";
  return `${form.q.trim() || "All records"} · ${log} · ${format}${form.gzip ? ", gzip" : ""}`;
}
