/** The exports of a tenant as its access log has them: an opening and, once it ended, a closing record for each. Pure. */
import type { LogRecord } from "../../api/records.ts";

export interface Past {
  key: string;
  /** The record that says most: the closing one where there is one. */
  record: LogRecord;
  /** True if no record tells its end: it runs, or its process ended without a word. */
  open: boolean;
}

/** Join the records of each export, newest first. Records are those of one page, newest first. */
export function historyOf(records: readonly LogRecord[]): Past[] {
  const ended = new Set<string>();
  const past: Past[] = [];
  for (const record of records) {
    const request = record.correlation_id ?? `${record.epoch}.${record.seq}`;
    const key = `${record.epoch}.${record.seq}`;
    if (record.action === "log.export.close") {
      ended.add(request);
      past.push({ key, record, open: false });
    } else if (record.action === "log.export.open" && !ended.has(request)) {
      past.push({ key, record, open: record.outcome === "success" });
    }
  }
  return past;
}
