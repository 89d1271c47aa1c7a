/** The timeline with its words, and as a table for those who do not see or do not drag. */
import { ActionIcon, Button } from "@mantine/core";
import { ChartColumn, Table2, Undo2 } from "lucide-react";
import { lazy, Suspense, useMemo, useState } from "react";
import { timeText } from "../../parts/time.tsx";
import type { Question, Summary } from "./data.ts";
import { type Bar, barsOf, extentOf, timelineText } from "./timeline.ts";
import classes from "./timeline-chart.module.css";

const TimelineChart = lazy(() => import("./timeline-chart.tsx"));

interface Props {
  summary: Summary;
  question: Question;
  asked: number;
  zone: string;
  onZoom: (from: number, to: number) => void;
  /** Goes back to the range before; null where there is none. */
  onBack: (() => void) | null;
}

export function TimelinePanel({ summary, question, asked, zone, onZoom, onBack }: Props) {
  const [asTable, setAsTable] = useState(false);
  const { counts, scale } = summary;
  const [first, last] = useMemo(
    () => extentOf(question, counts, scale.interval, asked),
    [question, counts, scale, asked],
  );
  const bars = useMemo(() => barsOf(counts, scale, first, last), [counts, scale, first, last]);
  const write = (at: number) => timeText(new Date(at).toISOString(), zone).slice(0, 16);
  const about = timelineText(bars, write);
  return (
    <section aria-label="Timeline" className={classes.panel}>
      <div className={classes.tools}>
        {onBack && (
          <ActionIcon
            size={24}
            variant="subtle"
            color="gray"
            aria-label="Back to the range before"
            title="Back to the range before (z)"
            onClick={onBack}
          >
            <Undo2 size={14} />
          </ActionIcon>
        )}
        <ActionIcon
          size={24}
          variant="subtle"
          color="gray"
          aria-label={asTable ? "Show the timeline as a chart" : "Show the timeline as a table"}
          title={asTable ? "As a chart" : "As a table"}
          onClick={() => setAsTable(!asTable)}
        >
          {asTable ? <ChartColumn size={14} /> : <Table2 size={14} />}
        </ActionIcon>
      </div>
      <div className={classes.content}>
        {asTable ? (
          <BarTable bars={bars} write={write} onZoom={onZoom} />
        ) : (
          <Suspense fallback={<div className={classes.frame} />}>
            <TimelineChart
              bars={bars}
              first={first}
              last={last}
              zone={zone}
              about={about}
              write={write}
              onZoom={onZoom}
              onBack={() => onBack?.()}
            />
          </Suspense>
        )}
      </div>
    </section>
  );
}

function BarTable({ bars, write, onZoom }: { bars: Bar[]; write: (at: number) => string; onZoom: Props["onZoom"] }) {
  const filled = bars.filter((each) => each.count > 0);
  return (
    <div className={classes.scroll} tabIndex={0} role="region" aria-label="Records by time">
      <table className={classes.table}>
        <thead>
          <tr>
            <th scope="col">From</th>
            <th scope="col">Records</th>
            <th scope="col">Failed</th>
            <th scope="col">Denied</th>
            <th scope="col">Range</th>
          </tr>
        </thead>
        <tbody>
          {filled.map((each) => (
            <tr key={each.from}>
              <td>{write(each.from)}</td>
              <td>{each.count.toLocaleString("en")}</td>
              <td>{each.failure || ""}</td>
              <td>{each.denied || ""}</td>
              <td>
                <Button
                  size="compact-xs"
                  variant="subtle"
                  aria-label={`Only from ${write(each.from)}`}
                  onClick={() => onZoom(each.from, each.to)}
                >
                  Only this
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
