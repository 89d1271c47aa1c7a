/** The record that is open, beside the list it is from, which goes on working. */
import { ActionIcon, Loader } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { ChevronDown, ChevronUp, Link2, X } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { type LogRecord, readRecord } from "../../api/records.ts";
import { useIdentity } from "../../api/session.ts";
import { ProblemNotice } from "../notices.tsx";
import classes from "./drawer.module.css";
import { type Marks, NO_MARKS, RecordMarks } from "./marks.tsx";
import { RecordView } from "./record-view.tsx";

/** One record as it is stored, checked against its digest by the server. */
function useRecord(seq: number, log: string) {
  const identity = useIdentity();
  return useQuery({
    queryKey: ["record", identity.id, log, seq],
    queryFn: ({ signal }) => readRecord(seq, log, signal),
    staleTime: Number.POSITIVE_INFINITY,
    structuralSharing: false,
  });
}

interface Props {
  seq: number;
  log?: "events" | "access";
  /** The record as the list has it, until the checked one has come. */
  listed: LogRecord | undefined;
  /** Where the record matched. */
  marks?: Marks;
  onPrevious: (() => void) | null;
  onNext: (() => void) | null;
  onClose: () => void;
}

export function RecordDrawer({ seq, log = "events", listed, marks = NO_MARKS, onPrevious, onNext, onClose }: Props) {
  const read = useRecord(seq, log);
  const title = useRef<HTMLHeadingElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const record = read.data ?? listed;

  useEffect(() => title.current?.focus({ preventScroll: true }), []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another record begins at its top
  useEffect(() => {
    content.current?.scrollTo({ top: 0 });
  }, [seq]);

  return (
    <aside className={classes.drawer} aria-label={`Record ${seq}`}>
      <div className={classes.bar}>
        <h2 ref={title} tabIndex={-1} className={classes.title}>
          Record {seq}
        </h2>
        <Tool label="Previous record ([)" run={onPrevious} icon={<ChevronUp size={16} />} />
        <Tool label="Next record (])" run={onNext} icon={<ChevronDown size={16} />} />
        {log === "events" && <CopyLink seq={seq} />}
        <Tool label="Close (Escape)" run={onClose} icon={<X size={16} />} />
      </div>
      <div ref={content} className={classes.content} tabIndex={0} role="region" aria-label="Content of the record">
        {read.error && <ProblemNotice error={read.error} onRetry={() => void read.refetch()} />}
        {record ? (
          <RecordMarks value={marks}>
            <RecordView key={seq} record={record} checked={read.data !== undefined} />
          </RecordMarks>
        ) : (
          !read.error && <Loader aria-label="Loading the record" />
        )}
      </div>
    </aside>
  );
}

function Tool({ label, run, icon }: { label: string; run: (() => void) | null; icon: React.ReactNode }) {
  return (
    <ActionIcon
      variant="subtle"
      color="gray"
      aria-label={label}
      title={label}
      disabled={run === null}
      onClick={run ?? undefined}
    >
      {icon}
    </ActionIcon>
  );
}

/** Copies the address of the record alone. */
function CopyLink({ seq }: { seq: number }) {
  const [copied, setCopied] = useState(-1);
  async function copy() {
    await navigator.clipboard.writeText(`${location.origin}/board/search?seq=${seq}`);
    setCopied(seq);
  }
  const label = copied === seq ? "Link copied" : "Copy a link to this record";
  return <Tool label={label} run={copy} icon={<Link2 size={16} />} />;
}
