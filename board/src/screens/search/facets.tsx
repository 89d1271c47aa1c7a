/** Facets: the most frequent values of a few fields among the matching records, to include or exclude. */
import { ActionIcon } from "@mantine/core";
import { Ban, ChevronDown, ChevronRight } from "lucide-react";
import { useContext, useState } from "react";
import type { Facet } from "../../api/records.ts";
import { Filters } from "../../parts/record/filters.tsx";
import { FACETS, type Summary } from "./data.ts";
import classes from "./facets.module.css";
import { fieldOfFacet } from "./names.ts";
import { type Clause, standingOf } from "./query-text.ts";

const TITLES: Record<string, string> = {
  action: "Action",
  actor: "Actor",
  resource_type: "Resource type",
  outcome: "Outcome",
  severity: "Severity",
};

export function Facets({ summary, clauses }: { summary: Summary | undefined; clauses: Clause[] | null }) {
  return (
    <div className={classes.panel} role="region" aria-label="Facets" tabIndex={-1}>
      {FACETS.map((name) => (
        <FacetSection key={name} name={name} facet={summary?.facets[name]} clauses={clauses} />
      ))}
    </div>
  );
}

/** `facet`: undefined while it is counted, null where it has too many values. */
function FacetSection({
  name,
  facet,
  clauses,
}: {
  name: string;
  facet: Facet | null | undefined;
  clauses: Clause[] | null;
}) {
  const [open, setOpen] = useState(true);
  const field = fieldOfFacet(name);
  const shown = facet ? withExcluded(facet, field, clauses) : [];
  return (
    <section className={classes.section}>
      <h2 className={classes.name}>
        <button type="button" className={classes.toggle} aria-expanded={open} onClick={() => setOpen(!open)}>
          {open ? <ChevronDown size={13} aria-hidden /> : <ChevronRight size={13} aria-hidden />}
          {TITLES[name]}
        </button>
      </h2>
      {open && (
        <ul className={classes.values}>
          {shown.map((each) => (
            <Value
              key={each.value}
              field={field}
              value={each.value}
              count={each.count}
              standing={standingOf(clauses, field, each.value)}
            />
          ))}
          {facet === null && <li className={classes.rest}>More than 10,000 values. Narrow the search.</li>}
          {facet && facet.other > 0 && <Rest text="Other values" count={facet.other} />}
          {facet && facet.missing > 0 && <Rest text="Without it" count={facet.missing} />}
        </ul>
      )}
    </section>
  );
}

/** Excluded values have no records, and stay in the list to be taken back. */
function withExcluded(
  facet: Facet,
  field: string,
  clauses: Clause[] | null,
): { value: string; count: number | null }[] {
  const known = new Set(facet.values.map((each) => each.value));
  const excluded = (clauses ?? [])
    .filter((each) => each.field === field && each.negated)
    .flatMap((each) => each.values ?? [])
    .filter((each) => !known.has(each));
  return [...facet.values, ...excluded.map((value) => ({ value, count: null }))];
}

function Rest({ text, count }: { text: string; count: number }) {
  return (
    <li className={classes.rest}>
      <span>{text}</span>
      <span>{count.toLocaleString("en")}</span>
    </li>
  );
}

interface ValueProps {
  field: string;
  value: string;
  count: number | null;
  standing: 1 | 0 | -1;
}

function Value({ field, value, count, standing }: ValueProps) {
  const filterBy = useContext(Filters);
  const facts = { "data-field": field, "data-value": value };
  return (
    <li className={`${classes.value} ${standing < 0 ? classes.excluded : ""}`}>
      <button
        type="button"
        {...facts}
        className={`${classes.include} ${standing > 0 ? classes.included : ""}`}
        aria-pressed={standing > 0}
        title={`${field}: ${value}`}
        onClick={() => filterBy?.(field, value, false)}
      >
        <span className={classes.text}>{value}</span>
        {count !== null && <span className={classes.count}>{count.toLocaleString("en")}</span>}
      </button>
      <ActionIcon
        {...facts}
        variant="subtle"
        color="gray"
        className={classes.exclude}
        aria-label={standing < 0 ? `Do not exclude ${value}` : `Exclude ${value}`}
        aria-pressed={standing < 0}
        title="Exclude (F)"
        onClick={() => filterBy?.(field, value, true)}
      >
        <Ban size={13} />
      </ActionIcon>
    </li>
  );
}
