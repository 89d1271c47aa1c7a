/** The options of the query box: names, known values, values in the records at hand, and values that the API counts. */
import { useDebouncedValue } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { countRecords } from "../../api/records.ts";
import { useIdentity } from "../../api/session.ts";
import { knownValues, nameOptions, type Option, type Place, valueOptions } from "./completion.ts";
import { fieldOf } from "./names.ts";

const DEBOUNCE_MILLISECONDS = 250;
const TOP = 20;
const RECENT_SHOWN = 5;

interface Sources {
  place: Place;
  text: string;
  open: boolean;
  recent: string[];
  leaves: string[];
  valuesAtHand: (field: string) => string[];
}

/** Values of one field by their counts, of records that begin with what is typed. One request for each pause in typing. */
function useCountedValues(place: Place, open: boolean) {
  const identity = useIdentity();
  const facet = place.kind === "value" ? (fieldOf(place.field)?.facet ?? null) : null;
  const plain = /^[\w./@-]*$/.test(place.typed) ? place.typed : "";
  const [typed] = useDebouncedValue(plain, DEBOUNCE_MILLISECONDS);
  const asks = open && facet !== null && fieldOf(place.field)?.choices === undefined && typed === plain;
  const found = useQuery({
    queryKey: ["values", identity.id, facet, typed],
    queryFn: ({ signal }) =>
      countRecords({ q: typed ? `${place.field}:${typed}*` : null, facets: facet, top: TOP }, signal),
    enabled: asks,
    staleTime: 60_000,
    retry: false,
  });
  return facet === null ? [] : (found.data?.facets[facet]?.values ?? []);
}

export function useOptions({ place, text, open, recent, leaves, valuesAtHand }: Sources): Option[] {
  const counted = useCountedValues(place, open);
  return useMemo(() => {
    if (!open) return [];
    if (place.kind === "name") return [...recentOptions(text, recent), ...nameOptions(place.typed, leaves)];
    const today = new Date().toISOString().slice(0, 10);
    const known = knownValues(place.field, today, leaves);
    if (known !== null) return known.filter((each) => each.label.toLowerCase().includes(place.typed.toLowerCase()));
    const values = new Map<string, number | null>(valuesAtHand(place.field).map((each) => [each, null]));
    const merged = [...counted, ...[...values].map(([value, count]) => ({ value, count }))];
    const unique = merged.filter((each, index) => merged.findIndex((other) => other.value === each.value) === index);
    return valueOptions(place.typed, unique);
  }, [open, place.kind, place.typed, place.field, text, recent, leaves, counted, valuesAtHand]);
}

function recentOptions(text: string, recent: string[]): Option[] {
  return recent
    .filter((each) => each !== text && each.startsWith(text))
    .slice(0, RECENT_SHOWN)
    .map((each) => ({ insert: each, label: each, about: "recent", open: false, whole: true }));
}
