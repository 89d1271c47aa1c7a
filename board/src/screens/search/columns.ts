/** Columns of the table of records: their titles, their widths, and the text of a cell. */
import type { LogRecord } from "../../api/records.ts";
import { fieldText } from "./names.ts";

export interface Column {
  name: string;
  title: string;
  /** Track of a CSS grid. */
  width: string;
  /** Field that `f` and `F` filter by; null where the text is no value. */
  field: string | null;
}

const COLUMNS: Column[] = [
  { name: "received_at", title: "Received", width: "11.6rem", field: null },
  { name: "occurred_at", title: "Occurred", width: "11.6rem", field: null },
  { name: "outcome", title: "Outcome", width: "5.6rem", field: "outcome" },
  { name: "severity", title: "Severity", width: "5.6rem", field: "severity" },
  { name: "actor.id", title: "Actor", width: "minmax(7rem, 1fr)", field: "actor.id" },
  { name: "action", title: "Action", width: "minmax(8rem, 1.2fr)", field: "action" },
  { name: "resource.type", title: "Resource type", width: "minmax(6rem, 0.8fr)", field: "resource.type" },
  { name: "resource.id", title: "Resource", width: "minmax(8rem, 1.4fr)", field: "resource.id" },
  { name: "source.ip", title: "From", width: "8.5rem", field: "source.ip" },
  { name: "message", title: "Message", width: "minmax(10rem, 2fr)", field: null },
  { name: "session_id", title: "Session", width: "minmax(7rem, 0.8fr)", field: "session_id" },
  { name: "correlation_id", title: "Request", width: "minmax(7rem, 0.8fr)", field: "correlation_id" },
  { name: "recorded_by.id", title: "Recorded by", width: "minmax(7rem, 0.8fr)", field: "recorded_by.id" },
  { name: "id", title: "Id", width: "minmax(7rem, 0.8fr)", field: "id" },
  { name: "seq", title: "Seq", width: "5.5rem", field: null },
];
const BY_NAME = new Map(COLUMNS.map((each) => [each.name, each]));
const LEAF = /^(metadata|before|after)\.[^,]{1,200}$/;

export const ALL_COLUMNS = COLUMNS.map((each) => each.name);
export const DEFAULT_COLUMNS = ["occurred_at", "outcome", "actor.id", "action", "resource.id", "source.ip"];

/** Return whether a column has this name: a field, or a leaf such as `metadata.reason`. */
export function isColumn(name: string): boolean {
  return BY_NAME.has(name) || LEAF.test(name);
}

export function columnOf(name: string): Column {
  return BY_NAME.get(name) ?? { name, title: name, width: "minmax(7rem, 1fr)", field: name };
}

/** Return the text of a cell. A resource without an id has its name. */
export function cellText(record: LogRecord, name: string): string {
  if (name === "resource.id") return record.resource?.id ?? record.resource?.name ?? "";
  return fieldText(record, name) ?? "";
}
