import type { ReactNode } from "react";
import classes from "./state.module.css";

export type Tone = "good" | "bad" | "warn" | "quiet";

const MARKS: Record<Tone, string> = { good: "●", bad: "▲", warn: "◆", quiet: "○" };

/** A state in words, with a mark whose form differs as well as its colour. */
export function StateText({ tone, children }: { tone: Tone; children: ReactNode }) {
  return (
    <span className={classes.state} data-tone={tone}>
      <span aria-hidden className={classes.mark}>
        {MARKS[tone]}
      </span>
      {children}
    </span>
  );
}
