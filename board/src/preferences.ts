/** Choices of a person for this browser: the time zone of times that are shown. */
import { useSyncExternalStore } from "react";

const ZONE = "decklog.zone";
const listeners = new Set<() => void>();

/** Return the chosen zone: an IANA name. Without a choice that of the browser. */
export function zoneNow(): string {
  return localStorage.getItem(ZONE) ?? Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
}

export function chooseZone(zone: string): void {
  localStorage.setItem(ZONE, zone);
  for (const listener of listeners) listener();
}

export function useZone(): string {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, zoneNow);
}
