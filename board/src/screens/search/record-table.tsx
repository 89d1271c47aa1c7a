/** The dense table of records. It draws the rows in sight alone; a row is plain text without state of its own. */
import { useVirtualizer } from "@tanstack/react-virtual";
import { ArrowDown, ArrowUp } from "lucide-react";
import {
  type CSSProperties,
  type KeyboardEvent,
  type MouseEvent,
  memo,
  type ReactNode,
  type RefObject,
  useEffect,
  useMemo,
  useRef,
} from "react";
import type { LogRecord } from "../../api/records.ts";
import { Marked, type Marks, NO_MARKS } from "../../parts/record/marks.tsx";
import { timeText } from "../../parts/time.tsx";
import { type Column, cellText, columnOf } from "./columns.ts";
import classes from "./record-table.module.css";
import type { Sort } from "./view.ts";

/** Height of a row in pixels; `--dl-row` is the same. */
const ROW = 30;
const OVERSCAN = 16;
/** Rows before the end of what is loaded at which the next page is asked for. */
const AHEAD = 60;

export interface Cursor {
  /** Index of the selected record; -1 without one. */
  row: number;
  /** Index of the selected column. */
  column: number;
}

interface Props {
  grid: RefObject<HTMLDivElement | null>;
  records: LogRecord[];
  /** Marks by `seq`, of records that have some. */
  marked: Map<number, Marks>;
  columns: string[];
  sort: Sort;
  zone: string;
  cursor: Cursor;
  onCursor: (cursor: Cursor) => void;
  onOpen: (index: number) => void;
  onSort: (sort: Sort) => void;
  /** Number of all matching records, if it is known. */
  total: number | null;
  hasMore: boolean;
  onMore: () => void;
  stale: boolean;
}

export function RecordTable(props: Props) {
  const { grid, records, zone, cursor, hasMore, onMore } = props;
  const columns = useMemo(() => props.columns.map(columnOf), [props.columns]);
  const virtual = useVirtualizer({
    count: records.length,
    getScrollElement: () => grid.current,
    estimateSize: () => ROW,
    overscan: OVERSCAN,
    scrollPaddingStart: ROW,
    useFlushSync: false,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;

  useEffect(() => {
    if (hasMore && last >= records.length - AHEAD) onMore();
  }, [hasMore, last, records.length, onMore]);
  const scrollTo = useRef(virtual.scrollToIndex);
  scrollTo.current = virtual.scrollToIndex;
  useEffect(() => {
    if (cursor.row >= 0) scrollTo.current(cursor.row, { align: "auto" });
  }, [cursor.row]);

  const selectedIsDrawn = items.some((each) => each.index === cursor.row);
  const style = {
    "--columns": columns.map((each) => each.width).join(" "),
    "--least": leastWidth(columns),
  } as CSSProperties;
  return (
    <div
      ref={grid}
      role="grid"
      aria-label="Records"
      aria-rowcount={props.total === null ? -1 : props.total + 1}
      aria-colcount={columns.length}
      aria-activedescendant={selectedIsDrawn ? `row-${cursor.row}` : undefined}
      aria-busy={props.stale}
      tabIndex={0}
      className={classes.frame}
      style={style}
      onKeyDown={(event) => moveCursor(event, props)}
      onClick={(event) => openRow(event, props)}
    >
      <Head columns={columns} sort={props.sort} onSort={props.onSort} />
      <div role="rowgroup" className={classes.rows} style={{ height: virtual.getTotalSize() }}>
        {items.map((item) => {
          const record = records[item.index];
          if (!record) return null;
          return (
            <Row
              key={record.seq}
              record={record}
              index={item.index}
              columns={columns}
              zone={zone}
              marks={props.marked.get(record.seq) ?? NO_MARKS}
              chosen={item.index === cursor.row ? cursor.column : -1}
            />
          );
        })}
      </div>
      {hasMore && <div className={classes.end}>Loading more…</div>}
    </div>
  );
}

/** Columns keep a width at which they can be read; a narrow screen scrolls sideways. */
function leastWidth(columns: Column[]): string {
  const rems = columns.map((each) => Number.parseFloat(/[\d.]+(?=rem)/.exec(each.width)?.[0] ?? "7"));
  return `${rems.reduce((sum, each) => sum + each, 0)}rem`;
}

const STEPS: Record<string, [number, number]> = {
  ArrowDown: [1, 0],
  ArrowUp: [-1, 0],
  ArrowRight: [0, 1],
  ArrowLeft: [0, -1],
  PageDown: [15, 0],
  PageUp: [-15, 0],
  Home: [Number.NEGATIVE_INFINITY, 0],
  End: [Number.POSITIVE_INFINITY, 0],
};

function within(value: number, end: number): number {
  return Math.max(0, Math.min(end - 1, value));
}

function moveCursor(event: KeyboardEvent, { records, columns, cursor, onCursor, onOpen }: Props) {
  const step = STEPS[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey || event.target !== event.currentTarget) return;
  if (step) {
    event.preventDefault();
    onCursor({
      row: within(cursor.row + step[0], records.length),
      column: within(cursor.column + step[1], columns.length),
    });
  } else if (event.key === "Enter" && cursor.row >= 0) {
    event.preventDefault();
    onOpen(cursor.row);
  }
}

function openRow(event: MouseEvent, { onCursor, onOpen }: Props) {
  const cell = (event.target as HTMLElement).closest<HTMLElement>("[data-column]");
  const row = cell?.closest<HTMLElement>("[data-index]");
  if (!cell || !row || getSelection()?.toString()) return;
  onCursor({ row: Number(row.dataset.index), column: Number(cell.dataset.column) });
  onOpen(Number(row.dataset.index));
}

function Head({ columns, sort, onSort }: { columns: Column[]; sort: Sort; onSort: (sort: Sort) => void }) {
  return (
    <div role="row" aria-rowindex={1} className={classes.head}>
      {columns.map((each) => {
        const sortable = each.name === "received_at" || each.name === "occurred_at";
        const sorted = sort.replace("-", "") === each.name;
        const descends = sort.startsWith("-");
        return (
          <div
            key={each.name}
            role="columnheader"
            aria-sort={sorted ? (descends ? "descending" : "ascending") : undefined}
            className={sortable ? undefined : classes.title}
          >
            {sortable ? (
              <button
                type="button"
                className={`${classes.sort} ${sorted ? classes.sorted : ""}`}
                onClick={() => onSort((sorted && descends ? each.name : `-${each.name}`) as Sort)}
              >
                {each.title}
                {sorted && (descends ? <ArrowDown size={12} aria-hidden /> : <ArrowUp size={12} aria-hidden />)}
              </button>
            ) : (
              each.title
            )}
          </div>
        );
      })}
    </div>
  );
}

interface RowProps {
  record: LogRecord;
  index: number;
  columns: Column[];
  zone: string;
  marks: Marks;
  chosen: number;
}

const MONO = new Set([
  "received_at",
  "occurred_at",
  "source.ip",
  "seq",
  "correlation_id",
  "session_id",
  "id",
  "recorded_by.id",
]);

const Row = memo(function Row({ record, index, columns, zone, marks, chosen }: RowProps) {
  return (
    <div
      role="row"
      id={`row-${index}`}
      aria-rowindex={index + 2}
      aria-selected={chosen >= 0}
      data-index={index}
      className={chosen >= 0 ? `${classes.row} ${classes.selected}` : classes.row}
      style={{ transform: `translateY(${index * ROW}px)` }}
    >
      {columns.map((each, column) => (
        <div
          key={each.name}
          role="gridcell"
          data-column={column}
          className={cellClass(record, each.name, column === chosen)}
        >
          {cellContent(record, each.name, zone, marks)}
        </div>
      ))}
    </div>
  );
});

function cellContent(record: LogRecord, name: string, zone: string, marks: Marks): ReactNode {
  const text = cellText(record, name);
  if (name.endsWith("_at")) return timeText(text, zone);
  const spans = marks.get(name);
  return spans && spans.length > 0 ? <Marked text={text} spans={spans} /> : text;
}

function cellClass(record: LogRecord, name: string, chosen: boolean): string {
  const outcome = name === "outcome" ? (classes[record.outcome] ?? "") : "";
  const grave = name === "severity" ? (SEVERE[record.severity] ?? classes.quiet ?? "") : "";
  const mono = MONO.has(name) ? (classes.mono ?? "") : "";
  return `${classes.cell} ${mono} ${outcome} ${grave} ${chosen ? classes.chosen : ""}`;
}

const SEVERE: Record<string, string | undefined> = {
  ERROR: classes.failure,
  CRITICAL: classes.failure,
  WARNING: classes.denied,
};
