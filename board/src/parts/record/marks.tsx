/** Marks of the parts of a record that made it match. */
import { createContext, useContext } from "react";
import type { Highlights } from "../../api/records.ts";

export type Span = readonly [number, number];
/** Spans by the name of the value in queries, such as `metadata.reason`. Elements of a list are told apart by no name. */
export type Marks = ReadonlyMap<string, readonly Span[]>;

export const NO_MARKS: Marks = new Map();
/** Marks of the record that is drawn. */
export const RecordMarks = createContext<Marks>(NO_MARKS);

/** Return the marks of a record by name. `except`: names of fields whose whole value was asked for, which need no mark. */
export function marksOf(highlights: Highlights, except: ReadonlySet<string>): Marks {
  const marks = new Map<string, Span[]>();
  for (const { path, spans } of highlights.places) {
    const name = path
      .slice(1)
      .split("/")
      .map((each) => each.replaceAll("~1", "/").replaceAll("~0", "~"))
      .join(".");
    if (!except.has(name)) marks.set(name, spans);
  }
  return marks;
}

/** Return a text in parts, every second of which is marked. Spans count Unicode code points. */
export function partsOf(text: string, spans: readonly Span[]): string[] {
  const characters = [...text];
  const parts: string[] = [];
  let end = 0;
  for (const [first, behind] of [...spans].sort((one, other) => one[0] - other[0])) {
    if (behind <= end) continue;
    parts.push(
      characters.slice(end, Math.max(first, end)).join(""),
      characters.slice(Math.max(first, end), behind).join(""),
    );
    end = behind;
  }
  return [...parts, characters.slice(end).join("")];
}

export function Marked({ text, spans }: { text: string; spans: readonly Span[] }) {
  return partsOf(text, spans).map((each, index) => {
    // The parts of one text never change their places.
    const key = `${index}`;
    return index % 2 === 0 ? <span key={key}>{each}</span> : <mark key={key}>{each}</mark>;
  });
}

/** A text of the record that is drawn, with its marks. */
export function RecordText({ name, text }: { name: string; text: string }) {
  const spans = useContext(RecordMarks).get(name);
  return spans && spans.length > 0 ? <Marked text={text} spans={spans} /> : text;
}
