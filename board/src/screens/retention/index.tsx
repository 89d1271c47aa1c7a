import { SegmentedControl } from "@mantine/core";
import { useState } from "react";
import {
  type DroppedRange,
  type Retention as Found,
  type LogName,
  type StoredRange,
  useRetention,
} from "../../api/retention.ts";
import { useIdentity } from "../../api/session.ts";
import { bytesText } from "../../parts/figures.ts";
import { type Column, Listing } from "../../parts/listing.tsx";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { StateText, type Tone } from "../../parts/state.tsx";
import { agoText, TimeText } from "../../parts/time.tsx";
import { Waiting } from "../../parts/waiting.tsx";
import { sum } from "./calendar.ts";
import { Months } from "./months.tsx";
import classes from "./retention.module.css";

/** Which days of a log exist, how many records they hold, when each is hidden, and which went. */
export default function Retention() {
  const { tenant } = useIdentity();
  const [log, setLog] = useState<LogName>("events");
  const [form, setForm] = useState("calendar");
  const retention = useRetention(log);

  return (
    <Page
      title="Retention"
      about={`What storage holds of ${tenant}, by the day of receipt in UTC.`}
      actions={
        <>
          <SegmentedControl
            aria-label="Log"
            data={[
              { value: "events", label: "Events" },
              { value: "access", label: "Access" },
            ]}
            value={log}
            onChange={(value) => setLog(value as LogName)}
          />
          <SegmentedControl
            aria-label="Form"
            data={[
              { value: "calendar", label: "Calendar" },
              { value: "table", label: "Table" },
              { value: "dropped", label: "Dropped" },
            ]}
            value={form}
            onChange={setForm}
          />
        </>
      }
    >
      {retention.error && <ProblemNotice error={retention.error} onRetry={() => retention.refetch()} />}
      {retention.isPending && <Waiting />}
      {retention.data && <Facts found={retention.data} />}
      {retention.data && form === "dropped" && <Dropped items={retention.data.dropped} />}
      {retention.data && form !== "dropped" && retention.data.ranges.length === 0 && (
        <EmptyState title="This log holds no record yet">The first record makes its day.</EmptyState>
      )}
      {retention.data &&
        form !== "dropped" &&
        retention.data.ranges.length > 0 &&
        (form === "calendar" ? (
          <Months ranges={retention.data.ranges} now={Date.now()} />
        ) : (
          <Listing
            label="Ranges of receipt time"
            columns={COLUMNS}
            items={[...retention.data.ranges].reverse()}
            keyOf={(each) => String(each.first_seq)}
          />
        ))}
    </Page>
  );
}

function Dropped({ items }: { items: DroppedRange[] }) {
  if (items.length === 0) {
    return (
      <EmptyState title="Nothing was dropped in the last 400 days">
        Records go with their partition, a day after the last one in it is beyond retention.
      </EmptyState>
    );
  }
  return <Listing label="Dropped ranges" columns={GONE} items={items} keyOf={(each) => each.from} />;
}

function Facts({ found }: { found: Found }) {
  const records = found.ranges.reduce((sum, each) => sum + each.records, 0);
  const bytes = found.ranges
    .filter((each) => each.from !== null)
    .reduce<number | null>((total, each) => sum(total, each.bytes), 0);
  const next = found.ranges.find((each) => Date.parse(each.hidden_after) > Date.now());
  return (
    <dl className={classes.facts}>
      <div>
        <dt>Kept and readable</dt>
        <dd>{found.days} days</dd>
      </div>
      <div>
        <dt>In the search index</dt>
        <dd>{found.search_days ?? found.days} days</dd>
      </div>
      <div>
        <dt>Records</dt>
        <dd>{records.toLocaleString("en")}</dd>
      </div>
      <div>
        <dt>Size</dt>
        <dd>{bytesText(bytes)}</dd>
      </div>
      {next && (
        <div>
          <dt>Next to be hidden</dt>
          <dd title={next.hidden_after}>{agoText(next.hidden_after)}</dd>
        </div>
      )}
    </dl>
  );
}

const numbers = (each: { first_seq: number; end_seq: number }) =>
  each.end_seq > each.first_seq ? `${each.first_seq} to ${each.end_seq - 1}` : "none";

const GONE: Column<DroppedRange>[] = [
  { name: "From", cell: (each) => <TimeText value={each.from} /> },
  { name: "To", cell: (each) => <TimeText value={each.to} /> },
  { name: "Records", numeric: true, cell: (each) => each.records.toLocaleString("en") },
  { name: "Numbers", numeric: true, cell: numbers },
  { name: "Dropped", cell: (each) => <TimeText value={each.dropped_at} /> },
];

const TONES: Record<string, Tone> = { hidden: "quiet" };

const COLUMNS: Column<StoredRange>[] = [
  { name: "From", cell: (each) => (each.from === null ? "the beginning" : <TimeText value={each.from} />) },
  { name: "To", cell: (each) => <TimeText value={each.to} /> },
  { name: "Records", numeric: true, cell: (each) => each.records.toLocaleString("en") },
  { name: "Size", numeric: true, cell: (each) => bytesText(each.bytes) },
  {
    name: "Numbers",
    numeric: true,
    cell: numbers,
  },
  { name: "Hidden after", cell: (each) => <TimeText value={each.hidden_after} /> },
  { name: "State", cell: (each) => <StateText tone={TONES[each.state] ?? "good"}>{each.state}</StateText> },
];
