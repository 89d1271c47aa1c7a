/**
 * The page at `/board/embed`, for frames: the records that a viewer token shows.
 *
 * The token comes as a message of the page around the frame, and stays in memory. The policy of this page says which origins may frame it;
 * the first one that sends a token is the only one that is listened to, and told anything.
 */
import "./page.css";
import { dress, shown } from "./looks.ts";
import type { Told } from "./messages.ts";
import { ask, type Page, parameters, Refused } from "./records.ts";
import { View } from "./view.ts";

/** How long before its end a token is asked for anew, and how often at most. */
const EARLY_MS = 60_000;
const PAUSE_MS = 10_000;

const root = document.getElementById("viewer") as HTMLElement;
const view = new View(
  root,
  () => void load(false),
  () => void load(true),
);
let token = "";
let parent: string | null = null;
let next: string | null = null;
let running: AbortController | null = null;
let timer = 0;
let asked = 0;

function tell(type: Told["type"], origin: string): void {
  window.parent.postMessage({ type } satisfies Told, origin);
}

function wantToken(): void {
  if (!parent || Date.now() - asked < PAUSE_MS) return;
  asked = Date.now();
  tell("decklog:token-wanted", parent);
}

async function load(more: boolean): Promise<void> {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  if (!more) view.clear();
  view.say("Loading …");
  try {
    const page = await ask<Page>(token, `logs?${parameters(view.question, more ? next : null)}`, mine.signal);
    next = page.next;
    view.add(page.items, next !== null);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error instanceof Refused && error.code === "unauthenticated") wantToken();
    view.say(error instanceof Refused ? error.message : "The records cannot be shown.", true);
  }
}

/** Learn from the API when the token ends and what it shows. */
async function introduce(): Promise<void> {
  const known = await ask<{ expires_at: string | null; fields: string[] | null }>(token, "whoami");
  view.timed = known.fields === null || known.fields.includes("occurred_at");
  window.clearTimeout(timer);
  const left = known.expires_at ? Date.parse(known.expires_at) - Date.now() : Number.POSITIVE_INFINITY;
  if (Number.isFinite(left)) timer = window.setTimeout(wantToken, Math.max(PAUSE_MS, left - EARLY_MS));
}

window.addEventListener("message", (event: MessageEvent<unknown>) => {
  if (event.source !== window.parent || event.source === window || (parent !== null && event.origin !== parent)) return;
  const show = shown(event.data);
  if (!show) return;
  const first = token === "";
  const again = !first && show.token !== token && root.querySelector(".failed") !== null;
  const changed = show.token !== token;
  parent = event.origin;
  token = show.token;
  dress(show);
  if (!changed) return;
  introduce().catch(() => undefined);
  if (first || again) void load(false);
});

if (window.parent === window) {
  view.say("This page belongs into a frame of a product that shows its audit log.");
} else {
  view.say("Waiting for the page that shows this frame …");
  tell("decklog:ready", "*"); // says nothing but that it is there
}
