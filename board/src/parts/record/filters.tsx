/** Include or exclude a value: two buttons beside it, which `f` and `F` press while one of them has the focus. */
import { ActionIcon } from "@mantine/core";
import { ListFilter, ListX } from "lucide-react";
import { createContext, useContext } from "react";
import classes from "./record.module.css";

export type FilterBy = (field: string, value: string, negated: boolean) => void;

/** The filter of the screen; null where a screen has none. */
export const Filters = createContext<FilterBy | null>(null);

export function FilterButtons({ field, value }: { field: string; value: string }) {
  const filterBy = useContext(Filters);
  if (!filterBy || value === "") return null;
  const facts = { "data-field": field, "data-value": value, size: 24, variant: "subtle", color: "gray" } as const;
  return (
    <span className={classes.tools}>
      <ActionIcon
        {...facts}
        aria-label={`Only ${field} ${value}`}
        title="Only this (f)"
        onClick={() => filterBy(field, value, false)}
      >
        <ListFilter size={13} />
      </ActionIcon>
      <ActionIcon
        {...facts}
        aria-label={`Without ${field} ${value}`}
        title="Without this (F)"
        onClick={() => filterBy(field, value, true)}
      >
        <ListX size={13} />
      </ActionIcon>
    </span>
  );
}

/** Return the field and the value that have the focus, in facets or in a record. */
export function focusedValue(): { field: string; value: string } | null {
  const at = document.activeElement?.closest<HTMLElement>("[data-field]");
  const { field, value } = at?.dataset ?? {};
  return field !== undefined && value !== undefined ? { field, value } : null;
}
