import { Button, Group, Stack, Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { can, useIdentity } from "../../api/session.ts";
import { type OpenSession, useEndSessions, useSessions } from "../../api/sessions.ts";
import { signOut } from "../../api/signing.ts";
import { Confirm } from "../../parts/confirm.tsx";
import { type Column, Listing } from "../../parts/listing.tsx";
import { ProblemNotice } from "../../parts/notices.tsx";
import { Page } from "../../parts/page.tsx";
import { StateText } from "../../parts/state.tsx";
import { agoText, TimeText } from "../../parts/time.tsx";
import { Waiting } from "../../parts/waiting.tsx";
import { deviceText } from "./device.ts";

/** Where somebody is signed in, and how to end it. */
export default function Sessions() {
  const identity = useIdentity();
  const sessions = useSessions();
  const ending = useEndSessions();
  const queries = useQueryClient();
  const [asked, setAsked] = useState<OpenSession[] | null>(null);
  const admin = can(identity, "manage");
  const items = sessions.data ?? [];
  const others = items.filter((each) => !each.current);

  async function end(chosen: OpenSession[]) {
    if (chosen.some((each) => each.current)) {
      await signOut();
      queries.clear();
    } else {
      await ending.mutateAsync(chosen.map((each) => each.id));
    }
  }

  return (
    <Page
      title="Sessions"
      about={
        admin
          ? `Sign-ins to the board with a credential of ${identity.tenant}. An ended session ends within two seconds, its streams too.`
          : "Your sign-ins to the board. An ended session ends within two seconds, its streams too."
      }
      actions={
        <Button variant="default" disabled={others.length === 0} onClick={() => setAsked(others)}>
          End all others
        </Button>
      }
    >
      {sessions.error && <ProblemNotice error={sessions.error} onRetry={() => sessions.refetch()} />}
      {sessions.isPending && <Waiting />}
      {sessions.data && (
        <Listing
          label="Open sessions"
          columns={columns((each) => setAsked([each]))}
          items={items}
          keyOf={(each) => each.id}
          marked={(each) => each.current}
        />
      )}
      {asked && (
        <Confirm
          title={asked.some((each) => each.current) ? "Sign out here?" : `End ${counted(asked.length)}?`}
          action={asked.some((each) => each.current) ? "Sign out" : "End"}
          onClose={() => setAsked(null)}
          onConfirm={() => end(asked)}
        >
          <Stack gap={4}>
            {asked.slice(0, 5).map((each) => (
              <Text key={each.id} size="sm">
                {deviceText(each.user_agent)}, {each.address ?? "unknown address"}, used {agoText(each.last_used_at)}
              </Text>
            ))}
            {asked.length > 5 && <Text size="sm">and {asked.length - 5} more</Text>}
          </Stack>
        </Confirm>
      )}
    </Page>
  );
}

function counted(count: number): string {
  return count === 1 ? "this session" : `${count} sessions`;
}

function columns(onEnd: (session: OpenSession) => void): Column<OpenSession>[] {
  return [
    {
      name: "Device",
      cell: (each) => (
        <Group gap="xs">
          <span title={each.user_agent ?? undefined}>{deviceText(each.user_agent)}</span>
          {each.current && <StateText tone="good">this one</StateText>}
        </Group>
      ),
    },
    { name: "Address", cell: (each) => each.address ?? "unknown" },
    {
      name: "Signed in as",
      cell: (each) => each.identities.map((one) => `${one.tenant ?? "Platform"} · ${one.role}`).join(", "),
    },
    { name: "Began", cell: (each) => <TimeText value={each.created_at} /> },
    { name: "Last used", cell: (each) => <span title={each.last_used_at}>{agoText(each.last_used_at)}</span> },
    { name: "Ends at the latest", cell: (each) => <span title={each.ends_at}>{agoText(each.ends_at)}</span> },
    {
      name: "Actions",
      actions: true,
      cell: (each) => (
        <Button size="compact-sm" variant="subtle" color="red" onClick={() => onEnd(each)}>
          {each.current ? "Sign out" : "End"}
        </Button>
      ),
    },
  ];
}
