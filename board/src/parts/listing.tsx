import { VisuallyHidden } from "@mantine/core";
import type { ReactNode } from "react";
import classes from "./listing.module.css";

export interface Column<T> {
  name: string;
  cell: (item: T) => ReactNode;
  /** Numbers stand to the right. */
  numeric?: boolean;
  /** Buttons: the name of the column is read but not drawn. */
  actions?: boolean;
}

/** A short table. On a narrow screen each row is a card; the roles keep it a table for screen readers there. */
export function Listing<T>({
  label,
  columns,
  items,
  keyOf,
  marked,
}: {
  label: string;
  columns: Column<T>[];
  items: T[];
  keyOf: (item: T) => string;
  /** Rows that stand out, such as the one that is chosen. */
  marked?: (item: T) => boolean;
}) {
  return (
    <div className={classes.frame}>
      <table className={classes.table} role="table" aria-label={label}>
        <thead role="rowgroup" className={classes.head}>
          <tr role="row">
            {columns.map((each) => (
              <th key={each.name} role="columnheader" scope="col" data-numeric={each.numeric}>
                {each.actions ? <VisuallyHidden>{each.name}</VisuallyHidden> : each.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {items.map((item) => (
            <tr key={keyOf(item)} role="row" data-marked={marked?.(item) || undefined}>
              {columns.map((each) => (
                <td
                  key={each.name}
                  role="cell"
                  data-label={each.actions ? undefined : each.name}
                  data-numeric={each.numeric}
                >
                  {each.cell(item)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
