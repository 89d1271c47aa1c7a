/** The dialog that saves a search, or renames and shares one that is saved. */
import { Button, Code, Group, Modal, Stack, Switch, Text, TextInput } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { type Parameters, useSaveSearch } from "../../api/searches.ts";
import { ProblemNotice } from "../../parts/notices.tsx";
import { describe } from "./places.ts";

const NAME_MAX = 200;

interface Props {
  parameters: Parameters;
  /** The search that is changed; absent for a new one. */
  saved?: { id: string; name: string; shared: boolean };
  onClose: () => void;
  onSaved?: () => void;
}

export function SaveSearch({ parameters, saved, onClose, onSaved }: Props) {
  const saving = useSaveSearch();
  const [name, setName] = useState(saved?.name ?? "");
  const [shared, setShared] = useState(saved?.shared ?? false);

  function submit(event: FormEvent) {
    event.preventDefault();
    const input = { name: name.trim(), parameters, shared, ...(saved ? { id: saved.id } : {}) };
    saving.mutate(input, {
      onSuccess: () => {
        onSaved?.();
        onClose();
      },
    });
  }

  return (
    <Modal opened onClose={onClose} title={saved ? "Change the saved search" : "Save this search"}>
      <form onSubmit={submit}>
        <Stack>
          <TextInput
            label="Name"
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            maxLength={NAME_MAX}
            required
            data-autofocus
            autoComplete="off"
          />
          <Text size="sm">
            It finds: <Code>{describe(parameters)}</Code>
          </Text>
          <Switch
            label="Shared with all readers of the tenant"
            checked={shared}
            onChange={(event) => setShared(event.currentTarget.checked)}
          />
          {saving.isError && <ProblemNotice error={saving.error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={saving.isPending} disabled={!name.trim()}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
