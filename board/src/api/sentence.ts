/** Say in one sentence what a record is about. Pure: from the members of the record alone. `decklog show` says the same, and `sentences.json` tests both. */
import type { LogRecord, Outcome, Resource } from "./records.ts";

export interface Part {
  kind: "actor" | "verb" | "resource" | "source" | "outcome" | "plain";
  text: string;
}

/** Verbs of actions whose past is regular. */
const REGULAR = (
  "add allow approve archive assign associate assume attach authenticate authorize block cancel change check clear " +
  "close complete configure confirm connect copy create decline decrypt delete deploy deregister describe detach " +
  "disable disassociate disconnect download edit enable encrypt enroll execute expire export fail finish generate " +
  "grant impersonate import install invite invoke issue join launch link list lock merge modify move open patch " +
  "pause post publish purge push reboot receive register reject release remove rename renew replace request resolve " +
  "restart restore resume retrieve reveal revoke rotate save schedule search seal share sign start stop stream " +
  "submit subscribe suspend sync tag terminate test transfer trigger try uninstall unlink unlock unshare " +
  "unsubscribe untag update upgrade upload use validate verify view watch"
).split(" ");
/** The other verbs, with their past. */
const IRREGULAR: Record<string, string> = {
  begin: "began",
  exec: "executed in",
  get: "read",
  leave: "left",
  login: "logged in to",
  logout: "logged out of",
  lookup: "looked up",
  put: "put",
  read: "read",
  reset: "reset",
  run: "ran",
  send: "sent",
  set: "set",
  signin: "signed in to",
  signout: "signed out of",
  write: "wrote",
};
const DOUBLED = new Set(["tag", "untag", "stop", "submit", "transfer", "permit"]);
const VERBS = new Map([...REGULAR.map((base) => [base, pastOf(base)] as const), ...Object.entries(IRREGULAR)]);
const BASES = new Map([...VERBS].map(([base, past]) => [past, base]));
const OUTCOMES: Record<Outcome, string> = {
  success: "allowed",
  failure: "failed",
  denied: "denied",
  unknown: "outcome unknown",
};

function pastOf(base: string): string {
  if (base.endsWith("e")) return `${base}d`;
  if (/[^aeiou]y$/.test(base)) return `${base.slice(0, -1)}ied`;
  return `${base}${DOUBLED.has(base) ? base.at(-1) : ""}ed`;
}

/** Return the words of a name in any usual spelling: `DeleteParameter`, `delete_parameter`, `delete-parameter`. */
export function wordsOf(name: string): string[] {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replace(/([A-Z]+)([A-Z][a-z])/g, "$1 $2")
    .split(/[\s_-]+/)
    .filter(Boolean)
    .map((word) => (/^[A-Z]{2,}[0-9]*s?$/.test(word) ? word : word.toLowerCase()));
}

interface Deed {
  /** As in "delete"; null where the action is already in the past and its verb is unknown. */
  base: string | null;
  past: string;
  /** The object that the action itself names: "parameter" of DeleteParameter. */
  object: string;
}

/** Return what an action did; null where no verb is known in it. */
export function deedOf(action: string): Deed | null {
  // Kubernetes names a verb and a resource: "create pods/exec".
  const [verb = "", ...objects] = action.split(" ");
  if (objects.length > 0 && VERBS.has(verb)) return deed(verb, objects.join(" "));
  const segments = action.split(/[.:/]+/).filter(Boolean);
  const words = wordsOf(segments.at(-1) ?? "");
  const [first = "", ...rest] = words;
  const last = words.at(-1) ?? "";
  const before = wordsOf(segments.at(-2) ?? "").join(" ");
  const pair = words.length === 2 ? words.join("") : "";
  if (VERBS.has(pair)) return deed(pair, "");
  if (VERBS.has(first.toLowerCase()))
    return deed(first.toLowerCase(), rest.join(" ") || (segments.length === 2 ? singular(before) : ""));
  if (VERBS.has(last)) return deed(last, words.slice(0, -1).join(" "));
  if (/[a-z]ed$/.test(last))
    return { base: BASES.get(last) ?? null, past: last, object: words.slice(0, -1).join(" ") || before };
  return null;
}

/** Signing in is a deed without an object, whatever the action is filed under. */
const OBJECTLESS = new Set(["login", "logout", "signin", "signout"]);
const FILED_UNDER = new Set(["user", "account", "session", "auth"]);

function singular(words: string): string {
  return words.replace(/([^s])s$/, "$1");
}

function deed(base: string, object: string): Deed {
  const none = OBJECTLESS.has(base) && FILED_UNDER.has(object);
  return { base, past: VERBS.get(base) ?? pastOf(base), object: none ? "" : object };
}

/** Return the kind of a resource in words: `AWS::SSM::Parameter` is a parameter. */
function kindOf(resource: Resource): string {
  const last =
    resource.type
      .split(/[.:/]+/)
      .filter(Boolean)
      .at(-1) ?? resource.type;
  return wordsOf(last).join(" ");
}

/** Return the object of the sentence: "parameter ", and the name of the resource. */
function objectOf(object: string, resource: Resource | null | undefined): [string, string] {
  if (!resource) return [object, ""];
  const kind = kindOf(resource);
  const name = resource.name || resource.id || "";
  const same =
    object === "" ||
    object.toLowerCase() === kind.toLowerCase() ||
    singular(object.toLowerCase()) === singular(kind.toLowerCase());
  return [same ? kind : `${object} on ${kind}`, name];
}

/** Return the sentence of a record in parts, whose texts make it whole. */
export function sentenceOf(record: LogRecord): Part[] {
  const found = deedOf(record.action);
  const missed = record.outcome === "denied" || record.outcome === "failure";
  const [object, name] = objectOf(found?.object ?? "", record.resource);
  const verb = verbOf(record.action, found, missed);
  const parts: Part[] = [
    { kind: "actor", text: record.actor.name || record.actor.id },
    { kind: "plain", text: " " },
    { kind: "verb", text: object || name ? verb : verb.replace(/ (to|of|in)$/, "") },
  ];
  const joint = found ? " " : " on ";
  if (object) parts.push({ kind: "plain", text: `${joint}${object}` });
  if (name) parts.push({ kind: "plain", text: object ? " " : joint }, { kind: "resource", text: name });
  if (record.source?.ip) parts.push({ kind: "plain", text: " from " }, { kind: "source", text: record.source.ip });
  parts.push({ kind: "plain", text: ": " }, { kind: "outcome", text: OUTCOMES[record.outcome] ?? record.outcome });
  return parts;
}

/** A deed that was refused was only tried. */
function verbOf(action: string, found: Deed | null, missed: boolean): string {
  if (found === null) return `${missed ? "tried" : "did"} ${action}`;
  if (!missed) return found.past;
  if (found.base === null) return `tried ${action}`;
  const preposition = / (to|of|in)$/.exec(found.past)?.[0] ?? "";
  return `tried to ${SPOKEN[found.base] ?? found.base}${preposition}`;
}

const SPOKEN: Record<string, string> = {
  get: "read",
  login: "log in",
  logout: "log out",
  signin: "sign in",
  signout: "sign out",
  exec: "execute",
  lookup: "look up",
};

export function sentenceText(record: LogRecord): string {
  return sentenceOf(record)
    .map((each) => each.text)
    .join("");
}
