import classes from "./accent.module.css";

/** An outcome as a word with a colour. The word says what the colour says. */
export function OutcomeText({ outcome }: { outcome: string }) {
  const known = outcome in classes ? classes[outcome] : classes.unknown;
  return (
    <span className={`${classes.outcome} ${known}`}>
      <span className={classes.dot} aria-hidden />
      {outcome}
    </span>
  );
}
