import { Anchor, Button, TextInput } from "@mantine/core";
import { useState } from "react";
import { Link, useLocation, useSearchParams } from "wouter";
import { useIdentity } from "../../api/session.ts";
import { type Tenant, useTenants } from "../../api/tenants.ts";
import { type Column, Listing } from "../../parts/listing.tsx";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { StateText } from "../../parts/state.tsx";
import { TimeText } from "../../parts/time.tsx";
import { Waiting } from "../../parts/waiting.tsx";
import { stateOf } from "./conditions.ts";
import { TenantDetails } from "./details.tsx";

/** The tenants that the identity may see: all of them for the platform, its own for everybody else. */
export default function Tenants() {
  const { tenant: own } = useIdentity();
  const tenants = useTenants();
  const [search] = useSearchParams();
  const chosen = own ?? search.get("name");
  const found = tenants.data?.find((each) => each.name === chosen);

  if (tenants.error && !tenants.data) {
    return (
      <Page title={own ? "Tenant" : "Tenants"}>
        <ProblemNotice error={tenants.error} onRetry={() => tenants.refetch()} />
      </Page>
    );
  }
  if (!tenants.data) {
    return (
      <Page title={own ? "Tenant" : "Tenants"}>
        <Waiting />
      </Page>
    );
  }
  if (chosen !== null) return <One name={chosen} tenant={found} back={own === null} stale={tenants.error} />;
  return <All tenants={tenants.data} stale={tenants.error} />;
}

function One({
  name,
  tenant,
  back,
  stale,
}: {
  name: string;
  tenant: Tenant | undefined;
  back: boolean;
  stale: unknown;
}) {
  return (
    <Page
      title={tenant?.display_name || name}
      about={tenant ? `Tenant ${name}` : undefined}
      actions={
        back && (
          <Button component={Link} href="/tenants" variant="default">
            All tenants
          </Button>
        )
      }
    >
      {stale !== null && <ProblemNotice error={stale} />}
      {tenant ? (
        <TenantDetails tenant={tenant} />
      ) : (
        <EmptyState title={`There is no tenant ${name}`}>It may have been removed.</EmptyState>
      )}
    </Page>
  );
}

function All({ tenants, stale }: { tenants: Tenant[]; stale: unknown }) {
  const [wanted, setWanted] = useState("");
  const [, navigate] = useLocation();
  const words = wanted.toLowerCase();
  const shown = tenants.filter((each) => `${each.name} ${each.display_name}`.toLowerCase().includes(words));
  const troubled = tenants.filter((each) => stateOf(each).tone === "bad").length;
  return (
    <Page
      title="Tenants"
      about={`${tenants.length} tenants${troubled ? `, ${troubled} not ready` : ""}. Records of tenants are not readable from here.`}
      actions={
        <TextInput
          aria-label="Filter by name"
          placeholder="Filter by name"
          value={wanted}
          onChange={(event) => setWanted(event.currentTarget.value)}
          onKeyDown={(event) => {
            const only = shown[0];
            if (event.key === "Enter" && only) navigate(`/tenants?name=${encodeURIComponent(only.name)}`);
          }}
        />
      }
    >
      {stale !== null && <ProblemNotice error={stale} />}
      {tenants.length === 0 ? (
        <EmptyState title="No tenant yet">
          Apply a Tenant with kubectl, put a manifest into the folder of decklog provision, or post one to
          /api/v1/tenants.
        </EmptyState>
      ) : shown.length === 0 ? (
        <EmptyState title="No tenant has this name">
          <Button variant="light" onClick={() => setWanted("")}>
            Show all
          </Button>
        </EmptyState>
      ) : (
        <Listing label="Tenants" columns={COLUMNS} items={shown} keyOf={(each) => each.name} />
      )}
    </Page>
  );
}

const COLUMNS: Column<Tenant>[] = [
  {
    name: "Tenant",
    cell: (each) => (
      <Anchor component={Link} href={`/tenants?name=${encodeURIComponent(each.name)}`} size="sm" fw={600}>
        {each.name}
      </Anchor>
    ),
  },
  { name: "Name", cell: (each) => each.display_name },
  {
    name: "State",
    cell: (each) => {
      const { tone, text } = stateOf(each);
      return <StateText tone={tone}>{text}</StateText>;
    },
  },
  { name: "Isolation", cell: (each) => each.isolation },
  { name: "Retention", numeric: true, cell: (each) => `${each.retention_days} days` },
  { name: "Created", cell: (each) => <TimeText value={each.created_at} /> },
];
