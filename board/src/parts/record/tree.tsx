/** JSON of a record as a tree of leaves, each of which can be filtered by. */
import { hasMembers, type Json, scalarText } from "../../api/json.ts";
import { FilterButtons } from "./filters.tsx";
import { RecordText } from "./marks.tsx";
import classes from "./record.module.css";

const OPEN_DEPTH = 2;
const MEMBERS_MAX = 300;

function membersOf(value: Json[] | { [name: string]: Json }): [string, Json][] {
  return Array.isArray(value) ? value.map((each, index) => [String(index), each]) : Object.entries(value);
}

interface TreeProps {
  value: Json;
  /** Name of the value in queries. Elements of a list have the name of the list. */
  path: string;
  /** Place of the value, with the indices of elements. */
  place?: string;
  depth?: number;
}

export function Tree({ value, path, place = path, depth = 0 }: TreeProps) {
  if (!hasMembers(value)) return <Leaf name="" value={value} path={path} place={place} />;
  const members = membersOf(value);
  const list = Array.isArray(value);
  return (
    <ul className={classes.leaves}>
      {members.slice(0, MEMBERS_MAX).map(([name, each]) => {
        const below = list ? path : `${path}.${name}`;
        const at = `${place}.${name}`;
        return (
          <li key={name}>
            {hasMembers(each) && membersOf(each).length > 0 ? (
              <details className={classes.branch} open={depth < OPEN_DEPTH}>
                <summary>
                  <span className={classes.name}>{name}</span>{" "}
                  <span className={classes.quiet}>
                    {Array.isArray(each) ? `[${each.length}]` : `{${Object.keys(each).length}}`}
                  </span>
                </summary>
                <Tree value={each} path={below} place={at} depth={depth + 1} />
              </details>
            ) : (
              <Leaf name={name} value={each} path={below} place={at} />
            )}
          </li>
        );
      })}
      {members.length > MEMBERS_MAX && (
        <li className={classes.quiet}>{members.length - MEMBERS_MAX} more stand in the raw record.</li>
      )}
    </ul>
  );
}

function Leaf({ name, value, path, place }: { name: string; value: Json; path: string; place: string }) {
  const empty = hasMembers(value) || value === null || value === "";
  const text = hasMembers(value) ? (Array.isArray(value) ? "[]" : "{}") : value === "" ? '""' : scalarText(value);
  return (
    <div className={classes.value}>
      {name && <span className={classes.name}>{name}</span>}
      <span className={`${classes.text} ${classes.leaf} ${empty ? classes.quiet : ""}`}>
        <RecordText name={place} text={text} />
      </span>
      {!hasMembers(value) && value !== null && <FilterButtons field={path} value={scalarText(value)} />}
    </div>
  );
}
