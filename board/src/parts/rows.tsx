/** A virtual list of rows under the keys j, k and Enter: only the rows in view are in the document. */
import { useVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, type RefObject, useCallback, useEffect, useId, useRef } from "react";
import { useKey } from "../keys/keys.tsx";
import classes from "./rows.module.css";

export interface Column<Row> {
  title: string;
  draw: (row: Row) => ReactNode;
  className?: string | undefined;
}

export interface RowsProps<Row> {
  /** Name of the list for a screen reader. */
  label: string;
  rows: readonly Row[];
  keyOf: (row: Row) => string;
  columns: readonly Column<Row>[];
  /** A class that sets `--dl-columns`, the grid of head and rows, for each width of the page. */
  className: string | undefined;
  selected: string | null;
  onSelect: (key: string, row: Row) => void;
  onOpen: (row: Row) => void;
  /** Text of a row that is no item, such as a notice between two items; null for an item. */
  markOf?: (row: Row) => ReactNode | null;
  rowClass?: (row: Row) => string | undefined;
  /** Called when the end of the list comes into view. */
  onEnd?: () => void;
  onScroll?: (top: number) => void;
  scroller?: RefObject<HTMLDivElement | null>;
  /** Descriptions of j, k and Enter in the help of the keys. */
  noun?: string;
  rowHeight?: number;
}

const OVERSCAN = 12;

/** Return the key of the item that lies `by` items from the selected one, passing marks; the first without a selection. */
export function neighbour<Row>(
  rows: readonly Row[],
  keyOf: (row: Row) => string,
  selected: string | null,
  by: 1 | -1,
  isMark: (row: Row) => boolean = () => false,
): Row | null {
  const at = selected === null ? -1 : rows.findIndex((row) => keyOf(row) === selected);
  let next = at < 0 ? 0 : at + by;
  while (next >= 0 && next < rows.length) {
    const row = rows[next] as Row;
    if (!isMark(row)) return row;
    next += at < 0 ? 1 : by;
  }
  return null;
}

export function Rows<Row>(props: RowsProps<Row>) {
  const { rows, keyOf, columns, selected, onSelect, onOpen, markOf, onEnd, noun = "record" } = props;
  const own = useRef<HTMLDivElement>(null);
  const scroller = props.scroller ?? own;
  const id = useId();
  const isMark = useCallback((row: Row) => markOf !== undefined && markOf(row) !== null, [markOf]);

  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => props.rowHeight ?? 31,
    overscan: OVERSCAN,
    getItemKey: (index) => keyOf(rows[index] as Row),
  });

  function move(by: 1 | -1) {
    const row = neighbour(rows, keyOf, selected, by, isMark);
    if (row === null) return;
    onSelect(keyOf(row), row);
    virtual.scrollToIndex(rows.indexOf(row), { align: "auto" });
  }

  const chosen = selected === null ? undefined : rows.find((row) => keyOf(row) === selected);
  useKey("j", `Next ${noun}`, () => move(1));
  useKey("k", `Previous ${noun}`, () => move(-1));
  useKey("ArrowDown", `Next ${noun}`, () => move(1));
  useKey("ArrowUp", `Previous ${noun}`, () => move(-1));
  useKey("Enter", `Open the ${noun}`, () => chosen && onOpen(chosen), { when: chosen !== undefined });

  const items = virtual.getVirtualItems();
  const drawn = items.some((item) => keyOf(rows[item.index] as Row) === selected);
  const last = items.at(-1)?.index ?? -1;
  useEffect(() => {
    if (last >= 0 && last >= rows.length - 1) onEnd?.();
  }, [last, rows.length, onEnd]);

  return (
    <div
      ref={scroller}
      className={`${classes.list} ${props.className ?? ""}`}
      role="grid"
      aria-label={props.label}
      aria-rowcount={rows.length + 1}
      aria-activedescendant={drawn ? `${id}-${selected}` : undefined}
      tabIndex={0}
      onScroll={(event) => props.onScroll?.(event.currentTarget.scrollTop)}
    >
      <div role="row" aria-rowindex={1} className={classes.head}>
        {columns.map((column) => (
          <div key={column.title} role="columnheader" className={column.className}>
            {column.title}
          </div>
        ))}
      </div>
      <div role="rowgroup" className={classes.space} style={{ height: virtual.getTotalSize() }}>
        {items.map((item) => {
          const row = rows[item.index] as Row;
          const key = keyOf(row);
          const mark = markOf?.(row) ?? null;
          const place = { transform: `translateY(${item.start}px)` };
          const shared = { "data-index": item.index, ref: virtual.measureElement, style: place };
          if (mark !== null) {
            return (
              <div key={key} role="row" aria-rowindex={item.index + 2} className={classes.mark} {...shared}>
                <div role="gridcell" aria-colspan={columns.length}>
                  {mark}
                </div>
              </div>
            );
          }
          return (
            <div
              key={key}
              id={`${id}-${key}`}
              role="row"
              aria-rowindex={item.index + 2}
              aria-selected={key === selected}
              className={`${classes.row} ${props.rowClass?.(row) ?? ""}`}
              onClick={() => {
                onSelect(key, row);
                onOpen(row);
              }}
              {...shared}
            >
              {columns.map((column) => (
                <div key={column.title} role="gridcell" className={`${classes.cell} ${column.className ?? ""}`}>
                  {column.draw(row)}
                </div>
              ))}
            </div>
          );
        })}
      </div>
    </div>
  );
}
