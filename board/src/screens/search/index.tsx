/** Search: ask, narrow, read, and open a record. */
import { ActionIcon, Drawer } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import { RefreshCw } from "lucide-react";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useLocation } from "wouter";
import { Problem, type Query } from "../../api/client.ts";
import { useIdentity } from "../../api/session.ts";
import { useKey } from "../../keys/keys.tsx";
import { exportsHref, liveHref } from "../../parts/places.ts";
import { RecordDrawer } from "../../parts/record/drawer.tsx";
import { Filters, focusedValue } from "../../parts/record/filters.tsx";
import { NO_MARKS } from "../../parts/record/marks.tsx";
import { useZone } from "../../preferences.ts";
import { SaveButton } from "../saved/save-button.tsx";
import { SCREENS } from "../screens.ts";
import { Chips } from "./chips.tsx";
import { cellText, columnOf } from "./columns.ts";
import { leavesOf, type Question, useNews, useRecords, useSummary } from "./data.ts";
import { Facets } from "./facets.tsx";
import { fieldText } from "./names.ts";
import { QueryBox } from "./query-box.tsx";
import { clausesOf, withoutClause, withValue } from "./query-text.ts";
import { boundsOf, type Range, writtenRange } from "./range.ts";
import { RangePicker } from "./range-picker.tsx";
import { recentQueries, rememberQuery } from "./recent.ts";
import { type Cursor, RecordTable } from "./record-table.tsx";
import classes from "./search.module.css";
import { EmptyLog, NoHits, Refused } from "./states.tsx";
import { StatusBar } from "./status-bar.tsx";
import { TimelinePanel } from "./timeline-panel.tsx";
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
  const [facetsOpen, setFacetsOpen] = useState(false);
  const [zoomed, setZoomed] = useState<Range[]>([]);
  const narrow = useMediaQuery("(max-width: 75em)", false, { getInitialValueInEffect: false });
  const box = useRef<HTMLTextAreaElement>(null);
  const grid = useRef<HTMLDivElement>(null);

  const range = writtenRange(view.range);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the range is compared by its text
  const question = useMemo<Question>(() => ({ q: view.q, ...boundsOf(view.range, asked) }), [view.q, range, asked]);
  const clauses = useMemo(() => clausesOf(view.q), [view.q]);
  const found = useRecords(question, view.sort, asked);
  const { records, coverage } = found;
  const settled = found.isSuccess && !found.isPlaceholderData;
  const summary = useSummary(question, zone, asked, settled);
  const problem = found.error instanceof Problem ? found.error : null;
  const refused = problem?.code === "invalid-query" ? problem : null;
  const newestFirst = view.sort.startsWith("-") && question.to === null;
  const news = useNews(question, coverage?.head, settled && newestFirst);
  const emptyLog = settled && coverage?.head === 0;

  useEffect(() => {
    document.title = view.q ? `${view.q} · Search · Decklog` : "Search · Decklog";
  }, [view.q]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another question has other rows
  useEffect(() => {
    setCursor((now) => ({ ...now, row: -1 }));
    grid.current?.scrollTo({ top: 0 });
  }, [question, view.sort]);
  useEffect(() => {
    if (emptyLog && news > 0) setAsked(Date.now());
  }, [emptyLog, news]);

  const again = () => setAsked(Date.now());
  const ask = (text: string) => {
    setRecent(rememberQuery(tenant, text));
    again();
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

  const zoom = (from: number, to: number) => {
    setZoomed((before) => [...before, view.range]);
    change({ range: { kind: "between", from: new Date(from).toISOString(), to: new Date(to).toISOString() } });
  };
  const back = () => {
    const before = zoomed.at(-1);
    if (!before) return;
    setZoomed(zoomed.slice(0, -1));
    change({ range: before });
  };

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
    else grid.current?.focus({ preventScroll: true });
  };
  const opened = useMemo(() => {
    if (view.seq === null) return -1;
    return records[cursor.row]?.seq === view.seq ? cursor.row : records.findIndex((each) => each.seq === view.seq);
  }, [view.seq, records, cursor.row]);

  const filterTarget = (negated: boolean) => {
    const record = records[cursor.row];
    const field = columnOf(view.columns[cursor.column] ?? "").field;
    const at = focusedValue() ?? (record && field ? { field, value: cellText(record, field) } : null);
    if (at && at.value !== "") filterBy(at.field, at.value, negated);
  };
  const here: Query = { q: view.q || null, range };
  const [hasLive, hasExports] = [isPlace("/live"), isPlace("/exports")];

  useKey("/", "Write a query", () => box.current?.focus());
  useKey("j", "Next record", () => moveTo(cursor.row + 1));
  useKey("k", "Previous record", () => moveTo(cursor.row - 1));
  useKey("]", "Next record, in the drawer", () => moveTo(opened + 1), { when: opened >= 0 });
  useKey("[", "Previous record, in the drawer", () => moveTo(opened - 1), { when: opened >= 0 });
  useKey("Enter", "Open the record", () => openAt(cursor.row), { when: cursor.row >= 0 });
  useKey("f", "Only records with the value in focus", () => filterTarget(false));
  useKey("F", "Without records with the value in focus", () => filterTarget(true));
  useKey("z", "Back to the range before", back, { when: zoomed.length > 0 });
  useKey("r", "Ask again", again);
  useKey("l", "Watch this query live", () => navigate(liveHref(here)), { when: hasLive });
  useKey("e", "Export this query", () => navigate(exportsHref(here)), { when: hasExports });
  useKey("Escape", "Close the record", close, { when: view.seq !== null });

  const facets = <Facets summary={summary.data} clauses={clauses} />;
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
            onClick={again}
          >
            <RefreshCw size={16} />
          </ActionIcon>
          <SaveButton view={view} />
        </div>
        <Chips query={view.q} clauses={clauses} onAsk={ask} />
        {emptyLog ? (
          <EmptyLog tenant={tenant} />
        ) : (
          <div className={classes.body}>
            {!narrow && facets}
            <div className={classes.main}>
              {summary.data && !problem && (
                <TimelinePanel
                  summary={summary.data}
                  question={question}
                  asked={asked}
                  zone={zone}
                  onZoom={zoom}
                  onBack={zoomed.length > 0 ? back : null}
                />
              )}
              <StatusBar
                total={
                  summary.isError ? undefined : summary.isPlaceholderData ? null : (summary.data?.counts.total ?? null)
                }
                refused={problem !== null}
                onCount={() => void summary.refetch()}
                news={news}
                onNews={again}
                coverage={coverage}
                here={here}
                hasLive={hasLive}
                hasExports={hasExports}
                columns={view.columns}
                leaves={leaves}
                onColumns={(columns) => change({ columns })}
                onFacets={narrow ? () => setFacetsOpen(true) : null}
              />
              {problem && !refused && (
                <Refused
                  problem={problem}
                  range={view.range}
                  now={asked}
                  onRetry={() => void found.refetch()}
                  onRange={(next) => change({ range: next })}
                />
              )}
              {settled && records.length === 0 ? (
                <NoHits
                  question={question}
                  range={view.range}
                  onWithout={(clause) => ask(withoutClause(view.q, clause))}
                  onAllTime={() => change({ range: { kind: "all" } })}
                />
              ) : (
                !problem && (
                  <RecordTable
                    grid={grid}
                    records={records}
                    marked={found.marked}
                    columns={view.columns}
                    sort={view.sort}
                    zone={zone}
                    cursor={cursor}
                    onCursor={setCursor}
                    onOpen={openAt}
                    onSort={(sort) => change({ sort })}
                    total={summary.isSuccess && !summary.isPlaceholderData ? summary.data.counts.total : null}
                    hasMore={found.hasNextPage}
                    onMore={() => !found.isFetching && void found.fetchNextPage()}
                    stale={found.isPlaceholderData}
                  />
                )
              )}
            </div>
          </div>
        )}
      </div>
      {narrow && (
        <Drawer opened={facetsOpen} onClose={() => setFacetsOpen(false)} title="Filters" size="xs">
          {facets}
        </Drawer>
      )}
      {view.seq !== null && (
        <RecordDrawer
          seq={view.seq}
          listed={records[opened]}
          marks={found.marked.get(view.seq) ?? NO_MARKS}
          onPrevious={opened > 0 ? () => moveTo(opened - 1) : null}
          onNext={opened >= 0 && opened < records.length - 1 ? () => moveTo(opened + 1) : null}
          onClose={close}
        />
      )}
    </Filters>
  );
}
