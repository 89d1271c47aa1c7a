/** The words of a question, by whether they are understood; and the rows of counts. Pure. */
import type { Answer, Part, Turn } from "../../api/asking.ts";
import { Problem } from "../../api/client.ts";

export type Kind = "plain" | "understood" | "unread";

export interface Word {
  text: string;
  kind: Kind;
  /** Meaning of the part. */
  meaning?: string;
}

/** Divide a question into its parts, in its order. Places count Unicode code points, as the API does; parts that overlap or lie outside are plain. */
export function wordsOf(question: string, understood: readonly Part[], unread: readonly Part[]): Word[] {
  const points = [...question];
  const parts = [
    ...understood.map((part) => ({ ...part, kind: "understood" as const })),
    ...unread.map((part) => ({ ...part, kind: "unread" as const })),
  ].sort((one, other) => one.start - other.start);
  const words: Word[] = [];
  let at = 0;
  const plainUpTo = (end: number) => {
    if (end > at) words.push({ text: points.slice(at, end).join(""), kind: "plain" });
  };
  for (const { start, end, kind, meaning } of parts) {
    if (start < at || end <= start || end > points.length) continue;
    plainUpTo(start);
    words.push({ text: points.slice(start, end).join(""), kind, ...(meaning ? { meaning } : {}) });
    at = end;
  }
  plainUpTo(points.length);
  return words;
}

export interface Bar {
  label: string;
  count: number;
  /** Share of the largest count, from 0 to 1. */
  share: number;
}

/** Return the rows of the counts of an answer: its values, then what is not named. Without groups there are none. */
export function barsOf({ by, counts, other, missing }: Pick<Answer, "by" | "counts" | "other" | "missing">): Bar[] {
  if (by === null) return [];
  const rows = [
    ...counts.map(({ value, count }) => ({ label: value || "all records", count })),
    ...(other > 0 ? [{ label: "other values", count: other }] : []),
    ...(missing > 0 ? [{ label: `without ${by}`, count: missing }] : []),
  ];
  const most = Math.max(1, ...rows.map((row) => row.count));
  return rows.map((row) => ({ ...row, share: row.count / most }));
}

/** Return the parts that are not understood and the examples of a refusal; null for another problem. */
export function refusalOf(error: unknown): { unread: Part[]; examples: string[] } | null {
  if (!(error instanceof Problem) || error.code !== "question-not-understood") return null;
  const { not_understood, examples } = error.members;
  return {
    unread: Array.isArray(not_understood) ? (not_understood as Part[]) : [],
    examples: Array.isArray(examples) ? examples.filter((each) => typeof each === "string") : [],
  };
}

/** An earlier question as a conversation keeps it: without its records. */
export function unreadOf(turn: Turn): Part[] {
  return turn.not_understood.flatMap((text) => {
    const start = turn.question.indexOf(text);
    const before = [...turn.question.slice(0, start)].length;
    return start < 0 ? [] : [{ text, start: before, end: before + [...text].length }];
  });
}
