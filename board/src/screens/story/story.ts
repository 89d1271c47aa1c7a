/** The subject of a story, and how its records stand together in time. Pure. */
import type { LogRecord } from "../../api/records.ts";
import { STORY_KINDS, type StoryKind } from "../../parts/record/stories.ts";

export interface Subject {
  kind: StoryKind;
  value: string;
  /** Type of the resource, if the address names it. */
  type: string | null;
}

/** Read the subject from the query string of the address; null where it names none. */
export function parseSubject(search: string): Subject | null {
  const given = new URLSearchParams(search);
  for (const kind of STORY_KINDS) {
    const value = given.get(kind);
    if (value) return { kind, value, type: given.get("resource_type") };
  }
  return null;
}

const NAMES: Record<StoryKind, string> = {
  correlation_id: "request",
  session_id: "session",
  actor: "actor",
  resource_id: "resource",
};

export function subjectText(subject: Subject): string {
  return `${subject.kind === "resource_id" && subject.type ? subject.type : NAMES[subject.kind]} ${subject.value}`;
}

/** Return the same question in the query language, for the search. */
export function subjectFilters(subject: Subject): [string, string][] {
  const name = {
    correlation_id: "correlation_id",
    session_id: "session_id",
    actor: "actor.id",
    resource_id: "resource.id",
  };
  const filters: [string, string][] = [[name[subject.kind], subject.value]];
  return subject.kind === "resource_id" && subject.type ? [...filters, ["resource.type", subject.type]] : filters;
}

/** Pauses that divide a story, in milliseconds. Records of one request follow quickly. */
const PAUSES: Record<StoryKind, number> = {
  correlation_id: 10_000,
  session_id: 300_000,
  actor: 1_800_000,
  resource_id: 1_800_000,
};

export interface Chapter {
  /** Milliseconds since the record before; null for the first chapter. */
  pause: number | null;
  records: LogRecord[];
}

/** Divide records in the order of their time where nothing happened for long. */
export function chaptersOf(records: LogRecord[], kind: StoryKind): Chapter[] {
  const chapters: Chapter[] = [];
  let before: number | null = null;
  for (const record of records) {
    const at = Date.parse(record.occurred_at);
    const pause: number | null = before === null ? null : at - before;
    const last = chapters.at(-1);
    if (!last || (pause !== null && pause > PAUSES[kind])) chapters.push({ pause, records: [record] });
    else last.records.push(record);
    before = at;
  }
  return chapters;
}

const UNITS: [string, number][] = [
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
  ["second", 1_000],
];

/** Return a length of time in its largest whole unit: "3 hours". */
export function lengthText(milliseconds: number): string {
  const [name, size] = UNITS.find(([, each]) => milliseconds >= each) ?? ["second", 1_000];
  const amount = Math.floor(milliseconds / size);
  return `${amount} ${name}${amount === 1 ? "" : "s"}`;
}
