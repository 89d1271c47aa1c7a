/** The record that a list has open, in a drawer beside it, under the keys [, ] and Escape. */
import { lazy, Suspense, useEffect } from "react";
import type { LogRecord } from "../../api/records.ts";
import { useKey } from "../../keys/keys.tsx";
import { neighbour } from "../rows.tsx";

const RecordDrawer = lazy(async () => ({ default: (await import("./drawer.tsx")).RecordDrawer }));

interface Props<Row> {
  rows: readonly Row[];
  keyOf: (row: Row) => string;
  /** The record of a row; null for a row that is none. */
  recordOf: (row: Row) => LogRecord | null;
  selected: string;
  onSelect: (key: string) => void;
  onClose: () => void;
}

export function RecordBeside<Row>({ rows, keyOf, recordOf, selected, onSelect, onClose }: Props<Row>) {
  const row = rows.find((each) => keyOf(each) === selected);
  const record = row === undefined ? null : recordOf(row);
  const step = (by: 1 | -1) => {
    const next = neighbour(rows, keyOf, selected, by, (each) => recordOf(each) === null);
    return next === null ? null : () => onSelect(keyOf(next));
  };
  const [previous, following] = [step(-1), step(1)];
  useKey("[", "Previous record", () => previous?.());
  useKey("]", "Next record", () => following?.());
  useKey("Escape", "Close the record", onClose);
  // The list has the focus again when the record is closed.
  useEffect(() => () => document.querySelector<HTMLElement>('main [role="grid"]')?.focus({ preventScroll: true }), []);
  if (record === null) return null;
  return (
    <Suspense fallback={null}>
      <RecordDrawer
        seq={record.seq}
        log={record.log}
        listed={record}
        onPrevious={previous}
        onNext={following}
        onClose={onClose}
      />
    </Suspense>
  );
}
