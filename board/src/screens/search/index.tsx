/** Search: ask, narrow, read, and open a record. */
import { ActionIcon } from "@mantine/core";
import { RefreshCw } from "lucide-react";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useLocation } from "wouter";
import { Problem, type Query } from "../../api/client.ts";
import { useIdentity } from "../../api/session.ts";
import { useKey } from "../../keys/keys.tsx";
import { ProblemNotice } from "../../parts/notices.tsx";
import { exportsHref, liveHref } from "../../parts/places.ts";
import { RecordDrawer } from "../../parts/record/drawer.tsx";
import { Filters, focusedValue } from "../../parts/record/filters.tsx";
import { useZone } from "../../preferences.ts";
import { SCREENS } from "../screens.ts";
import { cellText, columnOf } from "./columns.ts";
import { leavesOf, type Question, useRecords } from "./data.ts";
import { fieldText } from "./names.ts";
import { QueryBox } from "./query-box.tsx";
import { withValue } from "./query-text.ts";
import { boundsOf, writtenRange } from "./range.ts";
import { RangePicker } from "./range-picker.tsx";
import { recentQueries, rememberQuery } from "./recent.ts";
import { type Cursor, RecordTable } from "./record-table.tsx";
import classes from "./search.module.css";
import { useView } from "./use-view.ts";

const HAND_MAX = 400;

function isPlace(path: string): boolean {
  return SCREENS.some((each) => each.path === path);
}

export default function SearchScreen() {
  const identity = useIdentity();
  const tenant = identity.tenant ?? "platform";
  const zone = useZone();
  const [view, change] = useView();
  const [, navigate] = useLocation();
  const [asked, setAsked] = useState(Date.now);
  const [recent, setRecent] = useState(() => recentQueries(tenant));
  const [cursor, setCursor] = useState<Cursor>({ row: -1, column: 0 });
  const box = useRef<HTMLTextAreaElement>(null);
  const grid = useRef<HTMLDivElement>(null);

  const range = writtenRange(view.range);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the range is compared by its text
  const question = useMemo<Question>(() => ({ q: view.q, ...boundsOf(view.range, asked) }), [view.q, range, asked]);
  const found = useRecords(question, view.sort);
  const { records } = found;
  const problem = found.error instanceof Problem ? found.error : null;
  const refused = problem?.code === "invalid-query" ? problem : null;

  useEffect(() => {
    document.title = view.q ? `${view.q} · Search · Decklog` : "Search · Decklog";
  }, [view.q]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another question has other rows
  useEffect(() => {
    setCursor((now) => ({ ...now, row: -1 }));
    grid.current?.scrollTo({ top: 0 });
  }, [question, view.sort]);

  const ask = (text: string) => {
    setRecent(rememberQuery(tenant, text));
    setAsked(Date.now());
    if (text !== view.q) change({ q: text });
    grid.current?.focus({ preventScroll: true });
  };
  const filterBy = useCallback(
    (field: string, value: string, negated: boolean) => change({ q: withValue(view.q, field, value, negated) }),
    [change, view.q],
  );
  const leaves = useMemo(() => leavesOf(records), [records]);
  const valuesAtHand = useCallback(
    (field: string) => [...new Set(records.slice(0, HAND_MAX).flatMap((each) => fieldText(each, field) ?? []))],
    [records],
  );

  const openAt = useCallback(
    (index: number) => {
      const record = records[index];
      if (record) change({ seq: record.seq }, view.seq !== null);
    },
    [records, change, view.seq],
  );
  const close = () => {
    change({ seq: null }, true);
    grid.current?.focus({ preventScroll: true });
  };
  const moveTo = (row: number) => {
    if (row < 0 || row >= records.length) return;
    setCursor((now) => ({ ...now, row }));
    if (view.seq !== null) openAt(row);
  };
  const opened =
    view.seq === null
      ? -1
      : records[cursor.row]?.seq === view.seq
        ? cursor.row
        : records.findIndex((each) => each.seq === view.seq);

  const target = () => {
    const focused = focusedValue();
    if (focused) return focused;
    const record = records[cursor.row];
    const field = columnOf(view.columns[cursor.column] ?? "").field;
    const value = record && field ? cellText(record, field) : "";
    return field && value ? { field, value } : null;
  };
  const filterTarget = (negated: boolean) => {
    const at = target();
    if (at) filterBy(at.field, at.value, negated);
  };
  const here: Query = { q: view.q || null, range };

  useKey("/", "Write a query", () => box.current?.focus());
  useKey("j", "Next record", () => moveTo(cursor.row + 1));
  useKey("k", "Previous record", () => moveTo(cursor.row < 0 ? -1 : cursor.row - 1));
  useKey("]", "Next record, in the drawer", () => moveTo(opened + 1), { when: opened >= 0 });
  useKey("[", "Previous record, in the drawer", () => moveTo(opened - 1), { when: opened >= 0 });
  useKey("Enter", "Open the record", () => openAt(cursor.row), { when: cursor.row >= 0 });
  useKey("f", "Only records with the value in focus", () => filterTarget(false));
  useKey("F", "Without records with the value in focus", () => filterTarget(true));
  useKey("r", "Ask again", () => setAsked(Date.now()));
  useKey("l", "Watch this query live", () => navigate(liveHref(here)), { when: isPlace("/live") });
  useKey("e", "Export this query", () => navigate(exportsHref(here)), { when: isPlace("/exports") });
  useKey("Escape", "Close the record", close, { when: view.seq !== null });

  return (
    <Filters value={filterBy}>
      <div className={classes.screen}>
        <h1 className={classes.title}>Search</h1>
        <div className={classes.top}>
          <QueryBox
            box={box}
            asked={view.q}
            onAsk={ask}
            problem={refused}
            recent={recent}
            leaves={leaves}
            valuesAtHand={valuesAtHand}
          />
          <RangePicker range={view.range} onRange={(next) => change({ range: next })} />
          <ActionIcon
            variant="default"
            size={36}
            aria-label="Ask again"
            title="Ask again (r)"
            loading={found.isFetching && !found.isFetchingNextPage}
            onClick={() => setAsked(Date.now())}
          >
            <RefreshCw size={16} />
          </ActionIcon>
        </div>
        <div className={classes.main}>
          {problem && !refused && <ProblemNotice error={problem} onRetry={() => void found.refetch()} />}
          <RecordTable
            grid={grid}
            records={records}
            columns={view.columns}
            sort={view.sort}
            zone={zone}
            cursor={cursor}
            onCursor={setCursor}
            onOpen={openAt}
            onSort={(sort) => change({ sort })}
            total={null}
            hasMore={found.hasNextPage}
            onMore={() => !found.isFetching && void found.fetchNextPage()}
            stale={found.isPlaceholderData}
          />
        </div>
      </div>
      {view.seq !== null && (
        <RecordDrawer
          seq={view.seq}
          listed={records[opened]}
          onPrevious={opened > 0 ? () => moveTo(opened - 1) : null}
          onNext={opened >= 0 && opened < records.length - 1 ? () => moveTo(opened + 1) : null}
          onClose={close}
        />
      )}
    </Filters>
  );
}
