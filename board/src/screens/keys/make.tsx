import { Button, Group, Modal, Radio, Select, Stack, TextInput } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { type KeyRole, type MadeKey, useMakeKey } from "../../api/api-keys.ts";
import { ProblemNotice } from "../../parts/notices.tsx";
import { LIFETIMES } from "./lifetime.ts";

const ROLES: { value: KeyRole; label: string; description: string }[] = [
  { value: "writer", label: "Writer", description: "Sends records, reads nothing." },
  { value: "auditor", label: "Auditor", description: "Reads, searches, exports and streams." },
  { value: "admin", label: "Admin", description: "Both, and keys, sessions and rejected records." },
];
const NAME_CHARS_MAX = 200;

/** The form of a new key. `onMade` gets the answer, which holds the key. */
export function MakeKey({ onMade, onClose }: { onMade: (key: MadeKey) => void; onClose: () => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<KeyRole>("writer");
  const [lifetime, setLifetime] = useState(LIFETIMES[1]?.value ?? "");
  const making = useMakeKey();

  function submit(event: FormEvent) {
    event.preventDefault();
    const wanted = { role, name: name.trim(), ...(lifetime ? { expires_in: Number(lifetime) } : {}) };
    making.mutate(wanted, { onSuccess: onMade });
  }

  return (
    <Modal opened onClose={onClose} title="New key">
      <form onSubmit={submit}>
        <Stack>
          <TextInput
            label="Name"
            description="What the key is for: the service or the person that gets it."
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            maxLength={NAME_CHARS_MAX}
            required
            autoComplete="off"
            data-autofocus
          />
          <Radio.Group label="Role" value={role} onChange={(value) => setRole(value as KeyRole)}>
            <Stack gap="xs" mt={4}>
              {ROLES.map((each) => (
                <Radio key={each.value} value={each.value} label={each.label} description={each.description} />
              ))}
            </Stack>
          </Radio.Group>
          <Select
            label="End"
            data={LIFETIMES}
            value={lifetime}
            onChange={(value) => setLifetime(value ?? "")}
            allowDeselect={false}
          />
          {making.error && <ProblemNotice error={making.error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={making.isPending} disabled={!name.trim()}>
              Make the key
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
