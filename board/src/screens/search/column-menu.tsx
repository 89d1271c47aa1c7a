/** Choose the columns of the table. */
import { Button, Checkbox, Popover, TextInput } from "@mantine/core";
import { Columns3 } from "lucide-react";
import { useState } from "react";
import classes from "./column-menu.module.css";
import { ALL_COLUMNS, columnOf, DEFAULT_COLUMNS, isColumn } from "./columns.ts";
import { ordered } from "./view.ts";

interface Props {
  columns: string[];
  leaves: string[];
  onColumns: (columns: string[]) => void;
}

export function ColumnMenu({ columns, leaves, onColumns }: Props) {
  const [leaf, setLeaf] = useState("");
  const others = columns.filter((each) => !ALL_COLUMNS.includes(each));
  const toggle = (name: string) => {
    const next = columns.includes(name) ? columns.filter((each) => each !== name) : ordered([...columns, name]);
    if (next.length > 0) onColumns(next);
  };
  return (
    <Popover position="bottom-end" shadow="md" trapFocus returnFocus>
      <Popover.Target>
        <Button
          size="compact-sm"
          variant="subtle"
          color="gray"
          className={classes.tool}
          leftSection={<Columns3 size={14} aria-hidden />}
        >
          Columns
        </Button>
      </Popover.Target>
      <Popover.Dropdown aria-label="Columns">
        <div className={classes.panel}>
          {[...ALL_COLUMNS, ...others].map((each) => (
            <Checkbox
              key={each}
              size="xs"
              label={columnOf(each).title}
              checked={columns.includes(each)}
              onChange={() => toggle(each)}
            />
          ))}
        </div>
        <form
          className={classes.leaf}
          onSubmit={(event) => {
            event.preventDefault();
            if (isColumn(leaf)) {
              onColumns(ordered([...new Set([...columns, leaf])]));
              setLeaf("");
            }
          }}
        >
          <TextInput
            size="xs"
            label="Leaf of metadata, before or after"
            placeholder="metadata.reason"
            list="decklog-leaves"
            value={leaf}
            onChange={(event) => setLeaf(event.target.value.trim())}
          />
          <datalist id="decklog-leaves">
            {leaves.map((each) => (
              <option key={each} value={each} />
            ))}
          </datalist>
          <Button type="submit" size="xs" variant="light" disabled={!isColumn(leaf)}>
            Add
          </Button>
        </form>
        <Button size="compact-xs" variant="subtle" onClick={() => onColumns(DEFAULT_COLUMNS)}>
          Usual columns
        </Button>
      </Popover.Dropdown>
    </Popover>
  );
}
