/** One sentence for each kind of access record: who did what to which records, and how it ended. Pure. */
import type { LogRecord } from "../../api/records.ts";

/** A part of a sentence: plain text, a value that is drawn as code, or a time. */
export type Part = string | { code: string } | { time: string };

type Details = Record<string, unknown>;
type Tell = (record: LogRecord, details: Details) => Part[];

const numbers = new Intl.NumberFormat("en");

function detailsOf(record: LogRecord): Details {
  const { metadata } = record;
  return typeof metadata === "object" && metadata !== null && !Array.isArray(metadata) ? (metadata as Details) : {};
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : typeof value === "number" ? String(value) : null;
}

function count(value: unknown, one: string, many = `${one}s`): string {
  const number = typeof value === "number" ? value : 0;
  return `${numbers.format(number)} ${number === 1 ? one : many}`;
}

function listed(value: unknown): string[] {
  return Array.isArray(value) ? value.flatMap((each) => text(each) ?? []) : [];
}

function code(value: unknown, otherwise = "?"): Part {
  return { code: text(value) ?? otherwise };
}

/** Return whether a query has an OR outside of parentheses and quotes. */
function hasOpenOr(query: string): boolean {
  let depth = 0;
  const outside = query.replace(/"(?:\\.|[^"\\])*"/g, '""').replace(/[()]|[^()]+/g, (piece) => {
    depth += piece === "(" ? 1 : piece === ")" ? -1 : 0;
    return depth === 0 ? piece : "";
  });
  return outside.includes(" OR ");
}

/** Return a query without the bounds of time with which the API writes it, as far as these are named beside it. */
function withoutBounds(query: string | null, since: string | null, until: string | null): string | null {
  let rest = query;
  for (const bound of [since && `occurred_at:>=${since}`, until && `occurred_at:<${until}`]) {
    if (!bound || rest === null) continue;
    if (rest === bound) rest = null;
    else if (rest.startsWith(`${bound} AND `)) rest = rest.slice(bound.length + 5);
  }
  return rest !== null && rest !== query && hasOpenOr(rest) ? query : rest;
}

/** The query of an access record as the API describes it. */
export interface Asked {
  /** Without the bounds of time. */
  q: string | null;
  since: string | null;
  until: string | null;
  log: string;
}

/** Return the query that a record of a search, count, export or stream names; null for other records. */
export function askedOf(record: LogRecord): Asked | null {
  const { filter } = detailsOf(record);
  if (typeof filter !== "object" || filter === null) return null;
  const { q, since, until } = filter as Details;
  const [from, to] = [text(since), text(until)];
  return { q: withoutBounds(text(q), from, to), since: from, until: to, log: record.resource?.id ?? "events" };
}

/** Return who acted: the credential, with its role where the record has it. */
export function whoOf(record: LogRecord): Part[] {
  const { actor } = record;
  const role = text(detailsOf(record).role);
  if (actor.type === "decklog") return [actor.id === "provisioning" ? "Provisioning" : `Decklog (${actor.id})`];
  if (actor.type === "others") return ["Further credentials"];
  if (actor.type === "api_key") return [role ? `${capital(role)} key ` : "Key ", { code: actor.id }];
  return [{ code: actor.name ?? actor.id }, ...(role ? [` (${role})`] : [])];
}

function capital(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** Return "`q` between two times in the access log", as far as the record says so. */
function subject(record: LogRecord): Part[] {
  const asked = askedOf(record);
  const parts: Part[] = asked?.q ? [{ code: asked.q }] : ["all records"];
  if (asked?.since && asked.until) parts.push(" from ", { time: asked.since }, " to ", { time: asked.until });
  else if (asked?.since) parts.push(" since ", { time: asked.since });
  else if (asked?.until) parts.push(" before ", { time: asked.until });
  if (record.resource?.id === "access") parts.push(" in the access log");
  return parts;
}

/** Return how a reading ended: what was given, or why nothing more was. */
function ending(details: Details, given: string): Part[] {
  const damaged = listed(details.damaged);
  if (damaged.length > 0) {
    const which =
      damaged.length === 1
        ? `record ${damaged[0]} did not match its digest`
        : `records ${damaged.join(", ")} did not match their digests`;
    return [`: ${which}, so ${given === "" ? "nothing" : `nothing after ${given}`} was given`];
  }
  const why = text(details.code) ?? text(details.reason);
  if (why) return [given ? `: ${given}, then ` : ": ", "it ended with ", { code: why }];
  return given ? [`: ${given}`] : [];
}

function given(details: Details): string {
  return details.records === undefined ? "" : count(details.records, "record");
}

const search: Tell = (record, details) => {
  const failed = details.damaged !== undefined || details.code !== undefined;
  return ["searched ", ...subject(record), ...ending(details, failed ? "" : given(details))];
};

const read: Tell = (_, details) => {
  const found = details.records !== 0;
  const failed = details.damaged !== undefined || details.code !== undefined;
  if (found || failed) return ["read record ", code(details.seq), ...(failed ? ending(details, "") : [])];
  return ["asked for record ", code(details.seq), ", which is not there"];
};

const stats: Tell = (record, details) => {
  const by = listed(details.by).concat(listed(details.facets));
  const groups = by.length > 0 ? ` by ${by.join(", ")}` : "";
  const interval = text(details.interval) ? ` for each ${text(details.interval)}` : "";
  const failed = details.code !== undefined;
  const buckets = failed || details.buckets === undefined ? "" : count(details.buckets, "group");
  return [`counted${groups}${interval} `, ...subject(record), ...ending(details, buckets)];
};

function form(details: Details): string {
  const format = text(details.format);
  const fields = listed(details.fields);
  return `${format ? ` as ${format.toUpperCase()}` : ""}${fields.length > 0 ? ` with ${count(fields.length, "field")}` : ""}`;
}

const exportOpen: Tell = (record, details) => [
  details.code === undefined ? "began to export " : "asked to export ",
  ...subject(record),
  form(details),
  ...(details.code === undefined ? [] : ending(details, "")),
];

const exportClose: Tell = (record, details) => {
  const whole = record.outcome === "success";
  const head = whole ? "exported " : "did not finish an export of ";
  return [head, ...subject(record), form(details), ...ending(details, given(details))];
};

const streamOpen: Tell = (record) => ["began to follow ", ...subject(record)];
const streamClose: Tell = (record, details) => [
  "stopped following ",
  ...subject(record),
  ...ending(details, given(details)),
];

const numbered = (verb: string): Tell => {
  return (record, details) => {
    const missing = record.outcome === "failure" ? ", which is not there" : "";
    const why = text(details.code);
    return [`${verb} rejected record `, code(record.resource?.id), missing, ...(why ? [" (", { code: why }, ")"] : [])];
  };
};

const searchesRead: Tell = (record, details) =>
  record.resource?.id
    ? [
        "opened the saved search ",
        code(record.resource.id),
        ...(record.outcome === "failure" ? [", which is not there"] : []),
      ]
    : [`listed the saved searches: ${count(details.count, "search", "searches")}`];

const conversationsRead: Tell = (record, details) =>
  record.resource?.id && record.resource.type === "conversation"
    ? [
        "read a conversation of their own: ",
        code(record.resource.id),
        ...(record.outcome === "failure" ? [", which is not there"] : []),
      ]
    : [`listed their conversations: ${count(details.count, "conversation")}`];

const refused: Tell = (_, details) => {
  const times = typeof details.count === "number" && details.count > 1 ? ` ${count(details.count, "time")}` : "";
  const since = text(details.since);
  const span: Part[] = since ? [" since ", { time: since }] : [];
  const reason = text(details.reason);
  return [`was refused${times}`, ...span, ": ", code(details.code), ...(reason ? [` (${reason})`] : [])];
};

function lasting(seconds: unknown): string {
  if (typeof seconds !== "number") return "";
  const days = Math.round(seconds / 86_400);
  return ` for ${days >= 1 ? count(days, "day") : count(Math.max(1, Math.round(seconds / 3_600)), "hour")}`;
}

const keysCreate: Tell = (record, details) => {
  const role = text(details.key_role) ?? text(details.role) ?? "";
  const failed = record.outcome === "failure";
  const name = text(details.name);
  return [
    `${failed ? "could not make" : "made"} the ${role} key `,
    code(record.resource?.id),
    ...(name ? [` “${name}”`] : []),
    failed ? "" : lasting(details.expires_in),
    ...(failed ? ending(details, "") : []),
  ];
};

const tenant = (verb: string): Tell => {
  return (record, details) => [
    `${verb} the tenant `,
    code(record.resource?.id),
    ...(details.code === undefined
      ? record.outcome === "failure"
        ? [", which is not there"]
        : []
      : [": it ended with ", code(details.code)]),
  ];
};

const provisioned = (verb: string): Tell => {
  return (record, details) => {
    const actions = listed(details.actions);
    const failed = typeof details.failed === "object" && details.failed !== null ? Object.keys(details.failed) : [];
    const by = listed(details.requestedBy);
    return [
      `${verb} the tenant `,
      code(record.resource?.id),
      ...(actions.length > 0 ? [`: ${actions.join(", ")}`] : []),
      ...(by.length > 0 ? [", requested by ", code(by.join(", "))] : []),
      ...(failed.length > 0 ? [`; failed: ${failed.join(", ")}`] : []),
    ];
  };
};

const session = (verb: string): Tell => {
  return (record) => [`${verb} `, ...(record.resource?.id ? [{ code: record.resource.id }] : [])];
};

/** The sentence of each action, without who and from where. */
const TELL: Record<string, Tell> = {
  "log.search": search,
  "log.read": read,
  "log.stats": stats,
  "log.export.open": exportOpen,
  "log.export.close": exportClose,
  "log.stream.open": streamOpen,
  "log.stream.close": streamClose,
  "rejected.list": (_, details) => [`listed the rejected records: ${given(details) || "0 records"}`],
  "rejected.read": numbered("read the"),
  "rejected.replay": (record, details) => [
    ...numbered("replayed the")(record, {}),
    details.mended === true ? " after mending it" : "",
  ],
  "rejected.delete": numbered("deleted the"),
  "searches.read": searchesRead,
  "searches.save": (record, details) => [
    "saved the search ",
    code(details.name, record.resource?.id ?? "?"),
    details.shared === true ? ", shared with all readers" : "",
  ],
  "searches.delete": (record) => ["deleted the saved search ", code(record.resource?.id)],
  "ask.question": (record, details) => [
    "asked: ",
    code(details.question, "?"),
    ...(record.outcome === "failure" ? [", without an answer"] : [`: ${given(details) || "0 records"}`]),
  ],
  "conversations.read": conversationsRead,
  "conversations.delete": (record) => ["deleted a conversation of their own: ", code(record.resource?.id)],
  "sessions.open": session("signed in to the board: session"),
  "sessions.close": session("signed out of the board: session"),
  "sessions.end": session("ended the session"),
  "sessions.list": (_, details) => [
    details.count === undefined ? "listed the sessions" : `listed the sessions: ${count(details.count, "session")}`,
  ],
  "sessions.link": () => ["made a one-time link that signs in"],
  "retention.read": (record) => [`read until when the ${record.resource?.id ?? "events"} log can be read`],
  "retention.drop": (record, details) => [
    `dropped ${count(details.records, "record")} of the ${record.resource?.id ?? "events"} log beyond retention`,
    ...(typeof details.first_seq === "number" && typeof details.end_seq === "number"
      ? [": ", code(`${details.first_seq} to ${details.end_seq - 1}`)]
      : []),
  ],
  "viewer-token.mint": (record) => ["minted a viewer token for ", ...subject(record)],
  "keys.list": (_, details) => [`listed the keys: ${count(details.count, "key")}`],
  "keys.create": keysCreate,
  "keys.revoke": (record) => [
    record.outcome === "failure" ? "could not revoke the key " : "revoked the key ",
    code(record.resource?.id),
  ],
  "tenants.list": (_, details) => [`listed the tenants: ${count(details.count, "tenant")}`],
  "tenants.read": tenant("read"),
  "tenants.create.open": tenant("asked to create"),
  "tenants.create.close": (record, details) =>
    tenant(record.outcome === "failure" ? "could not create" : details.new === true ? "created" : "completed")(
      record,
      details,
    ),
  "access.refused": refused,
  "tenant.provision": provisioned("changed"),
  "tenant.remove": provisioned("removed"),
  "database.recover": () => ["began a new epoch of every log, because acknowledged records were lost"],
};

/** Return whether this module has a sentence of its own for an action. */
export function isKnown(action: string): boolean {
  return Object.hasOwn(TELL, action);
}

/** Return what a record says, after who: "searched `actor.id:alice`: 12 records". An unknown action is named as it is. */
export function sentenceOf(record: LogRecord): Part[] {
  const tell = isKnown(record.action) ? TELL[record.action] : undefined;
  const parts = tell
    ? tell(record, detailsOf(record))
    : [{ code: record.action }, ...(record.resource?.id ? [" on ", { code: record.resource.id }] : [])];
  return parts.filter((part) => part !== "");
}

export function plain(parts: readonly Part[]): string {
  return parts
    .map((part) => (typeof part === "string" ? part : "time" in part ? part.time : `\`${part.code}\``))
    .join("");
}

export type Concern = "refused" | "damaged" | "failed" | null;

/** Return why a record deserves attention; null where everything went as asked. */
export function concernOf(record: LogRecord): Concern {
  if (record.action === "access.refused" || record.outcome === "denied") return "refused";
  if (detailsOf(record).damaged !== undefined || detailsOf(record).code === "record-damaged") return "damaged";
  return record.outcome === "failure" ? "failed" : null;
}

/** Groups of actions that the screen filters by: a name, and the value of the parameter `action`. */
export const GROUPS: readonly { value: string; label: string }[] = [
  { value: "log.search", label: "Searches" },
  { value: "log.read", label: "Single records" },
  { value: "log.stats", label: "Counts" },
  { value: "log.export.*", label: "Exports" },
  { value: "log.stream.*", label: "Streams" },
  { value: "rejected.*", label: "Rejected records" },
  { value: "searches.*", label: "Saved searches" },
  { value: "ask.*", label: "Questions" },
  { value: "conversations.*", label: "Conversations" },
  { value: "sessions.*", label: "Sessions" },
  { value: "keys.*", label: "Keys" },
  { value: "viewer-token.*", label: "Viewer tokens" },
  { value: "retention.*", label: "Retention" },
  { value: "tenants.*", label: "Tenants" },
  { value: "tenant.*", label: "Provisioning" },
  { value: "database.recover", label: "Recovery" },
  { value: "access.refused", label: "Refused attempts" },
];

/** Return the group of an action; null for one that no group covers. */
export function groupOf(action: string): string | null {
  const found = GROUPS.find(({ value }) =>
    value.endsWith("*") ? action.startsWith(value.slice(0, -1)) : action === value,
  );
  return found?.value ?? null;
}
