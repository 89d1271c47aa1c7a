/** Live: the tail of a log. New records come on top; nothing is missed and nothing comes twice when the connection breaks. */

import { Button, SegmentedControl } from "@mantine/core";
import { ArrowUp, Pause, Play, Search } from "lucide-react";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { Link, useSearchParams } from "wouter";
import type { Problem } from "../../api/client.ts";
import type { LogRecord } from "../../api/records.ts";
import { useIdentity } from "../../api/session.ts";
import { useKey } from "../../keys/keys.tsx";
import { OutcomeText } from "../../parts/accent.tsx";
import { numberText } from "../../parts/figures.ts";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { searchHref } from "../../parts/places.ts";
import { RecordBeside } from "../../parts/record/beside.tsx";
import { Filters } from "../../parts/record/filters.tsx";
import { type Column, Rows } from "../../parts/rows.tsx";
import fill from "../../parts/screen.module.css";
import { timeText } from "../../parts/time.tsx";
import { useZone } from "../../preferences.ts";
import { leavesOf } from "../search/data.ts";
import { fieldText } from "../search/names.ts";
import { QueryBox } from "../search/query-box.tsx";
import { withValue } from "../search/query-text.ts";
import { recentQueries, rememberQuery } from "../search/recent.ts";
import type { Connection } from "./following.ts";
import classes from "./live.module.css";
import { type Row, rateText, type Tail } from "./tail.ts";
import { useTail } from "./use-tail.ts";

type LiveRow = Row<LogRecord>;

/** Pixels from the top within which the reader counts as being at the top. */
const TOP = 24;
/** Newest records whose leaves and values the query box offers. */
const HAND = 100;

const keyOf = (row: LiveRow): string => (row.item ? `${row.item.record.epoch}.${row.item.seq}` : row.mark.id);
const markOf = (row: LiveRow) =>
  row.mark ? <span className={row.mark.kind === "gap" ? classes.gap : undefined}>{row.mark.text}</span> : null;

function TimeOfDay({ value }: { value: string }) {
  const zone = useZone();
  return (
    <time dateTime={value} title={`${value} (shown in ${zone})`}>
      {timeText(value, zone).slice(11)}
    </time>
  );
}

function SeverityText({ severity }: { severity: string }) {
  if (severity === "INFO") return null;
  return <span className={classes.severity}>{severity}</span>;
}

const nameOf = (thing: { id?: string | null; name?: string | null }) => thing.name ?? thing.id ?? "";

const COLUMNS: Column<LiveRow>[] = [
  {
    title: "Received",
    className: classes.time,
    draw: ({ item }) => item && <TimeOfDay value={item.record.received_at} />,
  },
  { title: "Outcome", draw: ({ item }) => item && <OutcomeText outcome={item.record.outcome} /> },
  {
    title: "Actor",
    className: classes.clip,
    draw: ({ item }) => item && <span title={item.record.actor.id}>{nameOf(item.record.actor)}</span>,
  },
  { title: "Action", className: `${classes.mono} ${classes.clip}`, draw: ({ item }) => item?.record.action },
  {
    title: "Resource",
    className: `${classes.clip} ${classes.wide}`,
    draw: ({ item }) =>
      item?.record.resource && (
        <span title={item.record.resource.id ?? undefined}>
          <span className={classes.quiet}>{item.record.resource.type}</span> {nameOf(item.record.resource)}
        </span>
      ),
  },
  {
    title: "Message",
    className: `${classes.clip} ${classes.wide}`,
    draw: ({ item }) =>
      item && (
        <>
          <SeverityText severity={item.record.severity} />
          {item.record.message}
        </>
      ),
  },
];

function rowClass({ item }: LiveRow): string | undefined {
  if (item?.record.severity === "ERROR" || item?.record.severity === "CRITICAL") return classes.error;
  return item?.record.severity === "WARNING" ? classes.warning : undefined;
}

/** Seconds until a moment, counted down while it is drawn. */
function Countdown({ until }: { until: number }) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, []);
  return <>{Math.max(0, Math.ceil((until - now) / 1_000))} s</>;
}

function ConnectionText({ connection, paused, onNow }: { connection: Connection; paused: boolean; onNow: () => void }) {
  if (connection.state === "ended") return <span className={`${classes.state} ${classes.ended}`}>Ended</span>;
  if (connection.state === "connecting") {
    return <span className={`${classes.state} ${classes.waiting}`}>Connecting</span>;
  }
  if (connection.state === "open") {
    return <span className={`${classes.state} ${classes.open}`}>{paused ? "Live, drawing paused" : "Live"}</span>;
  }
  return (
    <>
      <span className={`${classes.state} ${classes.waiting}`}>Connection lost</span>
      <span>
        {connection.why} Next attempt in <Countdown until={connection.retryAt} />.
      </span>
      <Button size="compact-xs" variant="light" onClick={onNow}>
        Connect now
      </Button>
    </>
  );
}

function Figures({ tail, rate }: { tail: Tail<LogRecord>; rate: number }) {
  return (
    <>
      <span>{rateText(rate)}</span>
      <span>{numberText(tail.received)} received</span>
      {tail.dropped > 0 && (
        <span>{numberText(tail.dropped)} older ones are not drawn any more: this page keeps the newest.</span>
      )}
      {tail.doubled > 0 && <span>{numberText(tail.doubled)} came twice and are drawn once.</span>}
      {tail.missing > 0 && (
        <span className={classes.gap}>{numberText(tail.missing)} did not arrive: open this in Search.</span>
      )}
    </>
  );
}

/** Facts in the address: the query, and the log. */
function useWanted() {
  const [parameters, setParameters] = useSearchParams();
  const q = parameters.get("q") ?? "";
  const log = parameters.get("log") === "access" ? "access" : "events";
  const query = useMemo(() => ({ q: q || null, log: log === "access" ? log : null }), [q, log]);
  const want = (next: { q?: string; log?: string }) =>
    setParameters((before) => {
      const after = new URLSearchParams(before);
      for (const [name, value] of Object.entries(next)) {
        if (value && value !== "events") after.set(name, value);
        else after.delete(name);
      }
      return after;
    });
  return { q, log, query, want };
}

function QueryLine({
  q,
  log,
  problem,
  records,
  onWant,
}: {
  q: string;
  log: string;
  problem: Problem | null;
  records: LogRecord[];
  onWant: (next: { q?: string; log?: string }) => void;
}) {
  const { tenant } = useIdentity();
  const box = useRef<HTMLTextAreaElement>(null);
  const leaves = useMemo(() => leavesOf(records), [records]);
  const valuesAtHand = useCallback(
    (field: string) => [...new Set(records.flatMap((each) => fieldText(each, field) ?? []))],
    [records],
  );
  useKey("/", "Edit the query", () => box.current?.focus());
  return (
    <div className={classes.line}>
      <div className={classes.query}>
        <QueryBox
          box={box}
          asked={q}
          onAsk={(text) => {
            rememberQuery(tenant ?? "", text);
            onWant({ q: text });
            box.current?.blur();
          }}
          problem={problem}
          recent={recentQueries(tenant ?? "")}
          leaves={leaves}
          valuesAtHand={valuesAtHand}
        />
      </div>
      <SegmentedControl
        size="xs"
        aria-label="Log"
        data={[
          { value: "events", label: "Events" },
          { value: "access", label: "Access" },
        ]}
        value={log}
        onChange={(value) => onWant({ log: value })}
      />
    </div>
  );
}

export default function Live() {
  const { q, log, query, want } = useWanted();
  const view = useTail(query, q === "");
  const { tail, connection } = view;
  const [selected, setSelected] = useState<string | null>(null);
  const [open, setOpen] = useState(false);
  const [byScroll, setByScroll] = useState(false);
  const list = useRef<HTMLDivElement>(null);

  function pause() {
    setByScroll(false);
    view.pause();
  }
  function goOn() {
    setByScroll(false);
    setSelected(null);
    setOpen(false);
    view.resume();
    list.current?.scrollTo({ top: 0 });
  }
  function scrolled(top: number) {
    if (top > TOP && !tail.paused) {
      setByScroll(true);
      view.pause();
    } else if (top <= TOP && byScroll && tail.paused) {
      goOn();
    }
  }
  const toggle = () => (tail.paused ? goOn() : pause());
  useKey("p", "Pause, or go on", toggle);
  useKey(" ", "Pause, or go on", toggle);

  const ended = connection.state === "ended" ? connection.problem : null;
  const refused = ended?.code === "invalid-query" ? ended : null;
  const records = useMemo(() => tail.rows.slice(0, HAND).flatMap((row) => row.item?.record ?? []), [tail.rows]);
  return (
    <div className={fill.fill}>
      <Page
        title="Live"
        about={`New records of the ${log} log, as they are stored.`}
        actions={
          <>
            <Button
              size="xs"
              variant="default"
              component={Link}
              href={log === "access" ? "/access" : searchHref({ q: q || null })}
              leftSection={<Search size={14} />}
            >
              Search this
            </Button>
            <Button
              size="xs"
              variant={tail.paused ? "filled" : "default"}
              leftSection={tail.paused ? <Play size={14} /> : <Pause size={14} />}
              onClick={toggle}
            >
              {tail.paused ? "Go on" : "Pause"}
            </Button>
          </>
        }
      >
        <QueryLine q={q} log={log} problem={refused} records={records} onWant={want} />
        <div className={classes.status}>
          <span role="status" className={classes.status}>
            <ConnectionText connection={connection} paused={tail.paused} onNow={view.reconnect} />
          </span>
          <Figures tail={tail} rate={view.rate} />
        </div>
        {ended && !refused && (
          <ProblemNotice error={ended} onRetry={ended.code === "invalid-parameter" ? view.restart : view.reconnect} />
        )}
        <div className={classes.stage}>
          {tail.paused && tail.waiting > 0 && (
            <Button size="xs" radius="xl" className={classes.fresh} rightSection={<ArrowUp size={14} />} onClick={goOn}>
              {numberText(tail.waiting)} new
            </Button>
          )}
          {tail.rows.length > 0 && (
            <Rows
              label="Records, newest first"
              rows={tail.rows}
              keyOf={keyOf}
              columns={COLUMNS}
              className={classes.columns}
              selected={selected}
              onSelect={(key) => {
                setSelected(key);
                pause();
              }}
              onOpen={() => setOpen(true)}
              markOf={markOf}
              rowClass={rowClass}
              onScroll={scrolled}
              scroller={list}
            />
          )}
          {tail.rows.length === 0 && !ended && (
            <EmptyState title={q ? "No record matches yet" : "No records yet"}>
              {connection.state === "open"
                ? "The tail is open. The next record that is stored appears here at once."
                : "The tail is being opened."}
            </EmptyState>
          )}
        </div>
      </Page>
      {open && selected !== null && (
        <Filters value={(field, value, negated) => want({ q: withValue(q, field, value, negated) })}>
          <RecordBeside
            rows={tail.rows}
            keyOf={keyOf}
            recordOf={(row) => row.item?.record ?? null}
            selected={selected}
            onSelect={setSelected}
            onClose={() => setOpen(false)}
          />
        </Filters>
      )}
    </div>
  );
}
