/** The conditions on fields in the query, each of which can be turned or taken away. The text stays the truth. */
import { ActionIcon } from "@mantine/core";
import { X } from "lucide-react";
import classes from "./chips.module.css";
import { type Clause, withOpposite, withoutClause } from "./query-text.ts";

interface Props {
  query: string;
  clauses: Clause[] | null;
  onAsk: (query: string) => void;
}

export function Chips({ query, clauses, onAsk }: Props) {
  const shown = clauses?.filter((each) => each.field !== null) ?? [];
  if (shown.length === 0) return null;
  return (
    <ul className={classes.chips} aria-label="Conditions">
      {shown.map((each) => (
        <li key={each.start} className={`${classes.chip} ${each.negated ? classes.negated : ""}`}>
          <button
            type="button"
            className={classes.text}
            title={each.negated ? "Include it instead" : "Exclude it instead"}
            onClick={() => onAsk(withOpposite(query, each))}
          >
            {each.negated ? "not " : ""}
            {each.text.replace(/^(?:NOT\s+|-)/, "")}
          </button>
          <ActionIcon
            size={24}
            variant="transparent"
            color="gray"
            aria-label={`Remove ${each.text}`}
            onClick={() => onAsk(withoutClause(query, each))}
          >
            <X size={13} />
          </ActionIcon>
        </li>
      ))}
    </ul>
  );
}
