/** The elements of the embedded viewer: search, list, details. Made node by node: no text of a record is ever parsed as HTML. */
import { at, flat, type Question, type Seen, text } from "./records.ts";

const OUTCOMES = ["success", "failure", "denied", "unknown"];
let numbers = 0;

function made<K extends keyof HTMLElementTagNameMap>(
  name: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function labelled(label: string, input: HTMLInputElement): HTMLLabelElement {
  input.id = `input-${++numbers}`;
  return made("label", { htmlFor: input.id }, made("span", {}, label), input);
}

/** Return a time as a person reads it, or the text itself where it is none. */
export function readable(value: string): string {
  const moment = new Date(value);
  const style = { dateStyle: "medium", timeStyle: "medium" } as const;
  return Number.isNaN(moment.getTime()) ? value : new Intl.DateTimeFormat(undefined, style).format(moment);
}

function row(record: Seen, open: () => void): HTMLLIElement {
  const time = text(record, "occurred_at", "received_at");
  const outcome = text(record, "outcome");
  const about = [text(record, "actor.name", "actor.id"), text(record, "resource.name", "resource.id", "resource.type")];
  const button = made(
    "button",
    { type: "button", onclick: open },
    made("time", { dateTime: time }, time ? readable(time) : ""),
    made("span", { className: "action" }, text(record, "action") || "Record"),
    made("span", { className: "about" }, about.filter(Boolean).join(" → ") || text(record, "message")),
    made("span", { className: `outcome ${OUTCOMES.includes(outcome) ? outcome : ""}` }, outcome),
  );
  return made("li", {}, button);
}

function details(record: Seen, close: () => void): Node[] {
  const list = made("dl");
  for (const [path, value] of flat(record)) list.append(made("dt", {}, path), made("dd", {}, value));
  const title = text(record, "message", "action") || "Record";
  const head = made("header", {}, made("h2", {}, title), made("button", { type: "button", onclick: close }, "Close"));
  return [head, list];
}

/** The whole viewer within one element. */
export class View {
  readonly #words = made("input", { type: "search", placeholder: "Words, or action:user.*", maxLength: 2000 });
  readonly #from = made("input", { type: "datetime-local" });
  readonly #to = made("input", { type: "datetime-local" });
  readonly #times = made("span", { className: "times" }, labelled("From", this.#from), labelled("To", this.#to));
  readonly #notice = made("p", { className: "notice" });
  readonly #list = made("ul");
  readonly #more = made("button", { type: "button", className: "more", hidden: true }, "Show more");
  readonly #drawer = made("aside", { hidden: true, tabIndex: -1 });
  #opener: Element | null = null;

  constructor(root: HTMLElement, search: () => void, more: () => void) {
    const form = made(
      "form",
      {},
      labelled("Search", this.#words),
      this.#times,
      made("button", { type: "submit" }, "Search"),
    );
    form.setAttribute("role", "search");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      search();
    });
    this.#more.addEventListener("click", more);
    this.#notice.setAttribute("role", "status");
    this.#list.setAttribute("aria-label", "Records");
    this.#drawer.setAttribute("aria-label", "Details of a record");
    root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.#drawer.hidden) this.#close();
    });
    const results = made("section", { className: "results" }, this.#list, this.#more);
    results.setAttribute("aria-label", "Results");
    root.replaceChildren(made("h1", {}, "Audit log"), form, this.#notice, results, this.#drawer);
    this.#list.hidden = true;
  }

  get question(): Question {
    return { words: this.#words.value, from: this.#from.value, to: this.#to.value };
  }

  /** Hide the inputs of times where the token does not show the time of records. */
  set timed(timed: boolean) {
    this.#times.hidden = !timed;
  }

  clear(): void {
    this.#close();
    this.#list.replaceChildren();
    this.#list.hidden = true;
    this.#more.hidden = true;
  }

  add(records: Seen[], more: boolean): void {
    for (const record of records) this.#list.append(row(record, () => this.#open(record)));
    this.#list.hidden = this.#list.childElementCount === 0;
    this.#more.hidden = !more;
    this.say(this.#list.hidden ? "No records." : "");
  }

  say(notice: string, failed = false): void {
    this.#notice.textContent = notice;
    this.#notice.hidden = !notice;
    this.#notice.classList.toggle("failed", failed);
  }

  #open(record: Seen): void {
    this.#opener = document.activeElement;
    this.#drawer.replaceChildren(...details(record, () => this.#close()));
    this.#drawer.dataset.action = String(at(record, "action") ?? "");
    this.#drawer.hidden = false;
    this.#drawer.focus();
  }

  #close(): void {
    if (this.#drawer.hidden) return;
    this.#drawer.hidden = true;
    this.#drawer.replaceChildren();
    if (this.#opener instanceof HTMLElement) this.#opener.focus();
  }
}
