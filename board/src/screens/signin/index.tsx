import { Alert, Button, Paper, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { signInWithKey } from "../../api/signing.ts";
import mark from "../../theme/mark.svg";
import classes from "./signin.module.css";

/** The page of everybody who is not signed in. `refused` says why a one-time link did not work. */
export default function SignIn({ refused }: { refused: string | null }) {
  const [key, setKey] = useState("");
  const [error, setError] = useState(refused);
  const [busy, setBusy] = useState(false);

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    try {
      await signInWithKey(key);
    } catch (problem) {
      setError(problem instanceof Error ? problem.message : String(problem));
      setBusy(false);
    }
  }

  return (
    <main className={classes.page}>
      <Paper withBorder p="xl" radius="md" className={classes.card}>
        <form onSubmit={submit}>
          <Stack>
            <img src={mark} alt="" width={40} height={40} />
            <Title order={1} size="h3">
              Sign in to Decklog
            </Title>
            <PasswordInput
              label="API key or token"
              description="It is sent once, to open a session. The page does not keep it."
              placeholder="dlk_…"
              value={key}
              onChange={(event) => setKey(event.currentTarget.value)}
              autoComplete="off"
              required
              data-autofocus
            />
            {error && (
              <Alert color="red" role="alert">
                {error}
              </Alert>
            )}
            <Button type="submit" loading={busy} disabled={!key.trim()}>
              Sign in
            </Button>
            <Text size="sm" className={classes.hint}>
              <code>decklog board</code> prints a one-time link that signs in without a key.
            </Text>
          </Stack>
        </form>
      </Paper>
    </main>
  );
}
