import { Button, Group, Modal, Stack } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { ProblemNotice } from "./notices.tsx";

/** Asks before what cannot be undone. It stays open with the refusal where `onConfirm` throws. */
export function Confirm({
  title,
  action,
  children,
  onConfirm,
  onClose,
  ready = true,
}: {
  title: string;
  /** The verb on the button. */
  action: string;
  children: ReactNode;
  onConfirm: () => Promise<unknown>;
  onClose: () => void;
  /** False keeps the button from working, for example until a name is typed. */
  ready?: boolean;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);

  async function confirm() {
    setBusy(true);
    setError(null);
    try {
      await onConfirm();
      onClose();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }

  return (
    <Modal opened onClose={onClose} title={title}>
      <Stack>
        {children}
        {error !== null && <ProblemNotice error={error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose} data-autofocus>
            Cancel
          </Button>
          <Button color="red" onClick={confirm} loading={busy} disabled={!ready}>
            {action}
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
