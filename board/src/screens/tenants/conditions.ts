/** The conditions of a tenant in one word. */
import type { Condition, Tenant } from "../../api/tenants.ts";
import type { Tone } from "../../parts/state.tsx";

/** Conditions that are good while they are False. */
const INVERTED = new Set(["QuotaExceeded", "Stalled", "Deleting"]);
const ORDER = ["Ready", "Synced", "DatabaseReady", "SearchReady", "QueueReady", "ArchiveReady", "CredentialsReady"];

export function toneOf(condition: Condition): Tone {
  if (condition.status === "Unknown") return "quiet";
  return (condition.status === "True") !== INVERTED.has(condition.type) ? "good" : "bad";
}

/** Return the conditions with the summary first, then in the order of the documentation. */
export function sorted(conditions: Condition[]): Condition[] {
  const place = (each: Condition) => {
    const found = ORDER.indexOf(each.type);
    return found < 0 ? ORDER.length : found;
  };
  return [...conditions].sort((a, b) => place(a) - place(b) || a.type.localeCompare(b.type));
}

/** Return the state of a tenant as people say it. A state that stops requests comes first. */
export function stateOf(tenant: Tenant): { tone: Tone; text: string } {
  if (tenant.state === "deleted") return { tone: "quiet", text: "Deleted" };
  if (tenant.state === "suspended") return { tone: "warn", text: "Suspended" };
  const ready = tenant.conditions.find((each) => each.type === "Ready");
  if (!ready || ready.status === "Unknown") return { tone: "quiet", text: "Not seen yet" };
  if (ready.status === "False") return { tone: "bad", text: "Not ready" };
  if (ready.observedGeneration < tenant.generation) return { tone: "warn", text: "Changing" };
  const exceeded = tenant.conditions.some((each) => each.type === "QuotaExceeded" && each.status === "True");
  return exceeded ? { tone: "warn", text: "Over its quota" } : { tone: "good", text: "Ready" };
}

/** Return the leaves of a spec as lines: dotted path and value, for a list that is read. */
export function leaves(value: unknown, path = ""): [string, string][] {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([key, each]) => leaves(each, path ? `${path}.${key}` : key));
  }
  return [[path, typeof value === "string" ? value : JSON.stringify(value)]];
}
