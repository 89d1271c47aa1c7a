/** States in the place of the table: an empty log, no hits and what excludes them, a search that takes too long. */
import { Button, Code, Loader } from "@mantine/core";
import { useState } from "react";
import type { Problem } from "../../api/client.ts";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { type Excluding, type Question, useExcluding } from "./data.ts";
import { type Clause, clausesOf } from "./query-text.ts";
import { type Range, rangeText, shorter } from "./range.ts";
import classes from "./states.module.css";

/** The first record of a log, ready to paste. The page knows no key, so the command reads it from a variable. */
export function EmptyLog({ tenant }: { tenant: string }) {
  const [copied, setCopied] = useState(false);
  const command = `curl ${location.origin}/api/v1/logs \\
  -H "Authorization: Bearer $DECKLOG_KEY" -H "Content-Type: application/json" \\
  -d '{"action": "user.login", "actor": {"id": "alice"}, "outcome": "success"}'`;
  async function copy() {
    await navigator.clipboard.writeText(command);
    setCopied(true);
  }
  return (
    <EmptyState title={`The log of ${tenant} is empty`}>
      <p>
        Send a first record. <Code>DECKLOG_KEY</Code> is a key of {tenant} with the role writer or admin. The record
        appears here by itself.
      </p>
      <pre className={classes.command}>{command}</pre>
      <Button size="xs" variant="default" onClick={copy}>
        {copied ? "Copied" : "Copy the command"}
      </Button>
    </EmptyState>
  );
}

interface NoHitsProps {
  question: Question;
  range: Range;
  onWithout: (clause: Clause) => void;
  onAllTime: () => void;
}

export function NoHits({ question, range, onWithout, onAllTime }: NoHitsProps) {
  const found = useExcluding(question, true);
  const single = clausesOf(question.q) === null;
  return (
    <EmptyState title="No record matches">
      {found.isPending && <Loader size="xs" aria-label="Looking for what excludes" />}
      {found.data && found.data.length > 0 && (
        <ul className={classes.causes}>
          {found.data.map((each) => (
            <Cause
              key={each.clause?.start ?? "range"}
              excluding={each}
              range={range}
              onWithout={onWithout}
              onAllTime={onAllTime}
            />
          ))}
        </ul>
      )}
      {found.data?.length === 0 && (
        <p>
          {single
            ? "The alternatives of the query find nothing, at any time."
            : "No condition alone excludes everything: take away two, or ask for other words."}
        </p>
      )}
    </EmptyState>
  );
}

function Cause({ excluding, range, onWithout, onAllTime }: { excluding: Excluding } & Omit<NoHitsProps, "question">) {
  const { clause, total } = excluding;
  const count = total === 1 ? "1 record matches" : `${total.toLocaleString("en")} records match`;
  return (
    <li>
      <span>
        {count} {clause ? "without " : "outside of "}
        {clause ? <Code>{clause.text}</Code> : rangeText(range, (each) => each).toLowerCase()}
      </span>
      <Button size="compact-xs" variant="light" onClick={() => (clause ? onWithout(clause) : onAllTime())}>
        {clause ? "Remove it" : "Search all time"}
      </Button>
    </li>
  );
}

/** A refused search. Where it took too long, a shorter range is offered. */
export function Refused({
  problem,
  range,
  now,
  onRetry,
  onRange,
}: {
  problem: Problem;
  range: Range;
  now: number;
  onRetry: () => void;
  onRange: (range: Range) => void;
}) {
  const less = problem.code === "search-unavailable" ? shorter(range, now) : null;
  return (
    <div className={classes.refused}>
      <ProblemNotice error={problem} onRetry={onRetry} />
      {less && (
        <Button size="xs" onClick={() => onRange(less)}>
          Search {rangeText(less, (each) => each).toLowerCase()} instead
        </Button>
      )}
    </div>
  );
}
