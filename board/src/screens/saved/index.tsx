/** Saved searches: open, rename, share and delete them. */
import { Button, Group, Text } from "@mantine/core";
import { type MouseEvent, useState } from "react";
import { useLocation } from "wouter";
import { isOwn, type SavedSearch, useDeleteSearch, useSearches } from "../../api/searches.ts";
import { can, useIdentity } from "../../api/session.ts";
import { useKey } from "../../keys/keys.tsx";
import { Confirm } from "../../parts/confirm.tsx";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { type Column, Rows } from "../../parts/rows.tsx";
import fill from "../../parts/screen.module.css";
import { TimeText } from "../../parts/time.tsx";
import { Waiting } from "../../parts/waiting.tsx";
import { describe, hrefOf } from "./places.ts";
import { SaveSearch } from "./save-search.tsx";
import classes from "./saved.module.css";

interface Doing {
  what: "change" | "delete";
  search: SavedSearch;
}

/** Return the owner of a search: `kind:issuer:subject`, of which the subject says most. */
function ownerText(search: SavedSearch, own: boolean): string {
  if (own) return search.shared ? "yours, shared" : "yours";
  const subject = search.owner.slice(search.owner.lastIndexOf(":") + 1);
  return search.shared ? `shared by ${subject}` : `of ${subject}`;
}

export default function Saved() {
  const identity = useIdentity();
  const [, navigate] = useLocation();
  const searches = useSearches();
  const deleting = useDeleteSearch();
  const [selected, setSelected] = useState<string | null>(null);
  const [doing, setDoing] = useState<Doing | null>(null);
  const items = searches.data ?? [];
  const chosen = items.find((each) => each.id === selected);
  const mayChange = (search: SavedSearch) => can(identity, "manage") || isOwn(search, identity);
  const begin = (what: Doing["what"], search: SavedSearch | undefined) =>
    search && mayChange(search) && setDoing({ what, search });
  const when = doing === null && chosen !== undefined;
  useKey("r", "Read again", () => void searches.refetch());
  useKey("n", "Rename or share the search", () => begin("change", chosen), { when });
  useKey("x", "Delete the search", () => begin("delete", chosen), { when });

  const columns: Column<SavedSearch>[] = [
    { title: "Name", className: classes.name, draw: (search) => search.name },
    { title: "Finds", className: classes.query, draw: (search) => describe(search.parameters) },
    { title: "Owner", className: classes.owner, draw: (search) => ownerText(search, isOwn(search, identity)) },
    { title: "Saved", className: classes.time, draw: (search) => <TimeText value={search.saved_at} /> },
    {
      title: "Actions",
      className: classes.actions,
      draw: (search) =>
        mayChange(search) && (
          <Group gap={4} wrap="nowrap" onClick={(event: MouseEvent) => event.stopPropagation()}>
            <Button
              size="compact-xs"
              variant="default"
              aria-label={`Change ${search.name}`}
              onClick={() => begin("change", search)}
            >
              Change
            </Button>
            <Button
              size="compact-xs"
              variant="subtle"
              color="red"
              aria-label={`Delete ${search.name}`}
              onClick={() => begin("delete", search)}
            >
              Delete
            </Button>
          </Group>
        ),
    },
  ];

  return (
    <div className={fill.fill}>
      <Page title="Saved searches" about="Searches under a name: your own, and those that are shared with all readers.">
        {searches.isPending && <Waiting />}
        {searches.isError && <ProblemNotice error={searches.error} onRetry={() => void searches.refetch()} />}
        {searches.isSuccess && items.length === 0 && (
          <EmptyState title="No search is saved yet">Save one on Search, with S.</EmptyState>
        )}
        {items.length > 0 && (
          <Rows
            label="Saved searches, by name"
            rows={items}
            keyOf={(search) => search.id}
            columns={columns}
            className={classes.columns}
            selected={selected}
            onSelect={setSelected}
            onOpen={(search) => navigate(hrefOf(search))}
            noun="search"
          />
        )}
      </Page>
      {doing?.what === "change" && (
        <SaveSearch parameters={doing.search.parameters} saved={doing.search} onClose={() => setDoing(null)} />
      )}
      {doing?.what === "delete" && (
        <Confirm
          title={`Delete ${doing.search.name}?`}
          action="Delete"
          onConfirm={() => deleting.mutateAsync(doing.search.id)}
          onClose={() => setDoing(null)}
        >
          <Text size="sm">
            {doing.search.shared ? "All readers of the tenant lose it." : "It is gone then."} Records are not affected.
          </Text>
        </Confirm>
      )}
    </div>
  );
}
