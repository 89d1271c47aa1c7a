/** Choices that the query box offers at the caret. Pure: values come from the caller. */
import { canonicalName, FIELDS, fieldOf } from "./names.ts";
import { type Token, tokensOf, writtenName, writtenValue } from "./query-text.ts";

/** The part of the text that a choice replaces. */
export interface Place {
  kind: "name" | "value";
  from: number;
  to: number;
  /** Text before the caret. */
  typed: string;
  /** Field of the value; empty for a name. */
  field: string;
}

export interface Option {
  /** Text that replaces the place. */
  insert: string;
  label: string;
  about: string;
  /** True if another choice follows at once, as after a name. */
  open: boolean;
  /** True if the choice is a whole query, which is asked at once. */
  whole?: boolean;
}

const OPTIONS_MAX = 12;
const TIMES = ["15m", "1h", "24h", "7d", "30d"];
const OPERATORS = [
  { insert: "AND ", about: "both" },
  { insert: "OR ", about: "one of both" },
  { insert: "NOT ", about: "what must not occur" },
];

/** Return what may be completed at the caret. */
export function placeAt(text: string, caret: number): Place {
  const tokens = tokensOf(text);
  const at = tokens.findIndex((each) => each.start < caret && caret <= each.end && each.kind !== "blank");
  const token = tokens[at];
  const field = fieldBefore(text, tokens, at);
  if (token?.kind === "field" && caret === token.end) {
    const next = tokens[at + 1];
    return {
      kind: "value",
      from: caret,
      to: next?.kind === "value" ? next.end : caret,
      typed: "",
      field: nameIn(text, token),
    };
  }
  if (token && field !== null && token.kind !== "operator") {
    const bracket = token.kind === "bracket";
    const from = bracket ? caret : token.start;
    return {
      kind: "value",
      from,
      to: bracket ? caret : token.end,
      typed: bracket ? "" : text.slice(from, caret),
      field,
    };
  }
  if (!token || token.kind === "bracket") return { kind: "name", from: caret, to: caret, typed: "", field: "" };
  const from = token.start + (text[token.start] === "-" ? 1 : 0);
  return { kind: "name", from, to: token.end, typed: text.slice(from, caret), field: "" };
}

function nameIn(text: string, token: Token): string {
  return canonicalName(
    text
      .slice(token.start, token.end - 1)
      .replace(/^-/, "")
      .replace(/\\(.)/gs, "$1"),
  );
}

/** Return the field whose value or group of values the token belongs to. */
function fieldBefore(text: string, tokens: Token[], at: number): string | null {
  const token = tokens[at];
  if (token?.kind === "value") {
    const before = tokens[at - 1];
    return before?.kind === "field" ? nameIn(text, before) : null;
  }
  let depth = 0;
  for (let index = token?.kind === "bracket" ? at : at - 1; index > 0; index -= 1) {
    const each = tokens[index];
    if (each?.kind !== "bracket") continue;
    depth += /[)\]}]/.test(text.slice(each.start, each.end)) ? 1 : -1;
    if (depth < 0) {
      const before = tokens[index - 1];
      return before?.kind === "field" && before.end === each.start ? nameIn(text, before) : null;
    }
  }
  return null;
}

function fits(text: string, typed: string): number {
  const [one, other] = [text.toLowerCase(), typed.toLowerCase()];
  return one.startsWith(other) ? 2 : one.includes(other) ? 1 : 0;
}

function ranked<T>(items: T[], typed: string, text: (item: T) => string): T[] {
  const scored = items.map((item) => ({ item, score: fits(text(item), typed) })).filter((each) => each.score > 0);
  return scored.sort((one, other) => other.score - one.score).map((each) => each.item);
}

/** Return names of fields, leaves and operators that begin with, or hold, what is typed. */
export function nameOptions(typed: string, leaves: string[]): Option[] {
  const names = [
    ...FIELDS.map((each) => ({ name: each.name, about: each.about })),
    ...leaves.map((name) => ({ name, about: "leaf" })),
  ];
  const operators = typed === "" ? [] : OPERATORS.filter((each) => each.insert.startsWith(typed.toUpperCase()));
  return [
    ...ranked(names, typed, (each) => each.name).map((each) => ({
      insert: `${writtenName(each.name)}:`,
      label: each.name,
      about: each.about,
      open: true,
    })),
    ...operators.map((each) => ({ insert: each.insert, label: each.insert.trim(), about: each.about, open: false })),
  ].slice(0, typed === "" ? names.length : OPTIONS_MAX);
}

/** Return the values that every record of this field may have, without asking anybody; null where values must be looked up. */
export function knownValues(field: string, today: string, leaves: string[]): Option[] | null {
  const choices = fieldOf(field)?.choices;
  if (field === "since" || field === "until")
    return TIMES.map((each) => option(each, field === "since" ? "the last" : "before the last"));
  if (field === "occurred_at")
    return [
      option(today, "this day"),
      option(`>=${today}`, "from this day on"),
      option("[now-7d TO now]", "the last 7 days"),
    ];
  if (field === "exists")
    return [...FIELDS.map((each) => each.name), ...leaves].map((each) => option(writtenName(each), "has a value"));
  if (field === "severity")
    return [
      ...(choices ?? []).map((each) => option(each, "")),
      option(">=WARNING", "and worse"),
      option(">=ERROR", "and worse"),
    ];
  return choices ? choices.map((each) => option(each, "")) : null;
}

function option(text: string, about: string): Option {
  return { insert: `${text} `, label: text, about, open: false };
}

/** Return the values that begin with, or hold, what is typed. `counted`: values with the number of their records, if known. */
export function valueOptions(typed: string, counted: { value: string; count: number | null }[]): Option[] {
  const wanted = typed.replace(/^"/, "").replace(/\\(.)/gs, "$1");
  return ranked(counted, wanted, (each) => each.value)
    .slice(0, OPTIONS_MAX)
    .map((each) => ({
      insert: `${writtenValue(each.value)} `,
      label: each.value,
      about: each.count === null ? "" : each.count.toLocaleString("en"),
      open: false,
    }));
}

/** Return the text with a choice in its place, and the caret behind it. */
export function completed(text: string, place: Place, insert: string): { text: string; caret: number } {
  const rest = text.slice(place.to);
  const inserted = /^[\s)]/.test(rest) ? insert.trimEnd() : insert;
  return { text: text.slice(0, place.from) + inserted + rest, caret: place.from + inserted.length };
}
