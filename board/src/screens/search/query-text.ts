/** Edit the text of a query: find its clauses, add one, take one away. The text stays the truth; nothing here decides what it finds. */
import { canonicalName, hasSeveralValues } from "./names.ts";

export type TokenKind = "field" | "value" | "word" | "operator" | "bracket" | "blank";

export interface Token {
  kind: TokenKind;
  start: number;
  end: number;
}

const PARTS = /\s+|"(?:[^"\\]|\\.)*"?|[()[\]{}]|(?:[^\s"()[\]{}\\]|\\.?)+/gsy;
const FIELD = /^-?((?:[^\s"()[\]{}:\\<>=]|\\.)+):/s;
const PLAIN = /^[\w./@+-]+$/;
const RESERVED = new Set(["and", "or", "not", "to"]);
const SPECIAL = /[\s"()[\]{}:\\*?<>=\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019\u201a]/g;

/** Split a text, also an unfinished one, into parts that cover it whole. */
export function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  PARTS.lastIndex = 0;
  for (let found = PARTS.exec(text); found; found = PARTS.exec(text)) {
    const start = found.index;
    const part = found[0];
    const before = tokens.at(-1);
    const afterField = before?.kind === "field" && before.end === start;
    const field = afterField ? null : FIELD.exec(part);
    if (field) {
      tokens.push({ kind: "field", start, end: start + field[0].length });
      if (part.length > field[0].length)
        tokens.push({ kind: "value", start: start + field[0].length, end: start + part.length });
    } else {
      tokens.push({
        kind: afterField && !/^[()[\]{}]$/.test(part) ? "value" : kindOf(part),
        start,
        end: start + part.length,
      });
    }
  }
  return tokens;
}

function kindOf(part: string): TokenKind {
  if (/^\s/.test(part)) return "blank";
  if (/^[()[\]{}]$/.test(part)) return "bracket";
  if (/^(AND|OR|NOT|TO)$/.test(part)) return "operator";
  return "word";
}

/** One condition at the top of a query, between blanks. */
export interface Clause {
  start: number;
  end: number;
  text: string;
  negated: boolean;
  /** One name of the field; null for words, phrases and groups. */
  field: string | null;
  /** Values where the condition names them exactly, one or several in `(a OR b)`; null for ranges, patterns and groups. */
  values: string[] | null;
}

/** Return the clauses that must all hold. Null where an OR stands between clauses, so that no clause can be taken alone. */
export function clausesOf(text: string): Clause[] | null {
  const spans: [number, number][] = [];
  let depth = 0;
  let joined = false;
  for (const token of tokensOf(text)) {
    const part = text.slice(token.start, token.end);
    if (token.kind === "blank" && depth === 0) {
      joined = joined && isNegation(text, spans.at(-1));
      continue;
    }
    if (depth === 0 && token.kind === "operator") {
      if (part === "OR") return null;
      if (part === "AND") {
        joined = false;
        continue;
      }
    }
    const last = spans.at(-1);
    if (joined && last) last[1] = token.end;
    else spans.push([token.start, token.end]);
    joined = true;
    if (token.kind === "bracket") depth = Math.max(0, depth + (/[([{]/.test(part) ? 1 : -1));
  }
  return spans.map(([start, end]) => clauseOf(text, start, end));
}

/** `NOT` belongs to what follows it. */
function isNegation(text: string, span: [number, number] | undefined): boolean {
  return span !== undefined && /(^|[\s(])NOT$/.test(text.slice(...span));
}

function clauseOf(whole: string, start: number, end: number): Clause {
  const text = whole.slice(start, end);
  const bare = text.replace(/^(?:NOT\s+|-)/, "");
  const field = FIELD.exec(bare);
  const name = field?.[1] === undefined ? null : canonicalName(unescaped(field[1]));
  return {
    start,
    end,
    text,
    negated: bare !== text,
    field: name,
    values: field ? valuesOf(bare.slice(field[0].length)) : null,
  };
}

function valuesOf(text: string): string[] | null {
  const inner = /^\((.*)\)$/s.exec(text)?.[1];
  const parts = (inner ?? text).trim().split(inner === undefined ? /$^/ : /\s+OR\s+/);
  const values = parts.map(exactValue);
  return values.every((each) => each !== null) ? values : null;
}

function exactValue(text: string): string | null {
  if (/^"(?:[^"\\]|\\.)*"$/s.test(text)) return unescaped(text.slice(1, -1));
  if (text === "" || /[\s"()[\]{}]/.test(text.replace(/\\./gs, "")) || /^[<>=]/.test(text)) return null;
  return /[*?]/.test(text.replace(/\\./gs, "")) ? null : unescaped(text);
}

function unescaped(text: string): string {
  return text.replace(/\\(.)/gs, "$1");
}

/** Return a value as a query writes it: in quotes unless it is plain. */
export function writtenValue(value: string): string {
  if (PLAIN.test(value) && !value.startsWith("-") && !RESERVED.has(value.toLowerCase())) return value;
  return `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** Return the path of a leaf as a query writes it. */
export function writtenName(name: string): string {
  return name.replace(SPECIAL, "\\$&");
}

function writtenClause(field: string, values: string[], negated: boolean): string {
  const [only] = values;
  const condition =
    values.length === 1 && only !== undefined ? writtenValue(only) : `(${values.map(writtenValue).join(" OR ")})`;
  return `${negated ? "-" : ""}${writtenName(field)}:${condition}`;
}

/** Return whether a clause of the query includes (1) or excludes (-1) exactly this value, or neither (0). */
export function standingOf(clauses: Clause[] | null, field: string, value: string): 1 | 0 | -1 {
  const found = clauses?.find((each) => each.field === field && each.values?.includes(value));
  return found ? (found.negated ? -1 : 1) : 0;
}

/**
 * Return the query that also demands, or excludes, this value. A value that stands there already is taken away again, and the
 * opposite condition gives way. A second value of a field with one value is an alternative to the first.
 */
export function withValue(text: string, field: string, value: string, negated: boolean): string {
  const clauses = clausesOf(text);
  if (clauses === null) return `(${text.trim()}) ${writtenClause(field, [value], negated)}`;
  const standing = standingOf(clauses, field, value);
  const rest = standing === 0 ? text : withoutValue(text, field, value);
  if (standing === (negated ? -1 : 1)) return rest;
  const open = hasSeveralValues(field)
    ? undefined
    : clausesOf(rest)?.find((each) => each.field === field && each.negated === negated && each.values !== null);
  if (open?.values) return replaced(rest, open, writtenClause(field, [...open.values, value], negated));
  return `${rest.trim()} ${writtenClause(field, [value], negated)}`.trim();
}

/** Return the query without this value: without its clause, or with the other values of the clause. */
export function withoutValue(text: string, field: string, value: string): string {
  const clause = clausesOf(text)?.find((each) => each.field === field && each.values?.includes(value));
  if (!clause?.values) return text;
  const others = clause.values.filter((each) => each !== value);
  return others.length === 0
    ? withoutClause(text, clause)
    : replaced(text, clause, writtenClause(field, others, clause.negated));
}

/** Return the query without one of its clauses. */
export function withoutClause(text: string, clause: Clause): string {
  const before = text.slice(0, clause.start).replace(/(\s|^)AND\s*$/, "$1");
  const after = text.slice(clause.end).replace(before.trim() === "" ? /^\s*AND(?=\s|$)/ : /$^/, "");
  return `${before.trimEnd()} ${after.trimStart()}`.trim();
}

/** Return the query with one of its clauses turned into its opposite. */
export function withOpposite(text: string, clause: Clause): string {
  return replaced(text, clause, clause.negated ? clause.text.replace(/^(?:NOT\s+|-)/, "") : `-${clause.text}`);
}

function replaced(text: string, clause: Clause, by: string): string {
  return text.slice(0, clause.start) + by + text.slice(clause.end);
}
