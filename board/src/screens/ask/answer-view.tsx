/** One question with its answer: what was understood, the query, the sentences, counts, and the records that the answer rests on. */
import { Button, Textarea } from "@mantine/core";
import { Search } from "lucide-react";
import { useState } from "react";
import { Link } from "wouter";
import type { Answer, Part } from "../../api/asking.ts";
import { numberText } from "../../parts/figures.ts";
import { searchHref } from "../../parts/places.ts";
import { Sentence } from "../../parts/record/sentence.tsx";
import { StateText } from "../../parts/state.tsx";
import { TimeText, timeText } from "../../parts/time.tsx";
import classes from "./ask.module.css";
import { barsOf, wordsOf } from "./words.ts";

/** A question, its words underlined: dotted where they are understood, waved where they are not. */
export function QuestionText({
  question,
  understood = [],
  unread,
}: {
  question: string;
  understood?: readonly Part[];
  unread: readonly Part[];
}) {
  return (
    <h2 className={classes.question}>
      {wordsOf(question, understood, unread).map(({ text, kind, meaning }, index) =>
        kind === "plain" ? (
          text
        ) : (
          // The parts of one question never change their places.
          // biome-ignore lint/suspicious/noArrayIndexKey: see above
          <span key={index} className={classes[kind]} title={kind === "unread" ? "not understood" : meaning}>
            {text}
          </span>
        ),
      )}
    </h2>
  );
}

/** The query of an answer, to edit and to open in Search. Search has the events; a question about the access log shows the query alone. */
export function QueryLine({ query, log }: { query: string; log: Answer["log"] }) {
  const [text, setText] = useState(query);
  return (
    <div className={classes.query}>
      <Textarea
        label={log === "access" ? "Query, over the access log" : "Query"}
        size="xs"
        autosize
        minRows={1}
        maxRows={6}
        value={text}
        placeholder="all records"
        spellCheck={false}
        classNames={{ input: classes.queryText }}
        onChange={(event) => setText(event.currentTarget.value)}
      />
      {log === "events" && (
        <Button
          component={Link}
          href={searchHref({ q: text.trim(), range: "all" })}
          size="xs"
          variant="default"
          leftSection={<Search size={14} />}
        >
          Open in Search
        </Button>
      )}
    </div>
  );
}

function Counted({ answer, zone }: { answer: Answer; zone: string }) {
  const bars = barsOf(answer);
  if (bars.length === 0) return null;
  const times = answer.counts.every(({ value }) => /^\d{4}-\d\d-\d\dT/.test(value));
  return (
    <table className={classes.counts} aria-label={`Records by ${answer.by}`}>
      <tbody>
        {bars.map(({ label, count, share }) => (
          <tr key={label}>
            <th scope="row">{times ? timeText(label, zone) : label}</th>
            <td className={classes.amount}>{numberText(count)}</td>
            <td aria-hidden>
              <svg className={classes.bar} role="presentation" preserveAspectRatio="none" viewBox="0 0 100 10">
                <rect width={100 * share} height="10" rx="1" />
              </svg>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

interface Props {
  question: string;
  answer: Answer;
  /** Number of the record that is open; null without one. */
  open: number | null;
  onOpen: (index: number) => void;
}

export function AnswerView({ question, answer, open, onOpen }: Props) {
  return (
    <article className={classes.exchange} aria-label="Answer">
      <QuestionText question={question} understood={answer.understood} unread={answer.not_understood} />
      <QueryLine key={answer.query} query={answer.query} log={answer.log} />
      <p className={classes.answer}>{answer.answer}</p>
      {answer.comment && (
        <blockquote className={classes.comment}>
          <span className={classes.commentName}>A model wrote</span>
          {answer.comment}
        </blockquote>
      )}
      {answer.notes.length > 0 && (
        <ul className={classes.notes} aria-label="Notes">
          {answer.notes.map((note) => (
            <li key={note}>
              <StateText tone="warn">{""}</StateText>
              <span>{note}</span>
            </li>
          ))}
        </ul>
      )}
      <Counted answer={answer} zone={answer.zone} />
      {answer.records.length > 0 && (
        <ol className={classes.records} aria-label="Records">
          {answer.records.map((record, index) => (
            <li key={record.seq}>
              <a
                href={`/board/search?seq=${record.seq}`}
                data-row={index}
                className={`${classes.record} ${record.seq === open ? classes.open : ""}`}
                aria-current={record.seq === open ? "true" : undefined}
                onClick={(event) => {
                  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
                  event.preventDefault();
                  onOpen(index);
                }}
              >
                <span className={classes.number}>{record.seq}</span>
                <span className={classes.when}>
                  <TimeText value={record.occurred_at} />
                </span>
                <span className={classes.deed}>
                  <Sentence record={record} />
                </span>
              </a>
            </li>
          ))}
        </ol>
      )}
    </article>
  );
}
