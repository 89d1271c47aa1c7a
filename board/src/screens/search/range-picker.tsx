/** The range of time in which events occurred: a relative one, or two ends on the clock of a zone. */
import { Button, Popover, Select, Text, TextInput } from "@mantine/core";
import { CalendarClock } from "lucide-react";
import { useMemo, useState } from "react";
import { timeText } from "../../parts/time.tsx";
import { chooseZone, useZone } from "../../preferences.ts";
import { instantOf, PRESETS, parseRange, type Range, rangeText, wallOf, writtenRange } from "./range.ts";
import classes from "./range-picker.module.css";

interface Props {
  range: Range;
  onRange: (range: Range) => void;
}

export function RangePicker({ range, onRange }: Props) {
  const zone = useZone();
  const [open, setOpen] = useState(false);
  const text = rangeText(range, (each) => timeText(each, zone).slice(0, 16));
  const choose = (next: Range) => {
    setOpen(false);
    onRange(next);
  };
  return (
    <Popover opened={open} onChange={setOpen} position="bottom-end" shadow="md" trapFocus returnFocus>
      <Popover.Target>
        <Button
          variant="default"
          h={36}
          leftSection={<CalendarClock size={16} aria-hidden />}
          aria-label={`Time range: ${text}`}
          onClick={() => setOpen(!open)}
        >
          {text}
        </Button>
      </Popover.Target>
      <Popover.Dropdown aria-label="Time range">
        <div className={classes.panel}>
          <Presets range={range} onChoose={choose} />
          <Ends key={`${writtenRange(range)} ${zone}`} range={range} zone={zone} onChoose={choose} />
          <ZoneChoice zone={zone} />
          <Text size="xs" className={classes.note}>
            Ranges are of the time of the event. Records are sorted by it, or by their receipt.
          </Text>
        </div>
      </Popover.Dropdown>
    </Popover>
  );
}

function Presets({ range, onChoose }: { range: Range; onChoose: (range: Range) => void }) {
  const now = writtenRange(range);
  return (
    <div className={classes.presets}>
      {PRESETS.map((each) => {
        const preset = parseRange(each);
        return (
          preset && (
            <Button
              key={each}
              size="compact-sm"
              variant={each === now ? "filled" : "default"}
              aria-pressed={each === now}
              onClick={() => onChoose(preset)}
            >
              {rangeText(preset, String)}
            </Button>
          )
        );
      })}
    </div>
  );
}

function wallOrEmpty(instant: string | null, zone: string): string {
  return instant === null ? "" : wallOf(Date.parse(instant), zone);
}

function Ends({ range, zone, onChoose }: { range: Range; zone: string; onChoose: (range: Range) => void }) {
  const between = range.kind === "between" ? range : { from: null, to: null };
  const [from, setFrom] = useState(wallOrEmpty(between.from, zone));
  const [to, setTo] = useState(wallOrEmpty(between.to, zone));
  const [refused, setRefused] = useState(false);
  function apply() {
    const ends = [from, to].map((each) => (each === "" ? "" : instantOf(each, zone)));
    const next = ends.includes(null) ? null : parseRange(ends.join(".."));
    if (next === null) setRefused(true);
    else onChoose(next);
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        apply();
      }}
    >
      <TextInput
        label="From"
        type="datetime-local"
        step={1}
        size="xs"
        value={from}
        onChange={(event) => setFrom(event.target.value)}
      />
      <TextInput
        label="To (not included)"
        type="datetime-local"
        step={1}
        size="xs"
        mt={6}
        value={to}
        onChange={(event) => setTo(event.target.value)}
        error={refused ? "Give one end at least, and the start before the end." : undefined}
      />
      <Button type="submit" size="xs" mt={8} fullWidth variant="light">
        Use these times
      </Button>
    </form>
  );
}

function ZoneChoice({ zone }: { zone: string }) {
  const zones = useMemo(() => [...new Set(["UTC", zone, ...Intl.supportedValuesOf("timeZone")])], [zone]);
  return (
    <Select
      label="Time zone"
      size="xs"
      data={zones}
      value={zone}
      searchable
      allowDeselect={false}
      limit={60}
      comboboxProps={{ withinPortal: false }}
      onChange={(next) => next && chooseZone(next)}
    />
  );
}
