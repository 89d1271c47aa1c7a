import { Text, TextInput } from "@mantine/core";
import { useState } from "react";
import { type ApiKey, useRevokeKey } from "../../api/api-keys.ts";
import { useSignedIn } from "../../api/session.ts";
import { Confirm } from "../../parts/confirm.tsx";
import { agoText } from "../../parts/time.tsx";

/** Ask before a key is revoked. The key of this session needs its name to be typed: its end is the end of the session. */
export function RevokeKey({ chosen, onClose }: { chosen: ApiKey; onClose: () => void }) {
  const { session } = useSignedIn();
  const revoking = useRevokeKey();
  const [typed, setTyped] = useState("");
  const own = session?.identities.some((each) => each.kind === "api_key" && each.subject === chosen.id) ?? false;
  const name = chosen.name ?? chosen.id;
  return (
    <Confirm
      title={`Revoke ${name}?`}
      action="Revoke"
      ready={!own || typed.trim() === name}
      onConfirm={() => revoking.mutateAsync(chosen.id)}
      onClose={onClose}
    >
      <Text size="sm">
        Every request with this key is refused within two seconds, and its streams end. A revoked key does not come
        back.
      </Text>
      <Text size="sm">
        {chosen.last_used_at ? `It was used ${agoText(chosen.last_used_at)}.` : "It was not used yet."}
      </Text>
      {own && (
        <TextInput
          label={`You are signed in with this key. Type ${name} to end your own access.`}
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
          autoComplete="off"
        />
      )}
    </Confirm>
  );
}
