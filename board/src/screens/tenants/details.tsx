import { Alert, Code, Text, Title } from "@mantine/core";
import { type Condition, type Tenant, useUsage } from "../../api/tenants.ts";
import { bytesText, numberText } from "../../parts/figures.ts";
import { type Column, Listing } from "../../parts/listing.tsx";
import { StateText } from "../../parts/state.tsx";
import { agoText, TimeText } from "../../parts/time.tsx";
import { leaves, sorted, stateOf, toneOf } from "./conditions.ts";
import classes from "./tenants.module.css";

/** One tenant: its state, its conditions with reasons, and what its manifest asks for. */
export function TenantDetails({ tenant }: { tenant: Tenant }) {
  const { tone, text } = stateOf(tenant);
  const spec = leaves(tenant.spec ?? {});
  return (
    <>
      {tenant.state === "suspended" && (
        <Alert color="yellow" title="Suspended">
          Appends and reads are refused within two seconds in every process. The records are kept. Setting spec.suspend
          to false ends the suspension.
        </Alert>
      )}
      {tenant.state === "deleted" && (
        <Alert color="gray" title="Deleted">
          Nothing can be read or appended, and the keys are revoked
          {tenant.deleted_at && (
            <>
              {" "}
              since <TimeText value={tenant.deleted_at} />
            </>
          )}
          .
        </Alert>
      )}
      <dl className={classes.facts}>
        <Fact name="State">
          <StateText tone={tone}>{text}</StateText>
        </Fact>
        <Fact name="Isolation">{tenant.isolation}</Fact>
        <Fact name="Retention">{tenant.retention_days} days</Fact>
        <Fact name="Created">
          <TimeText value={tenant.created_at} />
        </Fact>
        <Fact name="Generation">{tenant.generation}</Fact>
        <Usage tenant={tenant} />
      </dl>
      <section>
        <Title order={2} size="h5" mb="xs">
          Conditions
        </Title>
        {tenant.conditions.length === 0 ? (
          <Text size="sm">Nobody has visited this tenant yet.</Text>
        ) : (
          <Listing
            label="Conditions"
            columns={CONDITIONS}
            items={sorted(tenant.conditions)}
            keyOf={(each) => each.type}
          />
        )}
      </section>
      <section>
        <Title order={2} size="h5" mb="xs">
          Manifest
        </Title>
        {spec.length === 0 || tenant.spec === null ? (
          <Text size="sm">Every field has its default.</Text>
        ) : (
          <dl className={classes.spec}>
            {spec.map(([path, value]) => (
              <div key={path}>
                <dt>
                  <Code>{path}</Code>
                </dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        )}
      </section>
    </>
  );
}

/** The usage of the tenant. An answer that is refused leaves it out: the rest of the page is as useful without. */
function Usage({ tenant }: { tenant: Tenant }) {
  const usage = useUsage(tenant);
  if (!usage) return null;
  return (
    <>
      <Fact name="Records">{numberText(usage.records.events)}</Fact>
      <Fact name="Access records">{numberText(usage.records.access)}</Fact>
      {usage.bytes !== null && <Fact name="Size">{bytesText(usage.bytes)}</Fact>}
      <Fact name="Rejected">{numberText(usage.rejected.records)}</Fact>
    </>
  );
}

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

const CONDITIONS: Column<Condition>[] = [
  { name: "Condition", cell: (each) => <strong>{each.type}</strong> },
  { name: "Status", cell: (each) => <StateText tone={toneOf(each)}>{each.status}</StateText> },
  { name: "Reason", cell: (each) => each.reason },
  { name: "Message", cell: (each) => each.message },
  {
    name: "Since",
    cell: (each) => <span title={each.lastTransitionTime}>{agoText(each.lastTransitionTime)}</span>,
  },
];
