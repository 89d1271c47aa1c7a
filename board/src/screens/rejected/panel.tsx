/** One rejected record: why, what was sent, and what to do about it. */
import { Alert, Anchor, Button, Checkbox, Drawer, Group, Loader, Stack, Text, Textarea } from "@mantine/core";
import { Download, PencilLine, RotateCcw, Trash2 } from "lucide-react";
import { type ReactNode, useState } from "react";
import { Link } from "wouter";
import {
  type RejectedItem,
  type Replayed,
  useDeleteRejected,
  useRejectedContent,
  useReplay,
} from "../../api/rejected.ts";
import { useKey } from "../../keys/keys.tsx";
import { Confirm } from "../../parts/confirm.tsx";
import { bytesText, numberText } from "../../parts/figures.ts";
import { ProblemNotice } from "../../parts/notices.tsx";
import { searchHref } from "../../parts/places.ts";
import { TimeText } from "../../parts/time.tsx";
import { faultsOf, jsonFault, readable } from "./faults.ts";
import classes from "./rejected.module.css";

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

function Facts({ item }: { item: RejectedItem }) {
  const by = item.recorded_by;
  return (
    <dl className={classes.facts}>
      <Fact name="Rejected">
        <TimeText value={item.rejected_at} />
      </Fact>
      <Fact name="Why">
        <span className={classes.code}>{item.code}</span> {item.detail}
      </Fact>
      {by && (
        <Fact name="Sent by">
          {by.type} {by.id}
          {by.ip ? ` from ${by.ip}` : ""}
        </Fact>
      )}
      {item.record_id && <Fact name="Its id">{item.record_id}</Fact>}
      {item.request_id && <Fact name="Request">{item.request_id}</Fact>}
      <Fact name="Size">{bytesText(item.bytes)}</Fact>
    </dl>
  );
}

function save(item: RejectedItem, content: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = `rejected-${item.id}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function Refused({ error }: { error: unknown }) {
  const faults = faultsOf(error);
  return (
    <>
      <ProblemNotice error={error} />
      {faults.length > 0 && (
        <ul className={classes.faults}>
          {faults.map((fault) => (
            <li key={fault}>{fault}</li>
          ))}
        </ul>
      )}
    </>
  );
}

function Stored({ replayed, onClose }: { replayed: Replayed; onClose: () => void }) {
  const what = replayed.status === "stored" ? "It is stored as" : "It had been stored before, as";
  return (
    <Alert color="green" title="Replayed" role="status">
      <Text size="sm">
        {what}{" "}
        <Anchor component={Link} href={searchHref({ seq: replayed.seq, range: "all" })}>
          record {numberText(replayed.seq)}
        </Anchor>
        . It is no longer among the rejected ones.
        {replayed.trimmed && replayed.trimmed.length > 0 && ` Trimmed: ${replayed.trimmed.join(", ")}.`}
      </Text>
      <Button size="xs" variant="default" mt="xs" onClick={onClose}>
        Close
      </Button>
    </Alert>
  );
}

export function RejectedPanel({
  item,
  onClose,
  onGone,
}: {
  item: RejectedItem;
  onClose: () => void;
  onGone: () => void;
}) {
  const read = useRejectedContent(item.id);
  const replay = useReplay();
  const deleting = useDeleteRejected();
  const [mending, setMending] = useState<string | null>(null);
  const [trim, setTrim] = useState(false);
  const [asking, setAsking] = useState(false);
  const content = read.data?.content ?? null;
  const fault = mending === null ? null : jsonFault(mending);
  const ready = !read.isPending && !replay.isPending && !replay.isSuccess && (content !== null || mending !== null);

  function run() {
    if (ready && fault === null) replay.mutate({ id: item.id, mended: mending, trim }, { onSuccess: onGone });
  }
  const quiet = mending === null && !asking && !replay.isSuccess;
  useKey("p", "Replay the rejected record", run, { when: quiet && content !== null });
  useKey("d", "Download what was sent", () => content !== null && save(item, content), {
    when: quiet && content !== null,
  });
  useKey("m", "Mend the record before it is replayed", () => setMending(readable(content ?? "{}")), { when: quiet });
  useKey("x", "Delete the rejected record", () => setAsking(true), { when: quiet });

  return (
    <Drawer opened onClose={onClose} position="right" size="lg" title={`Rejected record ${item.id}`}>
      <Stack>
        <Facts item={item} />
        {read.isPending && <Loader aria-label="Reading what was sent" />}
        {read.isError && <ProblemNotice error={read.error} onRetry={() => void read.refetch()} />}
        {read.isSuccess && content === null && (
          <Text size="sm">
            What was sent is not kept: it was no JSON, or larger than 512 KiB. A mended record can take its place.
          </Text>
        )}
        {content !== null && mending === null && (
          <pre className={classes.content} tabIndex={0} aria-label="What was sent, with secrets masked">
            {readable(content)}
          </pre>
        )}
        {mending !== null && !replay.isSuccess && (
          <Textarea
            className={classes.mend}
            label="Mended record"
            description="It is stored in place of what was sent, by your credential."
            value={mending}
            onChange={(event) => setMending(event.currentTarget.value)}
            error={fault}
            autosize
            minRows={8}
            maxRows={24}
            spellCheck={false}
            data-autofocus
          />
        )}
        {replay.isError && <Refused error={replay.error} />}
        {replay.isSuccess ? (
          <Stored replayed={replay.data} onClose={onClose} />
        ) : (
          <>
            <Checkbox
              size="xs"
              label="Trim what is too large or too deep"
              checked={trim}
              onChange={(event) => setTrim(event.currentTarget.checked)}
            />
            <Group gap="xs">
              <Button
                size="xs"
                leftSection={<RotateCcw size={14} />}
                onClick={run}
                loading={replay.isPending}
                disabled={!ready || fault !== null}
              >
                {mending === null ? "Replay" : "Replay mended"}
              </Button>
              {mending === null ? (
                <Button
                  size="xs"
                  variant="default"
                  leftSection={<PencilLine size={14} />}
                  onClick={() => setMending(readable(content ?? "{}"))}
                  disabled={read.isPending}
                >
                  Mend
                </Button>
              ) : (
                <Button size="xs" variant="default" onClick={() => setMending(null)}>
                  Do not mend
                </Button>
              )}
              {content !== null && (
                <Button
                  size="xs"
                  variant="default"
                  leftSection={<Download size={14} />}
                  onClick={() => save(item, content)}
                >
                  Download
                </Button>
              )}
              <Button
                size="xs"
                variant="subtle"
                color="red"
                leftSection={<Trash2 size={14} />}
                onClick={() => setAsking(true)}
              >
                Delete
              </Button>
            </Group>
          </>
        )}
      </Stack>
      {asking && (
        <Confirm
          title={`Delete rejected record ${item.id}?`}
          action="Delete"
          onConfirm={async () => {
            await deleting.mutateAsync(item.id);
            onGone();
            onClose();
          }}
          onClose={() => setAsking(false)}
        >
          <Text size="sm">
            What was sent is gone then. The access log keeps that you deleted it, and why it was rejected.
          </Text>
        </Confirm>
      )}
    </Drawer>
  );
}
