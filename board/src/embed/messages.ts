/**
 * Messages between the page in the frame and the element around it. Types alone, so that each is built by itself.
 *
 * The page says `ready` and `token-wanted`; neither holds anything secret. The element answers with `show`, to the exact origin of Decklog.
 */

/** Custom properties of the element that the page takes over, without their prefix `--decklog-`. */
export type StyleName = "accent" | "background" | "text" | "quiet" | "line" | "font" | "radius";

export type Scheme = "auto" | "light" | "dark";

export interface Show {
  readonly type: "decklog:show";
  readonly token: string;
  readonly scheme: Scheme;
  readonly style: Partial<Record<StyleName, string>>;
}

export interface Told {
  readonly type: "decklog:ready" | "decklog:token-wanted";
}
