/** A refused query: the place of the fault in the text, and the text that was probably meant. */
import type { Problem } from "../../api/client.ts";

export interface Fault {
  /** Indices in the text, of UTF-16 units. */
  from: number;
  to: number;
  message: string;
  suggestion: string | null;
}

/** Return the fault that a problem names. The API counts characters as Unicode code points, from 1. */
export function faultOf(problem: Problem, text: string): Fault {
  const { column, length, suggestion } = problem.members;
  const characters = [...text];
  const first = typeof column === "number" ? column - 1 : 0;
  const size = typeof length === "number" ? length : characters.length;
  const [line = problem.message] = problem.message.split("\n");
  return {
    from: characters.slice(0, first).join("").length,
    to: characters.slice(0, first + size).join("").length,
    message: line.replace(/^q: /, "").replace(/ Did you mean `.*`\?$/, ""),
    suggestion: typeof suggestion === "string" ? suggestion : null,
  };
}

/** Return the text with the suggestion in the place of the fault. */
export function mended(text: string, fault: Fault): string {
  return text.slice(0, fault.from) + (fault.suggestion ?? "") + text.slice(fault.to);
}
