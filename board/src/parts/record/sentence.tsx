import { Fragment } from "react";
import type { LogRecord } from "../../api/records.ts";
import { sentenceOf } from "../../api/sentence.ts";
import classes from "./record.module.css";

/** The sentence of a record, with its actor, resource, address and outcome set off. */
export function Sentence({ record }: { record: LogRecord }) {
  const kinds: Record<string, string | undefined> = {
    actor: classes.actor,
    resource: classes.resource,
    source: classes.source,
    outcome: classes[record.outcome] ?? classes.unknown,
  };
  return sentenceOf(record).map((each, index) => {
    const style = kinds[each.kind];
    // The parts of one sentence never change their places.
    const key = `${index}`;
    return style ? (
      <span key={key} className={style}>
        {each.text}
      </span>
    ) : (
      <Fragment key={key}>{each.text}</Fragment>
    );
  });
}
