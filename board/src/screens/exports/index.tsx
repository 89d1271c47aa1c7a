/** Exports: a file of all records that match, with its progress, and the exports that were made before. */
import { Anchor, Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { RefreshCw } from "lucide-react";
import { type MouseEvent, useEffect, useMemo, useState } from "react";
import { Link, useSearch } from "wouter";
import { listRecords } from "../../api/records.ts";
import { useIdentity } from "../../api/session.ts";
import { useKey } from "../../keys/keys.tsx";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { exportsHref } from "../../parts/places.ts";
import { type Column, Rows } from "../../parts/rows.tsx";
import { TimeText } from "../../parts/time.tsx";
import { Sentence } from "../access/sentence.tsx";
import { askedOf, sentenceOf, whoOf } from "../access/sentences.ts";
import classes from "./exports.module.css";
import { type Form, formOf, nameOf, titleOf, wantedOf } from "./form.ts";
import { FormPanel } from "./form-panel.tsx";
import { historyOf, type Past } from "./history.ts";
import { startExport } from "./running.ts";
import { RunningList } from "./running-list.tsx";
import { gzipped, memorySink, pickFile, writesFiles } from "./sinks.ts";

const HISTORY = 100;

function againHref({ record }: Past): string | null {
  const asked = askedOf(record);
  if (asked === null) return null;
  const range = asked.since || asked.until ? `${asked.since ?? ""}..${asked.until ?? ""}` : null;
  return exportsHref({ q: asked.q, range, log: asked.log === "access" ? "access" : null });
}

const COLUMNS: Column<Past>[] = [
  { title: "When", className: classes.time, draw: ({ record }) => <TimeText value={record.received_at} /> },
  { title: "Who", className: classes.who, draw: ({ record }) => <Sentence parts={whoOf(record)} /> },
  {
    title: "What",
    className: classes.sentence,
    draw: ({ record, open }) => (
      <>
        <Sentence parts={sentenceOf(record)} />
        {open && ": no end is recorded yet"}
      </>
    ),
  },
  {
    title: "Again",
    className: classes.again,
    draw: (past) => {
      const href = againHref(past);
      return (
        href && (
          <Anchor component={Link} href={href} size="xs" onClick={(event: MouseEvent) => event.stopPropagation()}>
            Use again
          </Anchor>
        )
      );
    },
  },
];

function History() {
  const identity = useIdentity();
  const [selected, setSelected] = useState<string | null>(null);
  const history = useQuery({
    queryKey: ["exports", identity.id],
    queryFn: ({ signal }) => listRecords({ log: "access", action: "log.export.*", limit: HISTORY }, signal),
    staleTime: Number.POSITIVE_INFINITY,
  });
  const past = useMemo(() => historyOf(history.data?.items ?? []), [history.data]);
  const refresh = () => void history.refetch();
  useKey("r", "Read the history again", refresh);
  return (
    <section className={classes.history} aria-label="Exports of this tenant">
      <div className={classes.line}>
        <h2 className={classes.section}>Exports of this tenant</h2>
        <Button size="compact-xs" variant="default" leftSection={<RefreshCw size={12} />} onClick={refresh}>
          Read again
        </Button>
      </div>
      {history.isError && <ProblemNotice error={history.error} onRetry={refresh} />}
      {history.isSuccess && past.length === 0 && (
        <EmptyState title="No export yet">Every export of this tenant is listed here, whoever makes it.</EmptyState>
      )}
      {past.length > 0 && (
        <Rows
          label="Exports, newest first"
          rows={past}
          keyOf={(each) => each.key}
          columns={COLUMNS}
          className={classes.columns}
          selected={selected}
          onSelect={setSelected}
          onOpen={() => undefined}
          rowClass={({ record }) => (record.outcome === "success" ? undefined : classes.broken)}
          noun="export"
        />
      )}
    </section>
  );
}

export default function Exports() {
  const identity = useIdentity();
  const search = useSearch();
  const [form, setForm] = useState<Form>(() => formOf(search));
  const [failure, setFailure] = useState<unknown>(null);
  useEffect(() => setForm((before) => ({ ...formOf(search), gzip: before.gzip, bom: before.bom })), [search]);

  async function start() {
    setFailure(null);
    const now = Date.now();
    const wanted = wantedOf(form, now);
    const proposed = nameOf(identity.tenant ?? "decklog", form, now);
    try {
      const file = writesFiles() ? await pickFile(proposed) : null;
      if (writesFiles() && file === null) return;
      startExport(wanted, titleOf(form), identity.id, (name) => {
        const named = () => {
          const given = name();
          return given === null ? proposed : given + (form.gzip ? ".gz" : "");
        };
        const sink = file ?? memorySink(named);
        return form.gzip ? gzipped(sink) : sink;
      });
    } catch (error) {
      setFailure(error);
    }
  }
  useKey("x", "Start the export", () => void start());

  return (
    <Page
      title="Exports"
      about="A file of all records that match, oldest first. A file that is complete has every one of them."
    >
      <FormPanel form={form} onChange={(next) => setForm({ ...form, ...next })} onStart={() => void start()} />
      {failure !== null && <ProblemNotice error={failure} />}
      <RunningList />
      <History />
    </Page>
  );
}
