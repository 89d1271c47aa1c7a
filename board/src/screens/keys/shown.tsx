import { Button, Code, Group, Modal, Stack, Text, TextInput } from "@mantine/core";
import { useClipboard } from "@mantine/hooks";
import type { MadeKey } from "../../api/api-keys.ts";
import classes from "./keys.module.css";
import { curlText } from "./lifetime.ts";

/** A key, the one time that it is shown. Neither Escape nor a click beside the dialog closes it. */
export function KeyShown({ made, onClose }: { made: MadeKey; onClose: () => void }) {
  const command = curlText(location.origin, made.role, made.key);
  return (
    <Modal
      opened
      onClose={onClose}
      title={`The key ${made.name}`}
      closeOnClickOutside={false}
      closeOnEscape={false}
      size="lg"
    >
      <Stack>
        <TextInput
          label="Key"
          description="Copy it now. Decklog keeps only its hash and cannot show it again."
          value={made.key}
          readOnly
          onFocus={(event) => event.currentTarget.select()}
          classNames={{ input: classes.mono }}
          data-autofocus
        />
        <div>
          <Text size="sm" fw={600} mb={4}>
            {made.role === "auditor" ? "List records with it" : "Store a record with it"}
          </Text>
          <Code block className={classes.command} tabIndex={0}>
            {command}
          </Code>
        </div>
        <Group>
          <Copy text={made.key} label="Copy the key" />
          <Copy text={command} label="Copy the command" />
        </Group>
        <Button onClick={onClose}>I have stored the key</Button>
      </Stack>
    </Modal>
  );
}

function Copy({ text, label }: { text: string; label: string }) {
  const clipboard = useClipboard();
  return (
    <Button variant="default" onClick={() => clipboard.copy(text)}>
      {clipboard.error ? "The browser refuses: select it and copy" : clipboard.copied ? "Copied" : label}
    </Button>
  );
}
