/** The button of Search that saves what it shows, also by the key S. */
import { ActionIcon } from "@mantine/core";
import { Bookmark } from "lucide-react";
import { lazy, Suspense, useState } from "react";
import { useKey } from "../../keys/keys.tsx";
import type { Range } from "../search/range.ts";
import { parametersOf } from "./places.ts";

const SaveSearch = lazy(async () => ({ default: (await import("./save-search.tsx")).SaveSearch }));

export function SaveButton({ view }: { view: { q: string; range: Range; sort: string } }) {
  const [open, setOpen] = useState(false);
  useKey("S", "Save this search", () => setOpen(true));
  return (
    <>
      <ActionIcon
        variant="default"
        size={36}
        aria-label="Save this search"
        title="Save this search (S)"
        onClick={() => setOpen(true)}
      >
        <Bookmark size={16} />
      </ActionIcon>
      {open && (
        <Suspense fallback={null}>
          <SaveSearch parameters={parametersOf(view)} onClose={() => setOpen(false)} />
        </Suspense>
      )}
    </>
  );
}
