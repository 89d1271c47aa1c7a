/** How long keys live, and what a list says about it. */
import type { ApiKey } from "../../api/api-keys.ts";
import type { Tone } from "../../parts/state.tsx";
import { agoText } from "../../parts/time.tsx";

const DAY = 86_400;

/** Lifetimes to choose from, by their seconds; the empty one has no end. */
export const LIFETIMES = [
  { value: String(30 * DAY), label: "30 days" },
  { value: String(90 * DAY), label: "90 days" },
  { value: String(365 * DAY), label: "1 year" },
  { value: "", label: "No end" },
];

/** Keys that end within this time are pointed out. */
const SOON_MILLISECONDS = 7 * DAY * 1_000;

export function stateOf(key: ApiKey, now: number): { tone: Tone; text: string } {
  if (key.revoked_at !== null) return { tone: "quiet", text: "Revoked" };
  if (key.expires_at === null) return { tone: "good", text: "In force" };
  const left = new Date(key.expires_at).getTime() - now;
  if (left <= 0) return { tone: "quiet", text: "Expired" };
  return left <= SOON_MILLISECONDS
    ? { tone: "warn", text: `Ends ${agoText(key.expires_at, now)}` }
    : { tone: "good", text: "In force" };
}

export function isInForce(key: ApiKey, now: number): boolean {
  return key.revoked_at === null && (key.expires_at === null || new Date(key.expires_at).getTime() > now);
}

/** Return when a key ends or ended, in words. */
export function endText(key: ApiKey, now: number): string {
  if (key.revoked_at !== null) return `revoked ${agoText(key.revoked_at, now)}`;
  return key.expires_at === null ? "no end" : agoText(key.expires_at, now);
}

/** Return the maker of a key as people read it: "api_key::0f3a" is "key 0f3a". */
export function makerText(key: ApiKey): string {
  if (key.source === "provisioned") return "Provisioning";
  const maker = key.created_by ?? "unknown";
  return maker.startsWith("api_key::") ? `key ${maker.slice(9)}` : maker.replace(/^jwt:/, "");
}

/** Return a command that works when it is pasted into a shell: it stores a record, or lists them. */
export function curlText(origin: string, role: ApiKey["role"], key: string): string {
  const head = `curl -s ${origin}/api/v1/logs -H 'Authorization: Bearer ${key}'`;
  if (role === "auditor") return head;
  const body = '{"action": "document.create", "actor": {"id": "alice"}}';
  return `${head} -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}
