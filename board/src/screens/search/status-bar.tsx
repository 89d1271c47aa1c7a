/** The line above the table: how many records match, what is new, how far the index is, and what to do with the query. */
import { Button } from "@mantine/core";
import { ArrowUp, Download, type LucideIcon, Radio, SlidersHorizontal } from "lucide-react";
import { Link } from "wouter";
import type { Query } from "../../api/client.ts";
import type { Coverage } from "../../api/records.ts";
import { exportsHref, liveHref } from "../../parts/places.ts";
import { ColumnMenu } from "./column-menu.tsx";
import classes from "./search.module.css";

interface Props {
  /** Number of matching records; null while they are counted, undefined where they could not be. */
  total: number | null | undefined;
  /** True if the search was refused, so that there is nothing to count. */
  refused: boolean;
  onCount: () => void;
  news: number;
  onNews: () => void;
  coverage: Coverage | undefined;
  here: Query;
  hasLive: boolean;
  hasExports: boolean;
  columns: string[];
  leaves: string[];
  onColumns: (columns: string[]) => void;
  /** Opens the facets where there is no room for them beside the table; null where there is. */
  onFacets: (() => void) | null;
}

export function StatusBar(props: Props) {
  const { news, here } = props;
  return (
    <div className={classes.bar}>
      <span className={classes.count} role="status">
        {!props.refused && <Count total={props.total} onCount={props.onCount} />}
      </span>
      {news > 0 && (
        <Button
          size="compact-sm"
          variant="light"
          leftSection={<ArrowUp size={14} aria-hidden />}
          onClick={props.onNews}
        >
          {news >= 100 ? "100+" : news} new
        </Button>
      )}
      <CoverageText coverage={props.coverage} />
      <span className={classes.space} />
      {props.onFacets && <Tool icon={SlidersHorizontal} label="Filters" onClick={props.onFacets} />}
      {props.hasLive && <Tool icon={Radio} label="Live" title="Watch this query live (l)" href={liveHref(here)} />}
      {props.hasExports && (
        <Tool icon={Download} label="Export" title="Export this query (e)" href={exportsHref(here)} />
      )}
      <ColumnMenu columns={props.columns} leaves={props.leaves} onColumns={props.onColumns} />
    </div>
  );
}

interface ToolProps {
  icon: LucideIcon;
  label: string;
  title?: string;
  /** Address that the tool opens; without one it is a button. */
  href?: string;
  onClick?: () => void;
}

/** A quiet button of the line: it acts, or it opens an address. */
function Tool({ icon: Icon, label, href, ...rest }: ToolProps) {
  const look = {
    size: "compact-sm",
    variant: "subtle",
    color: "gray",
    className: classes.tool,
    leftSection: <Icon size={14} aria-hidden />,
  };
  return href === undefined ? (
    <Button {...look} {...rest}>
      {label}
    </Button>
  ) : (
    <Button component={Link} href={href} {...look} {...rest}>
      {label}
    </Button>
  );
}

function Count({ total, onCount }: { total: number | null | undefined; onCount: () => void }) {
  if (total === null) return "Counting…";
  if (total !== undefined) return `${total.toLocaleString("en")} ${total === 1 ? "record" : "records"}`;
  return (
    <Button size="compact-sm" variant="subtle" onClick={onCount}>
      Count again
    </Button>
  );
}

/** An index that is behind loses nothing: PostgreSQL answers for the rest. */
function CoverageText({ coverage }: { coverage: Coverage | undefined }) {
  if (coverage?.engine !== "opensearch" || coverage.indexed >= coverage.head) return null;
  const behind = coverage.head - coverage.indexed;
  return (
    <span
      className={classes.quiet}
      title="PostgreSQL answers for the records that the index does not have yet, so nothing is missing."
    >
      Index {behind.toLocaleString("en")} behind, nothing missing
    </span>
  );
}
