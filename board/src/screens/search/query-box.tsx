/** The query box: one line that grows, coloured, completed at the caret, with a refusal drawn under the character. */
import { Button, Kbd } from "@mantine/core";
import { Search } from "lucide-react";
import { type KeyboardEvent, type RefObject, useEffect, useId, useState } from "react";
import type { Problem } from "../../api/client.ts";
import { completed, type Option, type Place, placeAt } from "./completion.ts";
import classes from "./query-box.module.css";
import { tokensOf } from "./query-text.ts";
import { faultOf, mended } from "./refusal.ts";
import { useOptions } from "./use-options.ts";

interface Props {
  box: RefObject<HTMLTextAreaElement | null>;
  /** The query that was asked last. */
  asked: string;
  onAsk: (text: string) => void;
  /** `invalid-query`, of the query that was asked last. */
  problem: Problem | null;
  recent: string[];
  leaves: string[];
  /** Values of a field in the records at hand. */
  valuesAtHand: (field: string) => string[];
}

export function QueryBox({ box, asked, onAsk, problem, recent, leaves, valuesAtHand }: Props) {
  const [text, setText] = useState(asked);
  const [caret, setCaret] = useState(0);
  const [open, setOpen] = useState(false);
  const [active, setActive] = useState(-1);
  const id = useId();
  const place = placeAt(text, caret);
  const options = useOptions({ place, text, open, recent, leaves, valuesAtHand });
  const shown = open && options.length > 0;
  const fault = problem && text === asked ? faultOf(problem, text) : null;

  // A query that came by another way, such as a facet or the back button, replaces the text.
  useEffect(() => setText(asked), [asked]);

  const put = (next: string, at: number) => {
    setText(next);
    setCaret(at);
    setActive(-1);
    requestAnimationFrame(() => box.current?.setSelectionRange(at, at));
  };
  const ask = (query: string) => {
    setOpen(false);
    setActive(-1);
    onAsk(query.replaceAll(/\s+/g, " ").trim());
  };
  const take = (option: Option | undefined) => {
    if (!option) return;
    if (option.whole) {
      put(option.insert, option.insert.length);
      ask(option.insert);
      return;
    }
    const next = completed(text, place, option.insert);
    put(next.text, next.caret);
    setOpen(option.open);
  };

  function onKeyDown(event: KeyboardEvent) {
    const step = shown ? { ArrowDown: 1, ArrowUp: -1 }[event.key] : undefined;
    if (event.nativeEvent.isComposing) return;
    if (step !== undefined) {
      event.preventDefault();
      const next = active + step;
      setActive(next >= options.length ? -1 : next < -1 ? options.length - 1 : next);
    } else if (event.key === "Tab" && shown && !event.shiftKey && (active >= 0 || place.typed !== "")) {
      event.preventDefault();
      take(options[Math.max(0, active)]);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (shown && active >= 0) take(options[active]);
      else ask(text);
    } else if (event.key === "ArrowDown" && !shown) {
      setOpen(true);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      if (shown) setOpen(false);
      else box.current?.blur();
    }
  }

  return (
    <div className={classes.box}>
      <div className={`${classes.field} ${fault ? classes.refused : ""}`}>
        <Search size={16} aria-hidden className={classes.icon} />
        <div className={classes.text}>
          <Mirror text={text} fault={fault} />
          <textarea
            ref={box}
            className={classes.input}
            rows={1}
            value={text}
            aria-label="Query"
            aria-autocomplete="list"
            aria-controls={shown ? `${id}-list` : undefined}
            aria-activedescendant={shown && active >= 0 ? `${id}-${active}` : undefined}
            aria-invalid={fault !== null}
            aria-describedby={fault ? `${id}-problem` : undefined}
            placeholder="Words, or field:value"
            spellCheck={false}
            autoCapitalize="off"
            autoComplete="off"
            maxLength={16_000}
            onChange={(event) => {
              setText(event.target.value);
              setCaret(event.target.selectionStart);
              setOpen(true);
              setActive(-1);
            }}
            onSelect={(event) => setCaret(event.currentTarget.selectionStart)}
            onKeyDown={onKeyDown}
            onClick={() => setOpen(true)}
            onBlur={() => setOpen(false)}
          />
        </div>
        <Kbd size="xs" className={classes.hint} aria-hidden>
          /
        </Kbd>
      </div>
      {shown && <Options id={id} options={options} active={active} place={place} onTake={take} />}
      {fault && (
        <div id={`${id}-problem`} className={classes.problem} role="alert">
          {fault.suggestion !== null && (
            <Button
              size="compact-sm"
              variant="light"
              className={classes.suggestion}
              onClick={() => {
                const next = mended(text, fault);
                setText(next);
                ask(next);
              }}
            >
              Did you mean {fault.suggestion}?
            </Button>
          )}
          <span>{fault.message}</span>
        </div>
      )}
    </div>
  );
}

function Mirror({ text, fault }: { text: string; fault: { from: number; to: number } | null }) {
  const kinds: Record<string, string | undefined> = { field: classes.fieldName, operator: classes.operator };
  return (
    <div className={classes.mirror} aria-hidden>
      {tokensOf(text).map((each) => (
        <span key={each.start} className={kinds[each.kind]}>
          {fault && each.start < fault.to && fault.from < each.end ? (
            <Marked text={text} start={each.start} end={each.end} fault={fault} />
          ) : (
            text.slice(each.start, each.end)
          )}
        </span>
      ))}
      {fault && fault.from >= text.length && <span className={classes.wrong}>{"\u00a0"}</span>}
      {"\u200b"}
    </div>
  );
}

function Marked({
  text,
  start,
  end,
  fault,
}: {
  text: string;
  start: number;
  end: number;
  fault: { from: number; to: number };
}) {
  const [from, to] = [Math.max(start, fault.from), Math.min(end, fault.to)];
  return (
    <>
      {text.slice(start, from)}
      <span className={classes.wrong} data-fault>
        {text.slice(from, to)}
      </span>
      {text.slice(to, end)}
    </>
  );
}

interface OptionsProps {
  id: string;
  options: Option[];
  active: number;
  place: Place;
  onTake: (option: Option) => void;
}

function Options({ id, options, active, place, onTake }: OptionsProps) {
  useEffect(() => {
    document.getElementById(`${id}-${active}`)?.scrollIntoView({ block: "nearest" });
  }, [id, active]);
  return (
    <ul
      id={`${id}-list`}
      role="listbox"
      className={classes.list}
      aria-label={place.kind === "value" ? `Values of ${place.field}` : "Fields"}
    >
      {options.map((each, index) => (
        <li
          key={`${each.about} ${each.label}`}
          id={`${id}-${index}`}
          role="option"
          aria-selected={index === active}
          className={classes.option}
          // The box keeps the focus.
          onMouseDown={(event) => {
            event.preventDefault();
            onTake(each);
          }}
        >
          <span className={classes.label}>{each.label}</span>
          <span className={classes.about}>{each.about}</span>
        </li>
      ))}
    </ul>
  );
}
