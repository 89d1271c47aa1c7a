/** Story: everything of one request, session, actor or resource, oldest first. */
import { Button, Loader } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Search } from "lucide-react";
import { useMemo, useState } from "react";
import { Link, useSearch } from "wouter";
import { type LogRecord, listRecords } from "../../api/records.ts";
import { useIdentity } from "../../api/session.ts";
import { useKey } from "../../keys/keys.tsx";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { searchHref } from "../../parts/places.ts";
import { RecordDrawer } from "../../parts/record/drawer.tsx";
import { Sentence } from "../../parts/record/sentence.tsx";
import { TimeText } from "../../parts/time.tsx";
import { withValue } from "../search/query-text.ts";
import classes from "./story.module.css";
import {
  type Chapter,
  chaptersOf,
  lengthText,
  parseSubject,
  type Subject,
  subjectFilters,
  subjectText,
} from "./story.ts";

const PAGE_RECORDS = 100;

export default function StoryScreen() {
  const subject = parseSubject(useSearch());
  if (subject) return <Story key={`${subject.kind} ${subject.value}`} subject={subject} />;
  return (
    <Page title="Story">
      <EmptyState title="Whose story?">
        <p>
          A story is everything of one request, session, actor or resource, in order. Open a record in{" "}
          <Link href="/search">Search</Link> and choose one below its sentence.
        </p>
      </EmptyState>
    </Page>
  );
}

function useStory(subject: Subject) {
  const identity = useIdentity();
  const query = {
    [subject.kind]: subject.value,
    ...(subject.kind === "resource_id" ? { resource_type: subject.type } : {}),
    sort: "occurred_at",
    limit: PAGE_RECORDS,
  };
  const found = useInfiniteQuery({
    queryKey: ["story", identity.id, query],
    queryFn: ({ pageParam, signal }) => listRecords({ ...query, cursor: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next,
    staleTime: Number.POSITIVE_INFINITY,
    structuralSharing: false,
  });
  const records = useMemo(() => found.data?.pages.flatMap((page) => page.items) ?? [], [found.data]);
  return { ...found, records };
}

function Story({ subject }: { subject: Subject }) {
  const found = useStory(subject);
  const { records } = found;
  const [row, setRow] = useState(-1);
  const [open, setOpen] = useState(false);
  const chapters = useMemo(() => chaptersOf(records, subject.kind), [records, subject.kind]);
  const query = subjectFilters(subject).reduce((text, [field, value]) => withValue(text, field, value, false), "");

  const moveTo = (next: number) => {
    if (next < 0 || next >= records.length) return;
    setRow(next);
    document.querySelector<HTMLElement>(`[data-row="${next}"]`)?.focus();
  };
  useKey("j", "Next record", () => moveTo(row + 1));
  useKey("k", "Previous record", () => moveTo(row - 1));
  useKey("]", "Next record, in the drawer", () => setRow(Math.min(row + 1, records.length - 1)), { when: open });
  useKey("[", "Previous record, in the drawer", () => setRow(Math.max(row - 1, 0)), { when: open });
  const close = () => {
    setOpen(false);
    document.querySelector<HTMLElement>(`[data-row="${row}"]`)?.focus();
  };
  useKey("Escape", "Close the record", close, { when: open });
  const record = open ? records[row] : undefined;

  return (
    <Page
      title={`Story of ${subjectText(subject)}`}
      about={found.isSuccess ? summaryOf(records, found.hasNextPage) : undefined}
      actions={
        <Button
          component={Link}
          href={searchHref({ q: query, range: "all" })}
          size="xs"
          variant="default"
          leftSection={<Search size={14} />}
        >
          Search in it
        </Button>
      }
    >
      {found.error && <ProblemNotice error={found.error} onRetry={() => void found.refetch()} />}
      {found.isPending && <Loader aria-label="Loading the story" />}
      {found.isSuccess && records.length === 0 && (
        <EmptyState title="Nothing is known of it">
          <p>No record that you may read has this {subjectText(subject)}.</p>
        </EmptyState>
      )}
      <ol className={classes.chapters}>
        {chapters.map((each) => (
          <ChapterOf
            key={each.records[0]?.seq}
            chapter={each}
            all={records}
            selected={record}
            onOpen={(index) => {
              setRow(index);
              setOpen(true);
            }}
          />
        ))}
      </ol>
      {found.hasNextPage && (
        <div className={classes.more}>
          <Button
            size="xs"
            variant="default"
            loading={found.isFetchingNextPage}
            onClick={() => void found.fetchNextPage()}
          >
            Load what follows
          </Button>
        </div>
      )}
      {record && (
        <RecordDrawer
          seq={record.seq}
          listed={record}
          onPrevious={row > 0 ? () => setRow(row - 1) : null}
          onNext={row < records.length - 1 ? () => setRow(row + 1) : null}
          onClose={close}
        />
      )}
    </Page>
  );
}

function summaryOf(records: LogRecord[], more: boolean): string {
  const [first, last] = [records[0], records.at(-1)];
  if (!first || !last) return "";
  const count = records.length === 1 ? "1 record" : `${records.length}${more ? "+" : ""} records`;
  const span = Date.parse(last.occurred_at) - Date.parse(first.occurred_at);
  return span < 1_000
    ? `${count} within one second, oldest first.`
    : `${count} within ${lengthText(span)}, oldest first.`;
}

interface ChapterProps {
  chapter: Chapter;
  all: LogRecord[];
  selected: LogRecord | undefined;
  onOpen: (index: number) => void;
}

function ChapterOf({ chapter, all, selected, onOpen }: ChapterProps) {
  const first = all.indexOf(chapter.records[0] as LogRecord);
  return (
    <>
      {chapter.pause !== null && <li className={classes.pause}>{lengthText(chapter.pause)} later</li>}
      {chapter.records.map((each, index) => (
        <li key={each.seq} className={classes.event}>
          <span className={classes.when}>
            <TimeText value={each.occurred_at} />
          </span>
          <a
            href={`/board/search?seq=${each.seq}`}
            data-row={first + index}
            className={`${classes.deed} ${classes[each.outcome] ?? ""} ${each === selected ? classes.open : ""}`}
            aria-current={each === selected ? "true" : undefined}
            onClick={(event) => {
              if (event.ctrlKey || event.metaKey || event.shiftKey) return;
              event.preventDefault();
              onOpen(first + index);
            }}
          >
            <Sentence record={each} />
            {each.message && <span className={classes.message}>{each.message}</span>}
          </a>
        </li>
      ))}
    </>
  );
}
