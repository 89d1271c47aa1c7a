/** Ask: a question in plain words, the query that it became, and the records that the answer rests on. */
import { Button, Loader, Textarea } from "@mantine/core";
import { type KeyboardEvent, useRef, useState } from "react";
import { type Answer, readConversation, type Turn, useAsk } from "../../api/asking.ts";
import { useKey } from "../../keys/keys.tsx";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { RecordDrawer } from "../../parts/record/drawer.tsx";
import { TimeText } from "../../parts/time.tsx";
import { useZone } from "../../preferences.ts";
import { AnswerView, QueryLine, QuestionText } from "./answer-view.tsx";
import classes from "./ask.module.css";
import { ConversationList } from "./conversation-list.tsx";
import { refusalOf, unreadOf } from "./words.ts";

const QUESTION_CHARS_MAX = 500;
const EXAMPLES = [
  "who deleted what yesterday?",
  "failed logins of alice last week",
  "how many documents were deleted this month, per day?",
  "what happened to d-17?",
];

interface Asked {
  question: string;
  answer: Answer;
}

export default function AskScreen() {
  const zone = useZone();
  const asking = useAsk();
  const [text, setText] = useState("");
  const [conversation, setConversation] = useState<string | null>(null);
  const [asked, setAsked] = useState<Asked | null>(null);
  const [earlier, setEarlier] = useState<Turn[]>([]);
  const [problem, setProblem] = useState<{ question: string; error: unknown } | null>(null);
  const [row, setRow] = useState<number | null>(null);
  const box = useRef<HTMLTextAreaElement>(null);
  useKey("q", "Ask a question", () => box.current?.focus());

  async function ask(question: string) {
    if (question.trim() === "" || asking.isPending) return;
    setText(question);
    setProblem(null);
    setRow(null);
    try {
      const answer = await asking.mutateAsync({ question, conversation, zone });
      if (asked && conversation !== null) setEarlier([turnOf(asked), ...earlier]);
      setAsked({ question, answer });
      setConversation(answer.conversation);
      setText("");
    } catch (error) {
      setProblem({ question, error });
    }
  }

  async function open(id: string) {
    setProblem(null);
    try {
      const found = await readConversation(id);
      begin(id, found.turns.toReversed());
    } catch (error) {
      setProblem({ question: "", error });
    }
  }

  function begin(id: string | null, turns: Turn[]) {
    setConversation(id);
    setEarlier(turns);
    setAsked(null);
    setRow(null);
    setProblem(null);
    box.current?.focus();
  }

  const blank = asked === null && earlier.length === 0 && problem === null && !asking.isPending;
  return (
    <Page
      title="Ask"
      about="A question in plain words becomes a query that you can check, and an answer with its records."
      actions={
        conversation && (
          <Button size="xs" variant="default" onClick={() => begin(null, [])}>
            New conversation
          </Button>
        )
      }
    >
      <div className={classes.columns}>
        <div className={classes.main}>
          <QuestionBox
            box={box}
            text={text}
            busy={asking.isPending}
            follows={conversation !== null}
            onText={setText}
            onAsk={() => void ask(text)}
          />
          <div aria-live="polite" aria-busy={asking.isPending}>
            {asking.isPending && <Loader size="sm" aria-label="Reading the log" />}
            {problem && <Refused {...problem} onAsk={(question) => void ask(question)} />}
          </div>
          {blank && (
            <EmptyState title="What would you like to know?">
              <Examples questions={EXAMPLES} onAsk={(question) => void ask(question)} />
            </EmptyState>
          )}
          {asked && !problem && (
            <AnswerView
              question={asked.question}
              answer={asked.answer}
              open={row === null ? null : (asked.answer.records[row]?.seq ?? null)}
              onOpen={setRow}
            />
          )}
          {earlier.map((turn) => (
            <EarlierTurn key={turn.asked_at} turn={turn} onAsk={(question) => void ask(question)} />
          ))}
        </div>
        <ConversationList
          current={conversation}
          onOpen={(id) => void open(id)}
          onDeleted={(id) => id === conversation && begin(null, [])}
        />
      </div>
      {asked && row !== null && <OpenRecord answer={asked.answer} row={row} onRow={setRow} />}
    </Page>
  );
}

/** Return an answer as a conversation keeps it, so that it moves below the next one. */
function turnOf({ question, answer }: Asked): Turn {
  return {
    ...answer,
    asked_at: new Date().toISOString(),
    question,
    not_understood: answer.not_understood.map((part) => part.text),
    records: answer.records.map((record) => record.seq),
  };
}

interface BoxProps {
  box: React.RefObject<HTMLTextAreaElement | null>;
  text: string;
  busy: boolean;
  follows: boolean;
  onText: (text: string) => void;
  onAsk: () => void;
}

function QuestionBox({ box, text, busy, follows, onText, onAsk }: BoxProps) {
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    onAsk();
  };
  return (
    <form
      className={classes.form}
      onSubmit={(event) => {
        event.preventDefault();
        onAsk();
      }}
    >
      <Textarea
        ref={box}
        className={classes.box}
        aria-label="Question"
        placeholder={follows ? "and yesterday? only the failed ones?" : "who deleted what yesterday?"}
        autosize
        minRows={1}
        maxRows={5}
        maxLength={QUESTION_CHARS_MAX}
        value={text}
        onChange={(event) => onText(event.currentTarget.value)}
        onKeyDown={key}
      />
      <Button type="submit" loading={busy} disabled={text.trim() === ""}>
        Ask
      </Button>
    </form>
  );
}

function Examples({ questions, onAsk }: { questions: readonly string[]; onAsk: (question: string) => void }) {
  return (
    <ul className={classes.examples} aria-label="Examples">
      {questions.map((question) => (
        <li key={question}>
          <Button size="compact-sm" variant="default" onClick={() => onAsk(question)}>
            {question}
          </Button>
        </li>
      ))}
    </ul>
  );
}

/** A refusal. One of a question that is not understood underlines its words and offers questions that are. */
function Refused({ question, error, onAsk }: { question: string; error: unknown; onAsk: (question: string) => void }) {
  const refusal = refusalOf(error);
  if (refusal === null) {
    return <ProblemNotice error={error} {...(question ? { onRetry: () => onAsk(question) } : {})} />;
  }
  return (
    <article className={classes.exchange} aria-label="Not understood">
      <QuestionText question={question} unread={refusal.unread} />
      <p className={classes.answer}>{error instanceof Error ? error.message : ""}</p>
      <Examples questions={refusal.examples.length > 0 ? refusal.examples : EXAMPLES} onAsk={onAsk} />
    </article>
  );
}

function EarlierTurn({ turn, onAsk }: { turn: Turn; onAsk: (question: string) => void }) {
  const numbers = turn.records.slice(0, 10).join(", ");
  return (
    <article className={classes.exchange} aria-label="Earlier answer">
      <QuestionText question={turn.question} unread={unreadOf(turn)} />
      <QueryLine query={turn.query} log={turn.log} />
      <p className={classes.answer}>{turn.answer}</p>
      <span className={classes.facts}>
        <TimeText value={turn.asked_at} />
        {numbers && `, records ${numbers}${turn.records.length > 10 ? ", …" : ""}`}{" "}
        <Button size="compact-xs" variant="default" onClick={() => onAsk(turn.question)}>
          Ask again
        </Button>
      </span>
    </article>
  );
}

function OpenRecord({ answer, row, onRow }: { answer: Answer; row: number; onRow: (row: number | null) => void }) {
  const record = answer.records[row];
  const close = () => {
    onRow(null);
    document.querySelector<HTMLElement>(`[data-row="${row}"]`)?.focus();
  };
  const step = (by: 1 | -1) => (answer.records[row + by] ? () => onRow(row + by) : null);
  useKey("]", "Next record", () => step(1)?.());
  useKey("[", "Previous record", () => step(-1)?.());
  useKey("Escape", "Close the record", close);
  if (!record) return null;
  return (
    <RecordDrawer
      seq={record.seq}
      log={answer.log}
      listed={record}
      onPrevious={step(-1)}
      onNext={step(1)}
      onClose={close}
    />
  );
}
