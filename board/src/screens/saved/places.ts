/** A saved search as Search opens it, and the one that Search saves. Pure. */
import type { Parameters, SavedSearch } from "../../api/searches.ts";
import { FIELDS } from "../../generated/fields.ts";
import { liveHref, searchHref } from "../../parts/places.ts";
import { writtenName, writtenValue } from "../search/query-text.ts";
import type { Range } from "../search/range.ts";

/** Parameters that are no condition of the query. */
const BESIDE = new Set(["q", "from", "to", "sort", "order", "log"]);
const BY_PARAMETER = new Map(FIELDS.map((each) => [each.parameter, each]));

function valuesOf(value: string | string[] | undefined): string[] {
  return value === undefined ? [] : Array.isArray(value) ? value : [value];
}

/** Return a filter as a clause of the query language, which means the same. */
function clauseOf(parameter: string, values: string[]): string {
  const field = BY_PARAMETER.get(parameter);
  const name = field ? field.path : writtenName(parameter);
  const written = values.map((value) =>
    field?.prefixes && value.endsWith("*") ? `${writtenName(value.slice(0, -1))}*` : writtenValue(value),
  );
  return `${name}:${written.length === 1 ? written[0] : `(${written.join(" OR ")})`}`;
}

/** Return the query of a saved search: its `q`, and its other filters as clauses. */
export function queryOf(parameters: Parameters): string {
  const q = valuesOf(parameters.q).join(" ");
  const clauses = Object.entries(parameters)
    .filter(([name]) => !BESIDE.has(name))
    .map(([name, value]) => clauseOf(name, valuesOf(value)));
  if (clauses.length === 0) return q;
  return [...(q ? [`(${q})`] : []), ...clauses].join(" ");
}

function sortOf(parameters: Parameters): string | null {
  const [sort = null] = valuesOf(parameters.sort);
  const [order] = valuesOf(parameters.order);
  if (sort === null) return order === "asc" ? "received_at" : null;
  return sort.startsWith("-") || order !== "desc" ? sort : `-${sort}`;
}

/** Return the address that opens a saved search. */
export function hrefOf({ parameters }: Pick<SavedSearch, "parameters">): string {
  const q = queryOf(parameters) || null;
  if (parameters.log === "access") return liveHref({ q, log: "access" });
  const [from = ""] = valuesOf(parameters.from);
  const [to = ""] = valuesOf(parameters.to);
  return searchHref({ q, range: from || to ? `${from}..${to}` : "all", sort: sortOf(parameters) });
}

/** Return the parameters that save a view. A relative range stays relative: it becomes a condition of the query. */
export function parametersOf(view: { q: string; range: Range; sort: string }): Parameters {
  const relative = view.range.kind === "last" ? `since:${view.range.amount}${view.range.unit}` : "";
  const query = view.q.trim();
  const q = relative && query ? `(${query}) ${relative}` : query || relative;
  const between = view.range.kind === "between" ? view.range : { from: null, to: null };
  return {
    ...(q ? { q } : {}),
    ...(between.from ? { from: between.from } : {}),
    ...(between.to ? { to: between.to } : {}),
    ...(view.sort === "-received_at" ? {} : { sort: view.sort }),
  };
}

/** Return parameters as one line for people. */
export function describe(parameters: Parameters): string {
  const [from] = valuesOf(parameters.from);
  const [to] = valuesOf(parameters.to);
  const parts = [queryOf(parameters) || "All records"];
  if (parameters.log === "access") parts.push("in the access log");
  if (from) parts.push(`from ${from}`);
  if (to) parts.push(`until ${to}`);
  const sort = sortOf(parameters);
  if (sort) parts.push(`sorted by ${sort}`);
  return parts.join(", ");
}
