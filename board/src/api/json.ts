/** JSON of records. A number that JavaScript would write in another way keeps the digits that were sent. */

/** A number whose digits JavaScript cannot hold, such as 2^70, or would change, such as `1.0`. */
export class ExactNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type Json = null | boolean | number | string | ExactNumber | Json[] | { [name: string]: Json };

const NUMBERS = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
/** No text of a record begins with NUL: the server refuses the character. */
const MARK = "\u0000";

function marked(part: string): string {
  return part.startsWith('"') || String(Number(part)) === part ? part : JSON.stringify(MARK + part);
}

function unmarked(_name: string, value: unknown): unknown {
  return typeof value === "string" && value.startsWith(MARK) ? new ExactNumber(value.slice(1)) : value;
}

/** Parse a text. A number whose digits would change is an `ExactNumber`. */
export function parseExactly(text: string): Json {
  return JSON.parse(text.replace(NUMBERS, marked), unmarked) as Json;
}

/** Return whether a value has members: an object or a list. */
export function hasMembers(value: Json | undefined): value is Json[] | { [name: string]: Json } {
  return typeof value === "object" && value !== null && !(value instanceof ExactNumber);
}

/** Return a scalar as the text that queries compare. */
export function scalarText(value: Json): string {
  return value instanceof ExactNumber ? value.text : typeof value === "string" ? value : String(value);
}

/** Return a value as JSON with an indentation of two blanks. */
export function prettyJson(value: Json, indent = ""): string {
  if (value instanceof ExactNumber) return value.text;
  if (!hasMembers(value)) return JSON.stringify(value);
  const inner = `${indent}  `;
  const members = Array.isArray(value)
    ? value.map((each) => prettyJson(each, inner))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${prettyJson(each, inner)}`);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  return members.length === 0
    ? `${open}${close}`
    : `${open}\n${inner}${members.join(`,\n${inner}`)}\n${indent}${close}`;
}
