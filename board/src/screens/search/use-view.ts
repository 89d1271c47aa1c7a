/** The view of the address, and how to change it: every view is a place that can be linked and gone back to. */
import { useCallback, useMemo } from "react";
import { useLocation, useSearch } from "wouter";
import { isColumn } from "./columns.ts";
import { parseView, type View, writtenView } from "./view.ts";

const KEPT_COLUMNS = "decklog.columns";

function keptColumns(): string[] | undefined {
  const kept = (localStorage.getItem(KEPT_COLUMNS) ?? "").split(",").filter(isColumn);
  return kept.length > 0 ? kept : undefined;
}

/** Return the view, and a function that changes parts of it. `replace`: the change is no step to go back by. */
export function useView(): [View, (changes: Partial<View>, replace?: boolean) => void] {
  const search = useSearch();
  const [, navigate] = useLocation();
  const view = useMemo(() => parseView(search, keptColumns()), [search]);
  const change = useCallback(
    (changes: Partial<View>, replace = false) => {
      // The address is read anew: two changes in one event must not undo each other.
      const now = parseView(window.location.search, keptColumns());
      if (changes.columns) localStorage.setItem(KEPT_COLUMNS, changes.columns.join());
      const next = writtenView({ ...now, ...changes });
      navigate(next ? `/search?${next}` : "/search", { replace });
    },
    [navigate],
  );
  return [view, change];
}
