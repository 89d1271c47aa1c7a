/** Rejected: records that were refused for what they are, why, and their replay. */
import { Button } from "@mantine/core";
import { RefreshCw } from "lucide-react";
import { useMemo, useState } from "react";
import { type RejectedItem, type RejectedPage, useRejected, useRejectedAgain } from "../../api/rejected.ts";
import { useKey } from "../../keys/keys.tsx";
import { bytesText, numberText } from "../../parts/figures.ts";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { type Column, Rows } from "../../parts/rows.tsx";
import fill from "../../parts/screen.module.css";
import { TimeText } from "../../parts/time.tsx";
import { Waiting } from "../../parts/waiting.tsx";
import { RejectedPanel } from "./panel.tsx";
import classes from "./rejected.module.css";

const COLUMNS: Column<RejectedItem>[] = [
  { title: "When", className: classes.time, draw: (item) => <TimeText value={item.rejected_at} /> },
  { title: "Code", className: classes.code, draw: (item) => item.code },
  {
    title: "Why",
    className: `${classes.clip} ${classes.wide}`,
    draw: (item) => <span title={item.detail}>{item.detail}</span>,
  },
  { title: "Sent by", className: classes.clip, draw: (item) => item.recorded_by?.id ?? "" },
  { title: "Size", className: classes.size, draw: (item) => bytesText(item.bytes) },
];

/** Return what the counts of the tenant say in one line. */
export function countsText({ rejected, kept, dropped, unkept }: RejectedPage): string {
  const parts = [`${numberText(rejected)} rejected so far`, `${numberText(kept)} kept`];
  if (dropped > 0) parts.push(`${numberText(dropped)} made room for newer ones or grew too old`);
  if (unkept > 0) parts.push(`${numberText(unkept)} could not be kept, because too many came at once`);
  return `${parts.join(", ")}.`;
}

const keyOf = (item: RejectedItem) => String(item.id);

export default function Rejected() {
  const pages = useRejected();
  const again = useRejectedAgain();
  const [selected, setSelected] = useState<string | null>(null);
  const [open, setOpen] = useState<RejectedItem | null>(null);
  const items = useMemo(() => pages.data?.pages.flatMap((page) => page.items) ?? [], [pages.data]);
  const counts = pages.data?.pages[0];
  useKey("r", "Read again", () => void again());

  return (
    <div className={fill.fill}>
      <Page
        title="Rejected"
        about="Records that were refused for what they are. They are not in the log: mend and replay them, or delete them."
        actions={
          <Button size="xs" variant="default" leftSection={<RefreshCw size={14} />} onClick={() => void again()}>
            Read again
          </Button>
        }
      >
        {counts && <div className={classes.counts}>{countsText(counts)}</div>}
        {pages.isPending && <Waiting />}
        {pages.isError && <ProblemNotice error={pages.error} onRetry={() => void again()} />}
        {pages.isSuccess && items.length === 0 && (
          <EmptyState title="Nothing is rejected">
            A record with a fault appears here, with what was wrong. A sender that gets 422 need not keep it.
          </EmptyState>
        )}
        {items.length > 0 && (
          <Rows
            label="Rejected records, newest first"
            rows={items}
            keyOf={keyOf}
            columns={COLUMNS}
            className={classes.columns}
            selected={selected}
            onSelect={(key, item) => {
              setSelected(key);
              if (open) setOpen(item);
            }}
            onOpen={setOpen}
            onEnd={() => pages.hasNextPage && !pages.isFetchingNextPage && void pages.fetchNextPage()}
            noun="rejected record"
          />
        )}
      </Page>
      {open && <RejectedPanel key={open.id} item={open} onClose={() => setOpen(null)} onGone={() => void again()} />}
    </div>
  );
}
