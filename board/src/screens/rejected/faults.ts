/** Faults that a refusal names, by the fields of a record. Pure. */
import { Problem } from "../../api/client.ts";
import { parseExactly, prettyJson } from "../../api/json.ts";

/** Return the faults of a refused record, one line each: "actor.id: missing". */
export function faultsOf(error: unknown): string[] {
  const errors = error instanceof Problem ? error.members.errors : null;
  if (!Array.isArray(errors)) return [];
  return errors.flatMap((each: unknown) => {
    if (typeof each !== "object" || each === null) return [];
    const { path, message } = each as Record<string, unknown>;
    if (typeof message !== "string") return [];
    return [typeof path === "string" && path !== "" ? `${path}: ${message}` : message];
  });
}

/** Return kept content with indentation, its numbers with the digits that were sent; a text that is no JSON as it is. */
export function readable(content: string): string {
  try {
    return prettyJson(parseExactly(content));
  } catch {
    return content;
  }
}

/** Return the place where a text stops being JSON, in the words of the browser; null for JSON. */
export function jsonFault(text: string): string | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? null : "A record is a JSON object.";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
