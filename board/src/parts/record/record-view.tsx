/** One record, from what it says down to its raw JSON. Every text of a record is a text node. */
import { Badge, Button } from "@mantine/core";
import { Copy } from "lucide-react";
import { type ReactNode, useState } from "react";
import { Link } from "wouter";
import { hasMembers, type Json, prettyJson } from "../../api/json.ts";
import type { LogRecord, Resource } from "../../api/records.ts";
import { TimeText } from "../time.tsx";
import { DiffTable } from "./diff-table.tsx";
import { FilterButtons } from "./filters.tsx";
import { RecordText } from "./marks.tsx";
import classes from "./record.module.css";
import { Sentence } from "./sentence.tsx";
import { storiesOf } from "./stories.ts";
import { Tree } from "./tree.tsx";

/** `checked`: whether the server compared the record with its digest. */
export function RecordView({ record, checked }: { record: LogRecord; checked: boolean }) {
  const changed = record.before !== undefined || record.after !== undefined;
  return (
    <div>
      <p className={classes.sentence}>
        <Sentence record={record} />
      </p>
      {record.message && (
        <p className={classes.note}>
          <RecordText name="message" text={record.message} />
        </p>
      )}
      <Stories record={record} />
      <Section title="When, who, what, where">
        <Facts record={record} />
      </Section>
      {changed && (
        <Section title="Before and after">
          <DiffTable before={record.before} after={record.after} />
        </Section>
      )}
      {isPresent(record.metadata) && (
        <Section title="Metadata">
          <Tree value={record.metadata} path="metadata" />
        </Section>
      )}
      {record.related && record.related.length > 0 && (
        <Section title="Related">
          {record.related.map((each) => (
            <ResourceText key={JSON.stringify(each)} resource={each} prefix="related" />
          ))}
        </Section>
      )}
      <Kept record={record} />
      <Section title="Evidence">
        <Evidence record={record} checked={checked} />
      </Section>
      <Raw record={record} />
    </div>
  );
}

function isPresent(value: Json | undefined): value is Json {
  return value !== undefined && value !== null && !(hasMembers(value) && Object.keys(value).length === 0);
}

function Section({ title, children, tools }: { title: string; children: ReactNode; tools?: ReactNode }) {
  return (
    <section className={classes.section}>
      <h3 className={classes.heading}>
        {title}
        {tools}
      </h3>
      {children}
    </section>
  );
}

/** Stories are of events: one of access records would show nothing of them. */
function Stories({ record }: { record: LogRecord }) {
  if (record.log !== "events") return null;
  return (
    <nav className={classes.links} aria-label="Stories of this record">
      {storiesOf(record).map((each) => (
        <Button key={each.label} component={Link} href={each.href} size="compact-sm" variant="default">
          {each.label}
        </Button>
      ))}
    </nav>
  );
}

function Fact({
  name,
  field,
  value,
  mono = false,
}: {
  name: string;
  field?: string;
  value: string | null | undefined;
  mono?: boolean;
}) {
  if (value === null || value === undefined || value === "") return null;
  return (
    <>
      <dt>{name}</dt>
      <dd>
        <div className={classes.value}>
          <span className={mono ? `${classes.text} ${classes.mono}` : classes.text}>
            {field ? <RecordText name={field} text={value} /> : value}
          </span>
          {field && <FilterButtons field={field} value={value} />}
        </div>
      </dd>
    </>
  );
}

function Facts({ record }: { record: LogRecord }) {
  const { actor, resource, source } = record;
  return (
    <dl className={classes.facts}>
      <dt>Occurred</dt>
      <dd className={classes.mono}>
        <TimeText value={record.occurred_at} />
      </dd>
      <dt>Received</dt>
      <dd className={classes.mono}>
        <TimeText value={record.received_at} />
      </dd>
      <Fact name="Actor" field="actor.id" value={actor.id} mono />
      <Fact name="Actor name" field="actor.name" value={actor.name} />
      <Fact name="Actor type" field="actor.type" value={actor.type} />
      <Fact name="Action" field="action" value={record.action} mono />
      <Fact name="Resource" field="resource.id" value={resource?.id} mono />
      <Fact name="Resource name" field="resource.name" value={resource?.name} />
      <Fact name="Resource type" field="resource.type" value={resource?.type} />
      <Fact name="Outcome" field="outcome" value={record.outcome} />
      <Fact name="Severity" field="severity" value={record.severity} />
      <Fact name="From" field="source.ip" value={source?.ip} mono />
      <Fact name="User agent" field="source.user_agent" value={source?.user_agent} />
      <Fact name="Session" field="session_id" value={record.session_id} mono />
      <Fact name="Request" field="correlation_id" value={record.correlation_id} mono />
      <Fact name="Id" field="id" value={record.id} mono />
    </dl>
  );
}

function ResourceText({ resource, prefix }: { resource: Resource; prefix: string }) {
  const text = resource.id ?? resource.name ?? "";
  return (
    <div className={classes.value}>
      <span className={classes.name}>{resource.type}</span>
      <span className={`${classes.text} ${classes.leaf}`}>{text}</span>
      {resource.id && <FilterButtons field={`${prefix}.id`} value={resource.id} />}
    </div>
  );
}

/** Parts that were masked or removed before the record was stored. */
function Kept({ record }: { record: LogRecord }) {
  const { masked, trimmed } = record;
  if (!masked?.length && !trimmed?.length) return null;
  return (
    <Section title="Not stored">
      {masked?.length ? (
        <p className={classes.note}>
          Masked before storage: <span className={classes.mono}>{masked.join(", ")}</span>
        </p>
      ) : null}
      {trimmed?.map((each) => (
        <p key={each.path} className={classes.note}>
          Removed as too large: <span className={classes.mono}>{each.path}</span>, {each.bytes.toLocaleString("en")}{" "}
          bytes, SHA-256 <span className={classes.mono}>{each.sha256.slice(0, 12)}…</span>
        </p>
      ))}
    </Section>
  );
}

function Evidence({ record, checked }: { record: LogRecord; checked: boolean }) {
  const by = record.recorded_by;
  return (
    <dl className={classes.facts}>
      <Fact name="Seq" value={`${record.seq} (epoch ${record.epoch})`} mono />
      {by && <Fact name="Recorded by" field="recorded_by.id" value={by.id} mono />}
      {by && <Fact name="Credential" value={[by.type, by.issuer, by.ip].filter(Boolean).join(" · ")} />}
      <dt>Digest</dt>
      <dd>
        <div className={classes.value}>
          <span className={`${classes.text} ${classes.mono}`}>{record.digest}</span>
          {checked && (
            <Badge
              size="sm"
              variant="light"
              color="green"
              title="The server compared the stored record with this digest."
            >
              Matches
            </Badge>
          )}
        </div>
      </dd>
    </dl>
  );
}

function Raw({ record }: { record: LogRecord }) {
  const [open, setOpen] = useState(false);
  const [copied, setCopied] = useState(false);
  const text = prettyJson(record as unknown as Json);
  async function copy() {
    await navigator.clipboard.writeText(text);
    setCopied(true);
  }
  return (
    <Section
      title="Raw"
      tools={
        <span>
          <Button size="compact-xs" variant="subtle" aria-expanded={open} onClick={() => setOpen(!open)}>
            {open ? "Hide" : "Show"} JSON
          </Button>
          <Button size="compact-xs" variant="subtle" leftSection={<Copy size={12} />} onClick={copy}>
            {copied ? "Copied" : "Copy JSON"}
          </Button>
        </span>
      }
    >
      {open && (
        <pre className={classes.raw} tabIndex={0} aria-label="Raw JSON">
          {text}
        </pre>
      )}
    </Section>
  );
}
