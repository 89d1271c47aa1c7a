import { Button, Group, Progress } from "@mantine/core";
import { bytesText, numberText } from "../../parts/figures.ts";
import { ProblemNotice } from "../../parts/notices.tsx";
import { durationText } from "../live/tail.ts";
import type { State } from "./download.ts";
import classes from "./exports.module.css";
import { dismiss, type Running, useRunning } from "./running.ts";

const PHASES: Record<State["phase"], string> = {
  running: "Running",
  waiting: "The connection broke. It goes on by itself.",
  paused: "The connection broke, and attempts to go on failed.",
  done: "Complete",
  cancelled: "Cancelled. No file was kept.",
  failed: "Failed. No file was kept.",
};

/** Return what came and how fast, as one line. */
export function figuresText({ records, bytes, total, progress, phase, continued }: State): string {
  const of = total === null ? "" : ` of ${numberText(total)}`;
  const parts = [`${numberText(records)}${of} record${(total ?? records) === 1 ? "" : "s"}`, bytesText(bytes)];
  if (phase === "running" && progress.recordsPerSecond > 0) {
    parts.push(
      `${numberText(Math.round(progress.recordsPerSecond))} records/s`,
      `${bytesText(progress.bytesPerSecond)}/s`,
    );
    if (progress.secondsLeft !== null) parts.push(`${durationText(progress.secondsLeft * 1_000)} left`);
  }
  if (continued > 0) parts.push(`continued ${continued === 1 ? "once" : `${continued} times`}, nothing missed`);
  return parts.join(" · ");
}

function RunningExport({ running }: { running: Running }) {
  const { download } = running;
  const { state } = download;
  const fraction = state.phase === "done" ? 1 : state.progress.fraction;
  const percent = Math.floor((fraction ?? 1) * 100);
  const tone = state.phase in classes ? classes[state.phase] : "";
  return (
    <li className={`${classes.running} ${tone}`}>
      <div className={classes.line}>
        <span className={classes.title}>{running.title}</span>
        <Group gap="xs">
          {(state.phase === "waiting" || state.phase === "paused") && (
            <Button size="compact-xs" variant="light" onClick={() => download.resume()}>
              Go on now
            </Button>
          )}
          {download.active ? (
            <Button size="compact-xs" variant="default" onClick={() => void download.cancel()}>
              Cancel
            </Button>
          ) : (
            <Button size="compact-xs" variant="subtle" onClick={() => dismiss(running.id)}>
              Dismiss
            </Button>
          )}
        </Group>
      </div>
      {download.active && (
        <Progress
          value={percent}
          animated={fraction === null && state.phase === "running"}
          aria-label={`Progress of ${running.title}`}
        />
      )}
      <div className={classes.line}>
        <span role="status">{PHASES[state.phase]}</span>
        <span className={classes.figures}>{figuresText(state)}</span>
      </div>
      {state.phase === "failed" && <ProblemNotice error={state.error} />}
    </li>
  );
}

/** The exports of this tab, newest first. */
export function RunningList() {
  const running = useRunning();
  if (running.length === 0) return null;
  return (
    <ul className={classes.list} aria-label="Exports of this tab">
      {running.map((each) => (
        <RunningExport key={each.id} running={each} />
      ))}
    </ul>
  );
}
