/** The looks that a page around the frame may choose: a colour scheme, and values of a few custom properties. */
import type { Show, StyleName } from "./messages.ts";

const NAMES: readonly StyleName[] = ["accent", "background", "text", "quiet", "line", "font", "radius"];
/** Colours, lengths and names of fonts; no address and no further declaration. */
const PLAIN = /^[\w\s#%.,'"()/+-]{1,120}$/;

/** Return the values of `style` that are plain, by the names of custom properties. */
export function plainStyle(style: unknown): [string, string][] {
  const given = typeof style === "object" && style !== null ? (style as Record<string, unknown>) : {};
  return NAMES.flatMap((name): [string, string][] => {
    const value = given[name];
    return typeof value === "string" && PLAIN.test(value) && !/url/i.test(value) ? [[`--${name}`, value]] : [];
  });
}

/** Give the document these looks. */
export function dress(show: Show): void {
  const root = document.documentElement;
  root.dataset.scheme = show.scheme === "light" || show.scheme === "dark" ? show.scheme : "auto";
  root.removeAttribute("style");
  for (const [name, value] of plainStyle(show.style)) root.style.setProperty(name, value);
}

/** Return the message if it is a `show`, else null. */
export function shown(data: unknown): Show | null {
  const found = data as Partial<Show> | null;
  return typeof found === "object" && found?.type === "decklog:show" && typeof found.token === "string"
    ? (found as Show)
    : null;
}
