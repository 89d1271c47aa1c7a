/** Access: who read what, as sentences. */
import { Anchor, Button, Group, Select, Switch, TextInput } from "@mantine/core";
import { RefreshCw } from "lucide-react";
import { type FormEvent, type MouseEvent, useEffect, useMemo, useRef, useState } from "react";
import { Link } from "wouter";
import type { LogRecord } from "../../api/records.ts";
import { useKey } from "../../keys/keys.tsx";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { searchHref } from "../../parts/places.ts";
import { RecordBeside } from "../../parts/record/beside.tsx";
import { type Column, Rows } from "../../parts/rows.tsx";
import fill from "../../parts/screen.module.css";
import { TimeText } from "../../parts/time.tsx";
import { parseRange, writtenRange } from "../search/range.ts";
import { RangePicker } from "../search/range-picker.tsx";
import classes from "./access.module.css";
import { Sentence } from "./sentence.tsx";
import { askedOf, concernOf, GROUPS, sentenceOf, whoOf } from "./sentences.ts";
import { useAccess, type Wanted } from "./use-access.ts";

const CONCERNS = { refused: "Refused", damaged: "Damaged", failed: "Failed" } as const;

/** Address of Search with the query that a record names; null for records without one. */
function againHref(record: LogRecord): string | null {
  const asked = askedOf(record);
  if (asked === null || asked.log !== "events") return null;
  const range = asked.since || asked.until ? `${asked.since ?? ""}..${asked.until ?? ""}` : "all";
  return searchHref({ q: asked.q, range });
}

const COLUMNS: Column<LogRecord>[] = [
  { title: "When", className: classes.time, draw: (record) => <TimeText value={record.received_at} /> },
  { title: "Who", className: classes.who, draw: (record) => <Sentence parts={whoOf(record)} /> },
  {
    title: "What",
    className: classes.sentence,
    draw: (record) => {
      const concern = concernOf(record);
      return (
        <>
          {concern && <span className={classes.concern}>{CONCERNS[concern]}</span>}
          <Sentence parts={sentenceOf(record)} />
        </>
      );
    },
  },
  {
    title: "From",
    className: `${classes.from} ${classes.address}`,
    draw: (record) => <span title={record.source?.user_agent ?? undefined}>{record.source?.ip ?? ""}</span>,
  },
  {
    title: "Again",
    className: classes.again,
    draw: (record) => {
      const href = againHref(record);
      return (
        href && (
          <Anchor component={Link} href={href} size="xs" onClick={(event: MouseEvent) => event.stopPropagation()}>
            Search
          </Anchor>
        )
      );
    },
  },
];

const keyOf = (record: LogRecord) => `${record.epoch}.${record.seq}`;
const rowClass = (record: LogRecord) => {
  const concern = concernOf(record);
  return concern ? classes[concern] : undefined;
};

function Filters({ wanted, onWant }: { wanted: Wanted; onWant: (next: Partial<Wanted>) => void }) {
  const [actor, setActor] = useState(wanted.actor);
  const box = useRef<HTMLInputElement>(null);
  useEffect(() => setActor(wanted.actor), [wanted.actor]);
  useKey("/", "Filter by actor", () => box.current?.focus());
  function submit(event: FormEvent) {
    event.preventDefault();
    onWant({ actor: actor.trim() });
  }
  return (
    <Group gap="sm" className={classes.filters} component="form" onSubmit={submit as never}>
      <TextInput
        ref={box}
        size="xs"
        label="Actor"
        className={classes.actor}
        placeholder="Id of a key, or subject of a token"
        value={actor}
        onChange={(event) => setActor(event.currentTarget.value)}
        onBlur={() => actor.trim() !== wanted.actor && onWant({ actor: actor.trim() })}
        spellCheck={false}
      />
      <Select
        size="xs"
        label="Action"
        className={classes.kind}
        data={[{ value: "", label: "All actions" }, ...GROUPS]}
        value={wanted.action}
        onChange={(action) => onWant({ action: action ?? "" })}
        allowDeselect={false}
      />
      <RangePicker
        range={parseRange(wanted.range) ?? { kind: "all" }}
        onRange={(range) => onWant({ range: writtenRange(range) })}
      />
      <Switch
        size="xs"
        label="Refused and failed only"
        checked={wanted.concerns}
        onChange={(event) => onWant({ concerns: event.currentTarget.checked })}
      />
      <Switch
        size="xs"
        label="Without my own"
        checked={wanted.others}
        onChange={(event) => onWant({ others: event.currentTarget.checked })}
      />
    </Group>
  );
}

export default function Access() {
  const { wanted, want, pages } = useAccess();
  const [selected, setSelected] = useState<string | null>(null);
  const [open, setOpen] = useState(false);
  const records = useMemo(() => pages.data?.pages.flatMap((page) => page.items) ?? [], [pages.data]);
  const chosen = records.find((record) => keyOf(record) === selected);
  const refresh = () => void pages.refetch();
  useKey("r", "Read again", refresh);
  useKey("f", "Only this actor", () => chosen && want({ actor: chosen.actor.id }), { when: chosen !== undefined });
  useKey("!", "Only refused and failed, or all", () => want({ concerns: !wanted.concerns }));

  return (
    <div className={fill.fill}>
      <Page
        title="Access"
        about="Who read what. Every search, export, stream and change is recorded here, also that you look at it now."
        actions={
          <Button size="xs" variant="default" leftSection={<RefreshCw size={14} />} onClick={refresh}>
            Read again
          </Button>
        }
      >
        <Filters wanted={wanted} onWant={want} />
        {pages.isError && <ProblemNotice error={pages.error} onRetry={refresh} />}
        {pages.isSuccess && records.length === 0 && (
          <EmptyState title="No access record matches">
            {wanted.concerns
              ? "No attempt was refused and no reading failed in this time."
              : "Choose a longer time, or fewer filters."}
          </EmptyState>
        )}
        {records.length > 0 && (
          <Rows
            label="Access records, newest first"
            rows={records}
            keyOf={keyOf}
            columns={COLUMNS}
            className={classes.columns}
            selected={selected}
            onSelect={setSelected}
            onOpen={() => setOpen(true)}
            rowClass={rowClass}
            onEnd={() => pages.hasNextPage && !pages.isFetchingNextPage && void pages.fetchNextPage()}
          />
        )}
        <div className={classes.foot} role="status">
          {pages.isFetching
            ? "Reading…"
            : `${records.length} record${records.length === 1 ? "" : "s"}${pages.hasNextPage ? ", more below" : ""}`}
        </div>
      </Page>
      {open && selected !== null && (
        <RecordBeside
          rows={records}
          keyOf={keyOf}
          recordOf={(record) => record}
          selected={selected}
          onSelect={setSelected}
          onClose={() => setOpen(false)}
        />
      )}
    </div>
  );
}
