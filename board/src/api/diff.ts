/** Compare what a record has as `before` and `after`, member by member. */
import { ExactNumber, hasMembers, type Json } from "./json.ts";

export interface Change {
  path: string[];
  kind: "added" | "removed" | "changed";
  before?: Json;
  after?: Json;
}

export interface Diff {
  changes: Change[];
  /** Leaves that are equal. */
  same: number;
  /** True if there are more changes than are named. */
  more: boolean;
}

const CHANGES_MAX = 500;

function isEqual(one: Json, other: Json): boolean {
  if (one instanceof ExactNumber || other instanceof ExactNumber) {
    return one instanceof ExactNumber && other instanceof ExactNumber && one.text === other.text;
  }
  return one === other;
}

function membersOf(value: Json[] | { [name: string]: Json }): Map<string, Json> {
  return new Map(Array.isArray(value) ? value.map((each, index) => [String(index), each]) : Object.entries(value));
}

/** Return the differences in the order of the members. Undefined is a side that the record does not have. */
export function diffOf(before: Json | undefined, after: Json | undefined): Diff {
  const diff: Diff = { changes: [], same: 0, more: false };
  compare([], before, after, diff);
  return diff;
}

function compare(path: string[], before: Json | undefined, after: Json | undefined, diff: Diff): void {
  if (before !== undefined && after !== undefined) {
    if (hasMembers(before) && hasMembers(after) && Array.isArray(before) === Array.isArray(after)) {
      compareMembers(path, membersOf(before), membersOf(after), diff);
    } else if (isEqual(before, after)) diff.same += 1;
    else note(diff, { path, kind: "changed", before, after });
  } else if (after !== undefined) note(diff, { path, kind: "added", after });
  else if (before !== undefined) note(diff, { path, kind: "removed", before });
}

function compareMembers(path: string[], before: Map<string, Json>, after: Map<string, Json>, diff: Diff): void {
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    compare([...path, name], before.get(name), after.get(name), diff);
  }
}

function note(diff: Diff, change: Change): void {
  if (diff.changes.length < CHANGES_MAX) diff.changes.push(change);
  else diff.more = true;
}
