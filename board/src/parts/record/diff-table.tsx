import { type Change, type Diff, diffOf } from "../../api/diff.ts";
import { hasMembers, type Json, prettyJson, scalarText } from "../../api/json.ts";
import classes from "./record.module.css";

/** Changes between `before` and `after` of a record. */
export function DiffTable({ before, after }: { before: Json | undefined; after: Json | undefined }) {
  const diff = diffOf(before, after);
  return (
    <>
      {diff.changes.length > 0 && (
        <table className={classes.diff} aria-label="Before and after">
          <thead>
            <tr>
              <th scope="col">Member</th>
              <th scope="col">Before</th>
              <th scope="col">After</th>
            </tr>
          </thead>
          <tbody>
            {diff.changes.map((each) => (
              <Row key={JSON.stringify(each.path)} change={each} />
            ))}
          </tbody>
        </table>
      )}
      <p className={classes.note}>{summaryOf(diff)}</p>
    </>
  );
}

function Row({ change }: { change: Change }) {
  return (
    <tr>
      <td>{change.path.join(".") || "(whole)"}</td>
      <td>{change.before !== undefined && <del>{written(change.before)}</del>}</td>
      <td>{change.after !== undefined && <ins>{written(change.after)}</ins>}</td>
    </tr>
  );
}

function written(value: Json): string {
  return hasMembers(value) ? prettyJson(value) : scalarText(value);
}

function summaryOf(diff: Diff): string {
  const same = diff.same === 1 ? "1 member is the same." : `${diff.same} members are the same.`;
  if (diff.changes.length === 0) return `Before and after are equal: ${same}`;
  return diff.more
    ? `The first ${diff.changes.length} changes. The raw record has all. ${same}`
    : diff.same > 0
      ? same
      : "";
}
