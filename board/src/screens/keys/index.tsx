import { Button, Code, Switch } from "@mantine/core";
import { useState } from "react";
import { type ApiKey, type MadeKey, useApiKeys } from "../../api/api-keys.ts";
import { useIdentity, useSignedIn } from "../../api/session.ts";
import { useKey } from "../../keys/keys.tsx";
import { type Column, Listing } from "../../parts/listing.tsx";
import { EmptyState, ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { StateText } from "../../parts/state.tsx";
import { agoText, TimeText } from "../../parts/time.tsx";
import { Waiting } from "../../parts/waiting.tsx";
import { endText, isInForce, makerText, stateOf } from "./lifetime.ts";
import { MakeKey } from "./make.tsx";
import { RevokeKey } from "./revoke.tsx";
import { KeyShown } from "./shown.tsx";

/** The API keys of the tenant: list, make, revoke. */
export default function Keys() {
  const identity = useIdentity();
  const { session } = useSignedIn();
  const own = new Set(session?.identities.filter((each) => each.kind === "api_key").map((each) => each.subject));
  const keys = useApiKeys();
  const [ended, setEnded] = useState(false);
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState<MadeKey | null>(null);
  const [revoked, setRevoked] = useState<ApiKey | null>(null);
  const now = Date.now();
  const shown = (keys.data ?? []).filter((each) => ended || isInForce(each, now));

  useKey("n", "New key", () => setMaking(true), { when: !making && made === null && revoked === null });

  return (
    <Page
      title="Keys"
      about={`API keys of ${identity.tenant}. A key is shown once, when it is made; here is everything else about it.`}
      actions={
        <>
          <Switch
            size="sm"
            label="Ended keys too"
            checked={ended}
            onChange={(event) => setEnded(event.currentTarget.checked)}
          />
          <Button onClick={() => setMaking(true)}>New key</Button>
        </>
      }
    >
      {keys.error && <ProblemNotice error={keys.error} onRetry={() => keys.refetch()} />}
      {keys.isPending && <Waiting />}
      {keys.data && shown.length === 0 && (
        <EmptyState title="No key is in force">Nobody can send or read records of this tenant by a key.</EmptyState>
      )}
      {shown.length > 0 && (
        <Listing label="API keys" columns={columns(now, own, setRevoked)} items={shown} keyOf={(each) => each.id} />
      )}
      {making && (
        <MakeKey
          onClose={() => setMaking(false)}
          onMade={(key) => {
            setMaking(false);
            setMade(key);
          }}
        />
      )}
      {made && <KeyShown made={made} onClose={() => setMade(null)} />}
      {revoked && <RevokeKey chosen={revoked} onClose={() => setRevoked(null)} />}
    </Page>
  );
}

function columns(now: number, own: Set<string>, onRevoke: (key: ApiKey) => void): Column<ApiKey>[] {
  return [
    {
      name: "Name",
      cell: (each) => (
        <>
          <strong>{each.name ?? "Key of the manifest"}</strong>
          {own.has(each.id) && " (you are signed in with it)"}
        </>
      ),
    },
    { name: "Id", cell: (each) => <Code>{each.id}</Code> },
    { name: "Role", cell: (each) => each.role },
    {
      name: "State",
      cell: (each) => {
        const { tone, text } = stateOf(each, now);
        return <StateText tone={tone}>{text}</StateText>;
      },
    },
    {
      name: "Last used",
      cell: (each) =>
        each.last_used_at ? <span title={each.last_used_at}>{agoText(each.last_used_at, now)}</span> : "never",
    },
    { name: "End", cell: (each) => <span title={each.expires_at ?? undefined}>{endText(each, now)}</span> },
    { name: "Made", cell: (each) => <TimeText value={each.created_at} /> },
    { name: "Made by", cell: (each) => makerText(each) },
    {
      name: "Actions",
      actions: true,
      cell: (each) =>
        each.source === "api" && isInForce(each, now) ? (
          <Button
            size="compact-sm"
            variant="subtle"
            color="red"
            aria-label={`Revoke ${each.name ?? each.id}`}
            onClick={() => onRevoke(each)}
          >
            Revoke
          </Button>
        ) : null,
    },
  ];
}
