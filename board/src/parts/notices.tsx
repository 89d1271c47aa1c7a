/** Designed states: what is empty, refused, or not reachable, and what to do about it. */
import { Alert, Button, Code, Stack, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { Problem } from "../api/client.ts";
import classes from "./notices.module.css";

const ADVICE: Record<string, string> = {
  unreachable: "The page tries again when you do.",
  unauthenticated: "Sign in again.",
  forbidden: "Your role does not include this. An admin of the tenant can give you a key that does.",
  "tenant-suspended": "The tenant's records are kept. The platform's engineers can end the suspension.",
  "search-unavailable": "Choose a shorter time range, or try again when the index is back.",
};

/** A refusal in the words of the API, with what helps. */
export function ProblemNotice({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const message = error instanceof Error ? error.message : String(error);
  const problem = error instanceof Problem ? error : null;
  const waits = problem?.retryAfter ? ` Decklog asks to wait ${problem.retryAfter} s.` : "";
  return (
    <Alert color="red" title={problem?.title ?? "The page failed"} role="alert" className={classes.problem}>
      <Stack gap="xs" align="flex-start">
        <Text size="sm" className={message.includes("\n") ? classes.lines : undefined}>
          {message}
        </Text>
        {problem && (
          <Text size="sm" c="dimmed">
            {ADVICE[problem.code] ?? ""}
            {waits} <Code>{problem.code}</Code>
          </Text>
        )}
        {onRetry && (
          <Button size="xs" variant="light" onClick={onRetry}>
            Try again
          </Button>
        )}
      </Stack>
    </Alert>
  );
}

/** A place where nothing is, with what it will hold and how it gets there. */
export function EmptyState({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <section className={classes.empty}>
      <Title order={2} size="h4">
        {title}
      </Title>
      <div className={classes.advice}>{children}</div>
    </section>
  );
}
