import { Button, Checkbox, CopyButton, Group, SegmentedControl, TextInput } from "@mantine/core";
import { Check, Copy, Download as DownloadIcon } from "lucide-react";
import { type FormEvent, useRef } from "react";
import { useKey } from "../../keys/keys.tsx";
import { parseRange, writtenRange } from "../search/range.ts";
import { RangePicker } from "../search/range-picker.tsx";
import classes from "./exports.module.css";
import { curlOf, FORMATS, type Form, wantedOf } from "./form.ts";
import { writesFiles } from "./sinks.ts";
import type { Format } from "./splitter.ts";

/** The form of an export, and the same export as a command. */
export function FormPanel({
  form,
  onChange,
  onStart,
}: {
  form: Form;
  onChange: (next: Partial<Form>) => void;
  onStart: () => void;
}) {
  const box = useRef<HTMLInputElement>(null);
  useKey("/", "Edit the query", () => box.current?.focus());
  const command = curlOf(wantedOf(form, Date.now()), location.origin);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    onStart();
  };
  return (
    <form className={classes.form} onSubmit={submit} aria-label="New export">
      <TextInput
        ref={box}
        className={classes.query}
        label="Query"
        placeholder="All records"
        value={form.q}
        onChange={(event) => onChange({ q: event.currentTarget.value })}
        spellCheck={false}
        autoComplete="off"
      />
      <RangePicker
        range={parseRange(form.range) ?? { kind: "all" }}
        onRange={(range) => onChange({ range: writtenRange(range) })}
      />
      <Group className={`${classes.wide} ${classes.choices}`} gap="md">
        <SegmentedControl
          aria-label="Log"
          size="xs"
          data={[
            { value: "events", label: "Events" },
            { value: "access", label: "Access" },
          ]}
          value={form.log}
          onChange={(log) => onChange({ log: log as Form["log"] })}
        />
        <SegmentedControl
          aria-label="Format"
          size="xs"
          data={FORMATS}
          value={form.format}
          onChange={(format) => onChange({ format: format as Format })}
        />
        <Checkbox
          size="xs"
          label="gzip"
          checked={form.gzip}
          onChange={(event) => onChange({ gzip: event.currentTarget.checked })}
        />
        {form.format === "csv" && (
          <Checkbox
            size="xs"
            label="Byte order mark"
            checked={form.bom}
            onChange={(event) => onChange({ bom: event.currentTarget.checked })}
          />
        )}
      </Group>
      {form.format !== "json" && (
        <TextInput
          className={`${classes.wide} ${classes.query}`}
          label="Fields"
          description="Paths, separated by commas; empty for whole records. With seq among them the export continues when the connection breaks."
          placeholder="seq, received_at, action, actor.id, metadata.reason"
          value={form.fields}
          onChange={(event) => onChange({ fields: event.currentTarget.value })}
          spellCheck={false}
          autoComplete="off"
        />
      )}
      <Group className={classes.wide} justify="space-between">
        <span className={classes.hint}>
          {writesFiles()
            ? "The browser asks where to write, and writes the file as it comes."
            : "This browser holds the file in memory until it is complete: at most 256 MiB."}
          {form.format === "csv" && " Cells that a spreadsheet would evaluate begin with an apostrophe."}
        </span>
        <Button type="submit" leftSection={<DownloadIcon size={16} />}>
          Export
        </Button>
      </Group>
      <details className={classes.wide}>
        <summary className={classes.hint}>The same export by curl</summary>
        <Group gap="xs" wrap="nowrap" align="flex-start">
          <code className={classes.command}>{command}</code>
          <CopyButton value={command}>
            {({ copied, copy }) => (
              <Button
                size="compact-xs"
                variant="default"
                leftSection={copied ? <Check size={12} /> : <Copy size={12} />}
                onClick={copy}
              >
                {copied ? "Copied" : "Copy"}
              </Button>
            )}
          </CopyButton>
        </Group>
      </details>
    </form>
  );
}
