import { TimeText } from "../../parts/time.tsx";
import classes from "./sentence.module.css";
import type { Part } from "./sentences.ts";

/** A sentence of an access record. Values of records are text, never markup. */
export function Sentence({ parts }: { parts: readonly Part[] }) {
  // The parts of a sentence never change places, so their index is their key.
  return parts.map((part, index) => {
    if (typeof part === "string") return part;
    const key = `${index}`;
    if ("time" in part) return <TimeText key={key} value={part.time} />;
    return (
      <code key={key} className={classes.code}>
        {part.code}
      </code>
    );
  });
}
