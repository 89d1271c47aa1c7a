import { Alert, Button, Divider, Paper, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { Problem } from "../../api/client.ts";
import type { Ending } from "../../api/session.ts";
import { loadConfig, type Refused, signInWithKey } from "../../api/signing.ts";
import mark from "../../theme/mark.svg";
import classes from "./signin.module.css";

/** Reasons of a provider's refusal, by code. An address may name any code, so the page shows no text of the address. */
const PROVIDER: Record<string, string> = {
  unauthenticated:
    "The provider refused the sign-in, it took longer than 10 minutes, or your account may not use this installation.",
  "issuer-unavailable": "The provider cannot be reached at the moment. Try again in a minute, or sign in with a key.",
  "tenant-suspended": "Your tenant is suspended.",
  overloaded: "Many people sign in at the moment. Try again in a few seconds.",
};

const ADVICE: Record<string, string> = {
  unauthenticated: "Check that the whole key was pasted. A key that was rotated or revoked does not work any more.",
  unreachable: "Check the connection, then try again.",
};

/** The page of everybody who is not signed in. `refused` says why a sign-in did not work, `ending` why a session is over. */
export default function SignIn({ refused, ending }: { refused: Refused | null; ending: Ending | null }) {
  const [key, setKey] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const config = useQuery({
    queryKey: ["board-config"],
    queryFn: ({ signal }) => loadConfig(signal),
    staleTime: Infinity,
  });

  useEffect(() => {
    document.title = "Sign in · Decklog";
  }, []);

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await signInWithKey(key);
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }

  return (
    <main className={classes.page}>
      <Paper withBorder p="xl" radius="md" className={classes.card}>
        <Stack>
          <img src={mark} alt="" width={40} height={40} />
          <Title order={1} size="h3">
            Sign in to Decklog
          </Title>
          {error === null && <Why refused={refused} ending={ending} />}
          {config.data?.oidc && (
            <>
              <Button component="a" href={`/board/oidc/start?return=${encodeURIComponent(place())}`}>
                Sign in with {config.data.oidc.name}
              </Button>
              <Divider label="or" labelPosition="center" />
            </>
          )}
          <form onSubmit={submit}>
            <Stack>
              <PasswordInput
                label="API key or token"
                description="It is sent once, to open a session. The page does not keep it."
                placeholder="dlk_…"
                value={key}
                onChange={(event) => setKey(event.currentTarget.value)}
                autoComplete="off"
                required
                autoFocus
              />
              {error !== null && <Refusal error={error} />}
              <Button
                type="submit"
                variant={config.data?.oidc ? "default" : "filled"}
                loading={busy}
                disabled={!key.trim()}
              >
                Sign in with the key
              </Button>
            </Stack>
          </form>
          <Text size="sm" className={classes.hint}>
            <code>decklog board</code> prints a one-time link that signs in without a key.
          </Text>
        </Stack>
      </Paper>
    </main>
  );
}

/** The page that a sign-in elsewhere comes back to. */
function place(): string {
  return location.pathname.startsWith("/board") ? location.pathname + location.search : "/board";
}

function Why({ refused, ending }: { refused: Refused | null; ending: Ending | null }) {
  if (refused !== null && "provider" in refused) {
    return (
      <Alert color="yellow" title="The provider did not sign you in" role="status">
        {PROVIDER[refused.provider] ?? "Try again. If it fails again, ask the people who run this installation."}
      </Alert>
    );
  }
  if (refused !== null) {
    return (
      <Alert color="yellow" title="The link did not sign you in" role="status">
        {refused.link} A link works once, for 10 minutes. <code>decklog board</code> prints a new one.
      </Alert>
    );
  }
  if (ending === "ended") {
    return (
      <Alert color="yellow" title="Your session ended" role="status">
        It was not used for a while, reached its longest time, or was ended in another place. Sign in again to go on at
        this page.
      </Alert>
    );
  }
  return ending === "left" ? (
    <Alert color="gray" title="You are signed out" role="status">
      This browser has no access any more.
    </Alert>
  ) : null;
}

function Refusal({ error }: { error: unknown }) {
  const code = error instanceof Problem ? error.code : "";
  return (
    <Alert color="red" title={error instanceof Problem ? error.title : "Sign-in failed"} role="alert">
      {error instanceof Error ? error.message : String(error)} {ADVICE[code] ?? ""}
    </Alert>
  );
}
