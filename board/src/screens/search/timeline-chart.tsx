/** The timeline: bars of records by time, failed and denied ones on top. A range is chosen by dragging over it. */
import { useComputedColorScheme } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Bar } from "./timeline.ts";
import classes from "./timeline-chart.module.css";

interface Props {
  bars: Bar[];
  first: number;
  last: number;
  zone: string;
  about: string;
  write: (at: number) => string;
  onZoom: (from: number, to: number) => void;
  onBack: () => void;
}

const HEIGHT = 92;
/** Pixels of a drag that is no click. */
const DRAG_LEAST = 5;

export default function TimelineChart(props: Props) {
  const { ref, width } = useElementSize();
  const place = useRef<HTMLDivElement>(null);
  const [hovered, setHovered] = useState<number | null>(null);
  const scheme = useComputedColorScheme("light");
  const latest = useRef(props);
  latest.current = props;
  const { bars, first, last, zone } = props;

  // biome-ignore lint/correctness/useExhaustiveDependencies: another scheme has other colours
  useEffect(() => {
    if (!place.current || width === 0) return;
    const actions = {
      zoom: (from: number, to: number) => latest.current.onZoom(from, to),
      back: () => latest.current.onBack(),
      hover: setHovered,
    };
    const chart = new uPlot(optionsOf(width, first, last, zone, actions), dataOf(bars), place.current);
    return () => chart.destroy();
  }, [width, bars, first, last, zone, scheme]);

  const bar = hovered === null ? undefined : bars[hovered];
  return (
    <div ref={ref} className={classes.frame}>
      {bar && <Readout bar={bar} write={props.write} />}
      <div ref={place} role="img" aria-label={`Timeline. ${props.about}`} className={classes.chart} />
    </div>
  );
}

function Readout({ bar, write }: { bar: Bar; write: (at: number) => string }) {
  return (
    <div className={classes.readout} aria-hidden>
      {write(bar.from)} · <b>{bar.count.toLocaleString("en")}</b>
      {bar.failure > 0 && <span className={classes.failure}> · {bar.failure.toLocaleString("en")} failed</span>}
      {bar.denied > 0 && <span className={classes.denied}> · {bar.denied.toLocaleString("en")} denied</span>}
    </div>
  );
}

/** Each series is drawn over the one before it: all, all but the failed, all but the failed and denied. */
function dataOf(bars: Bar[]): uPlot.AlignedData {
  return [
    bars.map((each) => each.from / 1_000),
    bars.map((each) => each.count),
    bars.map((each) => each.count - each.failure),
    bars.map((each) => each.count - each.failure - each.denied),
  ];
}

interface Actions {
  zoom: (from: number, to: number) => void;
  back: () => void;
  hover: (index: number | null) => void;
}

function optionsOf(width: number, first: number, last: number, zone: string, actions: Actions): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const paths = uPlot.paths.bars?.({ size: [0.86, 48], align: 1, radius: 0.08 });
  const series = ["--dl-failure", "--dl-denied", "--dl-bar"].map((name) => ({
    fill: colour(name),
    width: 0,
    points: { show: false },
    ...(paths ? { paths } : {}),
  }));
  const axis = {
    stroke: colour("--dl-quiet"),
    font: `11px ${style.getPropertyValue("--mantine-font-family") || "sans-serif"}`,
    ticks: { show: false },
  };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [14, 14, 0, 0],
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1_000), zone),
    scales: {
      x: { time: true, range: () => [first / 1_000, last / 1_000] },
      y: { range: (_chart, _least, most) => [0, Math.max(1, most)] },
    },
    axes: [
      {
        ...axis,
        size: 22,
        gap: 4,
        grid: { show: false },
        values: (_chart, splits) => labelsOf(splits, last - first, zone),
      },
      {
        ...axis,
        size: 40,
        gap: 4,
        space: 26,
        grid: { stroke: colour("--dl-hair"), width: 1 },
        values: (_chart, splits) => splits.map((each) => (Number.isInteger(each) ? COMPACT.format(each) : "")),
      },
    ],
    series: [{}, ...series],
    cursor: {
      y: false,
      points: { show: false },
      drag: { x: true, y: false, setScale: false, dist: DRAG_LEAST },
      bind: { dblclick: () => () => goBack(actions) },
    },
    hooks: {
      setCursor: [(chart) => actions.hover(chart.cursor.idx ?? null)],
      setSelect: [
        (chart) => {
          const { left, width: dragged } = chart.select;
          if (dragged < DRAG_LEAST) return;
          actions.zoom(chart.posToVal(left, "x") * 1_000, chart.posToVal(left + dragged, "x") * 1_000);
          chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
}

/** The type of the handler asks for null. */
function goBack(actions: Actions): null {
  actions.back();
  return null;
}

const COMPACT = new Intl.NumberFormat("en", { notation: "compact" });
const DAY = 86_400_000;

/** Labels of the time axis: clocks within two days, else dates. */
function labelsOf(splits: number[], length: number, timeZone: string): string[] {
  const clock = new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit" });
  const date = new Intl.DateTimeFormat("en-GB", { timeZone, day: "numeric", month: "short" });
  const year = new Intl.DateTimeFormat("en-GB", { timeZone, month: "short", year: "numeric" });
  return splits.map((each) => {
    if (length > 400 * DAY) return year.format(each * 1_000);
    const time = clock.format(each * 1_000);
    return length > 2 * DAY && time !== "00:00"
      ? time
      : length > 2 * DAY || time === "00:00"
        ? date.format(each * 1_000)
        : time;
  });
}
