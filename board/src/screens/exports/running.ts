/** The exports of this tab. They go on while another screen is open. */
import { useSyncExternalStore } from "react";
import { Download, type Wanted } from "./download.ts";
import type { Sink } from "./sinks.ts";

export interface Running {
  id: number;
  title: string;
  download: Download;
}

const PUBLISH_MILLISECONDS = 200;

let running: readonly Running[] = [];
let version = 0;
let pending: ReturnType<typeof setTimeout> | undefined;
let counted = 0;
const listeners = new Set<() => void>();

function publish(): void {
  pending = undefined;
  version += 1;
  for (const listener of listeners) listener();
}

/** Publish soon: a fast export changes a thousand times a second. */
function changed(): void {
  if (pending === undefined) pending = setTimeout(publish, PUBLISH_MILLISECONDS);
}

/** A tab that is closed ends its exports, so the browser asks first. */
function guard(event: BeforeUnloadEvent): void {
  if (running.some((each) => each.download.active)) event.preventDefault();
}

/** Start an export. `sinkOf` gets a function that returns the name that the server proposes. */
export function startExport(
  wanted: Wanted,
  title: string,
  identity: string,
  sinkOf: (name: () => string | null) => Sink,
): void {
  window.addEventListener("beforeunload", guard);
  counted += 1;
  const place: { download?: Download } = {};
  const download = new Download(
    wanted,
    sinkOf(() => place.download?.state.name ?? null),
    identity,
    changed,
  );
  place.download = download;
  running = [{ id: counted, title, download }, ...running];
  publish();
  void download.run();
}

/** Take an export that has ended out of the list. */
export function dismiss(id: number): void {
  running = running.filter((each) => each.id !== id || each.download.active);
  publish();
}

export function useRunning(): readonly Running[] {
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => version,
  );
  return running;
}
